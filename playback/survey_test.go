package playback

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What servers write, as they write it. Everything was asked for as
// https://tv.example/live/ch1/~<id>/m, and tv.example:443 is the gate.
func TestSurvey(t *testing.T) {
	const s = time.Second
	usual, err := NewKinds(nil)
	if err != nil {
		t.Fatal(err)
	}
	manifestsOnly, err := NewKinds([]KindRule{{"other", []string{"*.ts", "*.m4s"}}})
	if err != nil {
		t.Fatal(err)
	}
	folder, err := NewKinds([]KindRule{{"media", []string{"/live/*/seg"}}})
	if err != nil {
		t.Fatal(err)
	}
	live := func(target time.Duration) Survey { return Survey{Live: true, Period: target, Segment: target} }
	elsewhere := func(s Survey) Survey { s.Elsewhere = true; return s }
	for _, c := range []struct {
		name     string
		kinds    Kinds
		manifest string
		want     Survey
	}{
		// Playlists
		{"Apple's advanced example, a variant", usual, "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXT-X-VERSION:7\n#EXT-X-MEDIA-SEQUENCE:1\n#EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-MAP:URI=\"main.mp4\",BYTERANGE=\"719@0\"\n#EXTINF:6.00000,\n#EXT-X-BYTERANGE:1508000@719\nmain.mp4\n#EXT-X-ENDLIST\n",
			Survey{Segment: 6 * s}},
		{"nginx-rtmp", usual, "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-MEDIA-SEQUENCE:12\n#EXT-X-TARGETDURATION:5\n#EXTINF:5.000,\nch1-12.ts\n#EXTINF:5.000,\nch1-13.ts\n", live(5 * s)},
		{"SRS", usual, "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-TARGETDURATION:12\n#EXT-X-DISCONTINUITY\n#EXTINF:11.640, no desc\nlivestream-0.ts?hls_ctx=5rz3a\n", live(12 * s)},
		{"Wowza, with Windows' line ends", usual, "#EXTM3U\r\n#EXT-X-VERSION:3\r\n#EXT-X-TARGETDURATION:11\r\n#EXT-X-MEDIA-SEQUENCE:7\r\n#EXTINF:10.0,\r\nmedia_w1_7.ts\r\n", live(11 * s)},
		{"a decimal target duration", usual, "\ufeff#EXTM3U\n#EXT-X-TARGETDURATION: 4.5\n#EXTINF:4.5,\n1.ts\n", live(4500 * time.Millisecond)},
		{"MediaMTX's low latency", usual, "#EXTM3U\n#EXT-X-VERSION:10\n#EXT-X-TARGETDURATION:1\n#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=0.5,CAN-SKIP-UNTIL=6\n#EXT-X-PART-INF:PART-TARGET=0.2\n#EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-MAP:URI=\"9d4a_main_init.mp4\"\n#EXT-X-GAP\n#EXTINF:1.00000,\ngap.mp4\n#EXT-X-PART:DURATION=0.2,URI=\"9d4a_main_part1.mp4\",INDEPENDENT=YES\n#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"9d4a_main_part2.mp4\"\n", live(s)},
		{"an event that goes on", usual, "#EXTM3U\n#EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n1.ts\n", live(4 * s)},
		{"an event that is over", usual, "#EXTM3U\n#EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n1.ts\n#EXT-X-ENDLIST", Survey{Segment: 4 * s}},
		{"a film without an end tag", usual, "#EXTM3U\n#EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n1.ts\n", Survey{Segment: 4 * s}},
		{"tags in another order", usual, "#EXTM3U\n#EXTINF:4,\n1.ts\n#EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n2.ts\n", Survey{Segment: 4 * s}},
		{"an end before the segments", usual, "#EXTM3U\n#EXT-X-ENDLIST\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n1.ts\n#EXTINF:4,\n2.ts\n", Survey{Segment: 4 * s}},
		{"no target duration", usual, "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:1\n#EXTINF:4,\n1.ts\n", Survey{Live: true}},
		{"an unreasonable target duration", usual, "#EXTM3U\n#EXT-X-TARGETDURATION:1e300\n#EXTINF:4,\n1.ts\n", live(24 * time.Hour)},
		{"a target duration that is no number", usual, "#EXTM3U\n#EXT-X-TARGETDURATION:NaN\n#EXTINF:4,\n1.ts\n", Survey{Live: true}},
		{"live, and empty still", usual, "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-MAP:URI=\"https://cdn.other/init.mp4\"\n", live(4 * s)},
		{"segments on a CDN", usual, "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nhttps://cdn.other/ch1/1.ts\n#EXTINF:4,\n//cdn.other/ch1/2.ts\n", elsewhere(live(4 * s))},
		{"segments on a CDN but one", usual, "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nhttps://cdn.other/ch1/1.ts\n#EXTINF:4,\n/ads/2.ts\n", live(4 * s)},
		{"segments on a CDN, the key here", usual, "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-KEY:METHOD=AES-128,URI=\"1.ts\"\n#EXT-X-SESSION-DATA:DATA-ID=\"a\",URI=\"a.m3u8\"\n#EXTINF:4,\nhttps://cdn.other/ch1/1.ts\n", elsewhere(live(4 * s))},
		{"parts on a CDN", usual, "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-PART:DURATION=0.2,URI=\"https://cdn.other/1.mp4\"\n#EXT-X-RENDITION-REPORT:URI=\"a.m3u8\"\n#EXT-X-PRELOAD-HINT:TYPE=MAP,URI=\"init.mp4\"", elsewhere(live(4 * s))},
		{"parts here", usual, "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nhttps://cdn.other/ch1/1.ts\n#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"part2.mp4\"", live(4 * s)},
		{"a film whose segments are absolute, and ours", usual, "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nhttps://TV.example/ch1/1.ts\n#EXT-X-ENDLIST", Survey{Segment: 4 * s}},
		{"another port is another host", usual, "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nhttps://tv.example:8443/ch1/1.ts\n#EXT-X-ENDLIST", elsewhere(Survey{Segment: 4 * s})},
		{"with a user in it", usual, "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nhttps://u:p@tv.example/ch1/1.ts\n#EXTINF:4,\n#EXT-X-ENDLIST", Survey{Segment: 4 * s}},
		{"URLs that no library reads", usual, "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n/ch1/100%/1.ts\n#EXT-X-ENDLIST", Survey{Segment: 4 * s}},
		{"names that are in no list", usual, "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nseg?n=1.ts\n#EXT-X-ENDLIST", elsewhere(Survey{Segment: 4 * s})},
		{"names that the operator knows", folder, "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nseg?n=1\n#EXT-X-ENDLIST", Survey{Segment: 4 * s}},
		{"names that the operator knows, with the token", folder, "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n/live/ch1/TOK/s%65g?n=1\n#EXT-X-ENDLIST", Survey{Segment: 4 * s}},
		{"segments behind a CDN, which are not counted", manifestsOnly, "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n1.ts\n", elsewhere(live(4 * s))},
		{"the same with an initialization", manifestsOnly, "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-MAP:URI=\"init.mp4\"\n#EXTINF:4,\n1.m4s\n", elsewhere(live(4 * s))},
		{"variables that lead away", usual, "#EXTM3U\n#EXT-X-DEFINE:NAME=\"cdn\",VALUE=\"https://cdn.other\"\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{$cdn}/1.ts\n", elsewhere(live(4 * s))},
		{"variables that lead here", usual, "#EXTM3U\n#EXT-X-DEFINE:NAME=\"cdn\",VALUE=\"https://tv.example\"\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{$cdn}/1.ts\n", live(4 * s)},
		{"variables of the query", usual, "#EXTM3U\n#EXT-X-DEFINE:QUERYPARAM=\"cdn\"\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nhttps://{$cdn}/1.ts\n", elsewhere(live(4 * s))},
		{"a variable that names itself", usual, "#EXTM3U\n#EXT-X-DEFINE:NAME=\"a\",VALUE=\"{$a}\"\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{$a}/1.ts\n", live(4 * s)},
		{"inline, and nothing besides", usual, "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\ndata:video/mp2t;base64,AA//1.ts\n", elsewhere(live(4 * s))},

		// Master playlists
		{"ffmpeg's master", usual, "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-STREAM-INF:BANDWIDTH=1540000,RESOLUTION=1280x720,CODECS=\"avc1.64001f,mp4a.40.2\"\nstream_0.m3u8\n", Survey{}},
		{"a master of another host", usual, "#EXTM3U\n#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID=\"s\",NAME=\"en\",URI=\"en.m3u8\"\n#EXT-X-STREAM-INF:BANDWIDTH=1,SUBTITLES=\"s\"\nhttps://cdn.other/1.m3u8\n#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI=\"i.m3u8\"\n", Survey{Elsewhere: true}},
		{"a master of two hosts", usual, "#EXTM3U\n#EXT-X-STREAM-INF:AVERAGE-BANDWIDTH=1,BANDWIDTH=2\nhttps://cdn.other/1.m3u8\n#EXT-X-STREAM-INF:AVERAGE-BANDWIDTH=1,BANDWIDTH=3\n2.m3u8\n", Survey{}},
		{"Apple's redundant streams, first elsewhere", usual, "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=2,AUDIO=\"a\"\nhttps://alpha.other/1.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2,AUDIO=\"b\"\nhttps://tv.example/1.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=4,AUDIO=\"a\"\nhttps://alpha.other/2.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=4,AUDIO=\"b\"\nhttps://tv.example/2.m3u8\n", Survey{Elsewhere: true}},
		{"Apple's redundant streams, first here", usual, "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=2\nhttps://tv.example/1.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\nhttps://beta.other/1.m3u8\n", Survey{}},
		{"content steering, the first pathway elsewhere", usual, "#EXTM3U\n#EXT-X-CONTENT-STEERING:SERVER-URI=\"/steering.m3u8\",PATHWAY-ID=\"A\"\n#EXT-X-STREAM-INF:BANDWIDTH=2,PATHWAY-ID=\"A\"\nhttps://cdn.other/1.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2,PATHWAY-ID=\"B\"\n1.m3u8\n", Survey{Elsewhere: true}},
		{"a master before segments that are not counted", manifestsOnly, "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n1.m3u8\n", Survey{}},
		{"MediaTailor's master", usual, "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-STREAM-INF:CODECS=\"avc1.64001f,mp4a.40.2\",BANDWIDTH=1500000\n../../../manifest/1/o/S/0.m3u8\n", Survey{}},
		{"Azure's master", usual, "#EXTM3U\n#EXT-X-VERSION:4\n#EXT-X-STREAM-INF:BANDWIDTH=350000,RESOLUTION=320x180\nQualityLevels(350000)/Manifest(video,format=m3u8-aapl)\n", Survey{}},
		{"Azure's media playlist", usual, "#EXTM3U\n#EXT-X-VERSION:4\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,no-desc\nFragments(video=0,format=m3u8-aapl)\n#EXT-X-ENDLIST\n", Survey{Segment: 2 * s}},
		{"Emby's master", usual, "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=8000000\nhls1/main/0.m3u8?DeviceId=x&MediaSourceId=y\n", Survey{}},

		// Lists
		{"four channels", usual, "#EXTM3U\n#EXTINF:-1,One\nhttps://tv.example/ch1/index.m3u8\n#EXTINF:-1,Two\nhttps://tv.example/ch2/index.m3u8\n", Survey{List: true}},
		{"channels, relative", usual, "#EXTM3U\nch1.m3u8\nch2.m3u8\n", Survey{List: true}},
		{"channels of a panel", usual, "#EXTM3U\n#EXT-X-SESSION-DATA:DATA-ID=\"com.xui.1_5_13\"\n#EXTINF:-1 tvg-id=\"a\" group-title=\"News\",A\nhttp://tv.example:80/u/p/406464\n", Survey{List: true}},
		{"channels of a panel that does not say", usual, "#EXTM3U x-tvg-url=\"/epg.xml\"\n#EXTINF:0 tvg-id=\"a\",A\nhttp://tv.example/u/p/1.ts\n", Survey{List: true}},
		{"one channel of Tvheadend", usual, "#EXTM3U\n#EXTINF:-1 tvg-id=\"95a\",One\nhttp://tv.example/stream/channelid/1?ticket=F&profile=pass\n", Survey{List: true}},
		{"a list of lists", usual, "#EXTM3U\nnews.m3u\nsport.m3u\n", Survey{List: true}},
		{"a list of one list", usual, "#EXTM3U\nnews.m3u\n", Survey{}},
		{"radio", usual, "#EXTM3U\n#EXTINF:-1,Jazz\n/radio/jazz.mp3\n#EXTINF:-1,Rock\n/radio/rock.mp3\n", Survey{List: true}},
		{"radio without a word", usual, "http://tv.example/radio/jazz.mp3\r\nhttp://tv.example/radio/rock.mp3\r\n", Survey{List: true}},
		{"radio, each in a folder", usual, "http://a.other/jazz/stream\nhttp://a.other/rock/stream\n", Survey{List: true}},
		{"SomaFM's mirrors of one station", usual, "#EXTM3U\nhttp://ice1.other/groovesalad-128-mp3\nhttp://ice2.other/groovesalad-128-mp3\n", Survey{Elsewhere: true}},
		{"numbered channels on another host", usual, "#EXTM3U\nhttp://a.other/1.m3u8\nhttp://a.other/2.m3u8\n", Survey{List: true}},
		{"films in a folder", usual, "#EXTM3U\n#EXTINF:5400,Alien\nalien.mkv\n#EXTINF:5400,Brazil\nbrazil.mkv\n", Survey{List: true}},
		{"films in folders", usual, "#EXTM3U\n#EXTINF:5400,Alien\nalien/1.mp4\n#EXTINF:5400,Brazil\nbrazil/1.mp4\n", Survey{List: true}},
		{"films with spaces in their names", usual, "#EXTM3U\nThe Alien.mkv\nBrazil (1985).mkv\n", Survey{List: true}},
		{"numbered channels", usual, "#EXTM3U\n/live/1.m3u8\n/live/2.m3u8\n", Survey{List: true}},
		{"channels in folders", usual, "#EXTM3U\n../ch1/index.m3u8\n../ch2/index.m3u8\n", Survey{List: true}},
		{"channels without segments", usual, "#EXTM3U\n/live/bbc.ts\n/live/cnn.ts\n", Survey{List: true}},
		{"renditions without a tag", usual, "#EXTM3U\nv1.m3u8\na1.m3u8\n", Survey{}},
		{"segments without a tag, in folders", usual, "#EXTM3U\n/vod/a/1.ts\n/vod/b/1.ts\n", Survey{}},
		{"a film in a list of its own", usual, "#EXTM3U\n#EXTINF:5400,Alien\nalien.mkv\n", Survey{}},
		{"the same, without a word", usual, "../alien/alien.mkv\n", Survey{}},
		{"a film in pieces", usual, "#EXTM3U\n#EXTINF:10,\nalien-1.ts\n#EXTINF:10,\nalien-2.ts\n", Survey{}},
		{"an album by its tracks", usual, "#EXTM3U\n#EXTINF:200,Come Together\n01.mp3\n#EXTINF:180,Something\n02.mp3\n", Survey{}},
		{"a film elsewhere", usual, "#EXTM3U\nhttps://cdn.other/alien/master.m3u8\n", Survey{Elsewhere: true}},
		{"what Icecast writes", usual, "http://tv.example/jazz\r\n", Survey{Elsewhere: true}},
		{"an empty list", usual, "#EXTM3U\n", Survey{}},
		{"a list's comments only", usual, "#EXTM3U\n#EXTINF:-1 tvg-id=\"a\",A\n", Survey{}},
		{"nothing", usual, "", Survey{}},
		{"prose", usual, "Not found.\nGo away.\n", Survey{}},
		{"prose with a URL", usual, "of /v/a.m3u8\nand /w/b.m3u8\n", Survey{}},
		{"JSON", usual, "{\n  \"error\": \"http://tv.example/1.ts\"\n}\n", Survey{}},
		{"JSON in one line", usual, `{"error":"http://tv.example/1.ts"}`, Survey{}},
		{"HTML", usual, "<!DOCTYPE html><html><body>Not found<br></body></html>", Survey{}},

		// MPDs
		{"ffmpeg's live MPD", usual, `<?xml version="1.0" encoding="utf-8"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="dynamic" minimumUpdatePeriod="PT500S" maxSegmentDuration="PT12.0S" minBufferTime="PT24.0S">
	<Period id="0" start="PT0.0S"><AdaptationSet id="0" contentType="video"><Representation id="0" mimeType="video/mp4" bandwidth="1">
	<SegmentTemplate timescale="15360" initialization="init-stream$RepresentationID$.m4s" media="chunk-stream$RepresentationID$-$Number%05d$.m4s" startNumber="1">
	<SegmentTimeline><S t="0" d="30720" r="4" /></SegmentTimeline></SegmentTemplate></Representation></AdaptationSet></Period></MPD>`,
			Survey{Live: true, Period: 500 * s, Segment: 12 * s}},
		{"Shaka Packager's live MPD", usual, `<?xml version="1.0" encoding="UTF-8"?>
<!--Generated with https://github.com/shaka-project/shaka-packager version v3.4.2-release-->
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:isoff-live:2011" minBufferTime="PT2S" type="dynamic" minimumUpdatePeriod="PT5S">
  <Period id="0" start="PT0S"><AdaptationSet id="0" contentType="audio"><Representation id="0" mimeType="audio/mp4">
    <SegmentTemplate timescale="44100" initialization="a/init.mp4" media="a/$Number$.m4s"><SegmentTimeline><S t="0" d="176128"/><S t="176128" d="177152" r="3"/></SegmentTimeline></SegmentTemplate></Representation></AdaptationSet>
    <AdaptationSet id="1" contentType="video"><Representation id="1" mimeType="video/mp4">
    <SegmentTemplate timescale="90000" initialization="v/init.mp4" media="v/$Number$.m4s"><SegmentTimeline><S t="0" d="540000" r="5"/></SegmentTimeline></SegmentTemplate></Representation></AdaptationSet></Period></MPD>`,
			Survey{Live: true, Period: 5 * s, Segment: 6 * s}},
		{"a film of templates, the timescale from above", usual, `<MPD type="static"><Period><AdaptationSet mimeType="video/mp4"><SegmentTemplate timescale="200"/><Representation><SegmentTemplate duration="768" media="dash-$Number$.mp4"/></Representation></AdaptationSet></Period></MPD>`,
			Survey{Segment: 3840 * time.Millisecond}},
		{"no type is a film", usual, `<MPD minimumUpdatePeriod="PT0S"><Location>https://tv.example/m.mpd</Location></MPD>`, Survey{}},
		{"live without a period", usual, `<MPD type='dynamic' maxSegmentDuration = 'P0Y0M0DT0H1M2.5S'><Period/></MPD>`, Survey{Live: true, Segment: 62500 * time.Millisecond}},
		{"durations of all kinds", usual, `<MPD type="dynamic" maxSegmentDuration="P1DT1S" minimumUpdatePeriod="PT1H2M3S"/>`, Survey{Live: true, Segment: 24 * time.Hour, Period: 3723 * s}},
		{"durations that are none", usual, `<MPD type="dynamic" maxSegmentDuration="4s" minimumUpdatePeriod="-PT2S"/>`, Survey{Live: true}},
		{"a single file", usual, `<MPD><Period><AdaptationSet><Representation><BaseURL>alien.mp4</BaseURL><SegmentBase indexRange="1-2"/></Representation></AdaptationSet></Period></MPD>`, Survey{}},
		{"a single file on a CDN", usual, `<MPD><Period><AdaptationSet><Representation><BaseURL>https://cdn.other/alien.mp4</BaseURL><SegmentBase indexRange="1-2"/></Representation></AdaptationSet></Period></MPD>`, Survey{Elsewhere: true}},
		{"a list of segments", usual, `<MPD><Period><AdaptationSet><Representation><SegmentList timescale="10" duration="40"><SegmentURL media="1.m4s"/><SegmentURL media="2.m4s"/></SegmentList></Representation></AdaptationSet></Period></MPD>`, Survey{Segment: 4 * s}},
		{"a list of ranges", usual, `<MPD><Period><AdaptationSet><Representation><BaseURL>http://cdn.other/1.mp4</BaseURL><SegmentList duration="4"><SegmentURL mediaRange="1-2"/></SegmentList></Representation></AdaptationSet></Period></MPD>`, elsewhere(Survey{Segment: 4 * s})},
		{"a base on a CDN", usual, `<MPD><BaseURL>https://cdn.other/v/</BaseURL><Period><BaseURL>p/</BaseURL><AdaptationSet><SegmentTemplate media="$Number$.m4s"/><Representation/></AdaptationSet></Period></MPD>`, Survey{Elsewhere: true}},
		{"a base that leads home", usual, `<MPD><BaseURL>https://cdn.other/v/</BaseURL><Period><BaseURL>https://tv.example/</BaseURL><AdaptationSet><SegmentTemplate media="$Number$.m4s"/><Representation/></AdaptationSet></Period></MPD>`, Survey{}},
		{"bases that are alternatives, the first elsewhere", usual, `<MPD><BaseURL serviceLocation="a">https://cdn.other/v/</BaseURL><BaseURL serviceLocation="b">https://tv.example/v/</BaseURL><Period><AdaptationSet><SegmentTemplate media="$Number$.m4s"/><Representation/></AdaptationSet></Period></MPD>`, Survey{Elsewhere: true}},
		{"bases that are alternatives, the first here", usual, `<MPD><BaseURL>v/</BaseURL><BaseURL>https://cdn.other/v/</BaseURL><Period><AdaptationSet><SegmentTemplate media="$Number$.m4s"/><Representation/></AdaptationSet></Period></MPD>`, Survey{}},
		{"each period its own base", usual, `<MPD><Period><BaseURL>https://cdn.other/</BaseURL><AdaptationSet><Representation><SegmentTemplate media="1.m4s"/></Representation></AdaptationSet></Period><Period><AdaptationSet><Representation><SegmentTemplate media="2.m4s"/></Representation></AdaptationSet></Period></MPD>`, Survey{}},
		{"each representation its own base", usual, `<MPD><Period><AdaptationSet><SegmentTemplate media="$Number$.m4s"/><Representation><BaseURL>https://cdn.other/</BaseURL></Representation><Representation><BaseURL>//cdn.other/</BaseURL></Representation></AdaptationSet></Period></MPD>`, Survey{Elsewhere: true}},
		{"subtitles and thumbnails here, the film elsewhere", usual, `<MPD><Period><AdaptationSet mimeType="text/vtt"><Representation><BaseURL>en.vtt</BaseURL></Representation></AdaptationSet><AdaptationSet contentType="image"><Representation><SegmentTemplate media="$Number$.mp4"/></Representation></AdaptationSet><AdaptationSet><Representation><BaseURL>https://cdn.other/a.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>`, Survey{Elsewhere: true}},
		{"templates of a name in no list", usual, `<MPD><Period><AdaptationSet><SegmentTemplate media="seg?n=$Number$.m4s"/><Representation/></AdaptationSet></Period></MPD>`, Survey{Elsewhere: true}},
		{"templates that the operator knows", folder, `<MPD><Period><AdaptationSet><SegmentTemplate media="seg?n=$Number$"/><Representation/></AdaptationSet></Period></MPD>`, Survey{}},
		{"templates that are not counted", manifestsOnly, `<MPD><Period><AdaptationSet><SegmentTemplate media="$Time%d$.m4s" initialization="init.mp4"/><Representation/></AdaptationSet></Period></MPD>`, Survey{Elsewhere: true}},
		{"a template that no library reads", usual, `<MPD><Period><AdaptationSet><SegmentTemplate media="https://tv.example/$Time%d$.m4s"/><Representation/></AdaptationSet></Period></MPD>`, Survey{}},
		{"a base in CDATA", usual, `<MPD><BaseURL><![CDATA[https://cdn.other/v/?a=1&b=2]]></BaseURL><Period><AdaptationSet><SegmentTemplate media="$Number$.m4s"/><Representation/></AdaptationSet></Period></MPD>`, Survey{Elsewhere: true}},
		{"references to characters", usual, `<MPD><BaseURL>https:&#47;&#x2f;cdn.other/v/</BaseURL><Period><AdaptationSet><SegmentTemplate media="$Number$.m4s"/><Representation/></AdaptationSet></Period></MPD>`, Survey{Elsewhere: true}},
		{"with a namespace, and a > in an attribute", usual, `<d:MPD type="dynamic" title="a>b" minimumUpdatePeriod="PT2S"><d:Period><d:AdaptationSet label="media='1.m4s'"><d:Representation><d:BaseURL>//cdn.other/1.mp4</d:BaseURL></d:Representation></d:AdaptationSet></d:Period></d:MPD>`, Survey{Live: true, Period: 2 * s, Elsewhere: true}},
		{"a base on a CDN, and templates of its root", usual, `<MPD><BaseURL>https://cdn.other/v/</BaseURL><Period><AdaptationSet><SegmentTemplate media="/w/$Number$.m4s"/><Representation/></AdaptationSet></Period></MPD>`, Survey{Elsewhere: true}},
		{"a period that is to be fetched", usual, `<MPD><Period xlink:href="https://ads.other/1"/><Period><AdaptationSet><Representation/></AdaptationSet></Period></MPD>`, Survey{}},
		{"a base on a CDN, and nothing to play", usual, `<MPD><BaseURL>https://cdn.other/v/</BaseURL><Period><AdaptationSet><Representation/></AdaptationSet></Period></MPD>`, Survey{}},
		{"a list in place of another", usual, `<MPD><Period><SegmentList><SegmentURL media="0.m4s"/></SegmentList><AdaptationSet><Representation><SegmentList><SegmentURL media="//cdn.other/1.m4s"/></SegmentList></Representation></AdaptationSet></Period></MPD>`, Survey{Elsewhere: true}},
		{"what looks like an attribute", usual, `<MPD> type="dynamic" <Period/></MPD>`, Survey{}},
		{"a segment longer than told", usual, `<MPD maxSegmentDuration="PT2S"><Period><SegmentTemplate duration="4"/></Period></MPD>`, Survey{Segment: 2 * s}},
		{"what is commented out", usual, `<!-- <MPD type="dynamic"> --><MPD><!-- <BaseURL>https://cdn.other/</BaseURL> --><Period><AdaptationSet><SegmentTemplate media="$Number$.m4s"/><Representation/></AdaptationSet></Period></MPD>`, Survey{}},
		{"events have durations too", usual, `<MPD type="dynamic"><Period><EventStream timescale="1" duration="9"><Event duration="300" d="8"/></EventStream></Period></MPD>`, Survey{Live: true}},
		{"elements in a wrong place", usual, `<MPD></Representation><Representation><SegmentTemplate media="/1.m4s"/><AdaptationSet><Period><S d="1"/></MPD></MPD></Period><BaseURL>`, Survey{Segment: s}},
		{"cut off", usual, `<MPD type="dynamic`, Survey{}},
		{"Smooth Streaming", usual, `<SmoothStreamingMedia IsLive="TRUE"><StreamIndex Url="QualityLevels({bitrate})/Fragments(video={start time})"/></SmoothStreamingMedia>`, Survey{}},
	} {
		token := "~" + id.String()
		at := Place{"/live/ch1/" + token + "/m", "cdn=cdn.other", []string{"backend:8080", "tv.example:443"}}
		if got := c.kinds.Survey([]byte(strings.ReplaceAll(c.manifest, "TOK", token)), at); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// Whatever a manifest is made of, it takes little of the processor: the slowest of
// these take a tenth of what is allowed here, and what is quadratic minutes.
func TestSurveyOfHostileManifests(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	kinds, err := NewKinds([]KindRule{{"media", []string{"/a/*/b", "*x*"}}})
	if err != nil {
		t.Fatal(err)
	}
	var many strings.Builder
	for n := range 10_000 {
		fmt.Fprintf(&many, "#EXT-X-DEFINE:NAME=\"v%d\",VALUE=\"https://{$v%d}{$v%d}\"\n", n, n-1, n)
	}
	long := strings.Repeat("v", maxVariable/2)
	for name, c := range map[string]struct{ head, piece string }{
		"variables":               {"#EXTM3U\n#EXT-X-TARGETDURATION:1\n" + many.String(), "https://{$v9999}/{$v9999}.ts\n"},
		"definitions":             {"#EXT-X-VERSION:1\n", "#EXT-X-DEFINE:NAME=\"a\",VALUE=\"{$a}{$a}b\"\n"},
		"segments elsewhere":      {"#EXT-X-VERSION:1\n", "//a/1.ts\n"},
		"bandwidths":              {"", "#EXT-X-STREAM-INF:BANDWIDTH=1\n//a\n"},
		"parts":                   {"", "#EXT-X-PART:URI=\"//a\"\n"},
		"titles":                  {"", "#EXTINF:1,\nhttp:a-1-1-1-1-1.ts\n"},
		"panels":                  {"#EXTM3U\n", "#EXT-X-SESSION-DATA"},
		"a long line":             {"#EXTM3U\n", "a/"},
		"tags":                    {"<MPD>", "<"},
		"comments":                {"<MPD>", "<!--"},
		"sections":                {"<MPD>", "<![CDATA["},
		"sections in sections":    {"<MPD>", "<![CDATA[<![CDATA[]]>]]>"},
		"periods":                 {"<MPD><BaseURL>" + long + "</BaseURL>", "<Period><BaseURL>a</BaseURL>"},
		"representations":         {"<MPD><BaseURL>" + long + "</BaseURL>", "<Representation><BaseURL>a</BaseURL>"},
		"segments":                {"<MPD><Period><AdaptationSet><SegmentTemplate timescale='0'>", "<S d='1'/>"},
		"attributes":              {"<MPD><SegmentTemplate", " a='' b=\"\""},
		"attributes without ends": {"<MPD><SegmentTemplate", " a='"},
		"spaces":                  {"<MPD><SegmentTemplate", " "},
	} {
		manifest := []byte(c.head + strings.Repeat(c.piece, (MaxManifest-len(c.head))/len(c.piece)))
		before := processorTime(t)
		kinds.Survey(manifest, Place{Path: "/a/~" + id.String() + "/m"})
		if took := processorTime(t) - before; took > 10*time.Second {
			t.Errorf("%s took %v", name, took)
		}
	}
}

// processorTime is what this thread has had of the processor, however busy that is
// with others.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	const ofThread = 1 // RUSAGE_THREAD
	var usage syscall.Rusage
	if err := syscall.Getrusage(ofThread, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func FuzzSurvey(f *testing.F) {
	f.Add("#EXTM3U\n#EXT-X-DEFINE:NAME=\"a\",VALUE=\"{$a}/\"\n#EXT-X-TARGETDURATION:4\n{$a}1.ts\n", "/a/b")
	f.Add("#EXTM3U\n#EXTINF:-1 tvg-id=\"1\",One\nhttp://h/1.m3u8\na.m3u8\n", "/a/b")
	f.Add(`<MPD type="dynamic" minimumUpdatePeriod="PT2S"><BaseURL>x/</BaseURL><Period><AdaptationSet><SegmentTemplate duration="2" media="$Number$.m4s"/><Representation/></AdaptationSet></Period></MPD>`, "/a")
	kinds, err := NewKinds([]KindRule{{"media", []string{"/a/*"}}})
	if err != nil {
		f.Fatal(err)
	}
	token := "~" + id.String()
	f.Fuzz(func(t *testing.T, manifest, folder string) {
		at := Place{Path: "/" + folder + "/" + token + "/m", Hosts: []string{"h"}}
		s := kinds.Survey([]byte(manifest), at)
		if s.List && s != (Survey{List: true}) || s.Period < 0 || s.Segment < 0 || !s.Live && s.Period > 0 {
			t.Errorf("%q: %+v", manifest, s)
		}
		if edited := kinds.AddToken([]byte(manifest), at, id); s.List && bytes.Count(edited, []byte(token)) > strings.Count(manifest+folder, token)*strings.Count(manifest+"\n", "\n") {
			t.Errorf("a list %q became %q", manifest, edited)
		}
	})
}

func BenchmarkSurvey(b *testing.B) {
	kinds, err := NewKinds(nil)
	if err != nil {
		b.Fatal(err)
	}
	at := Place{Path: "/a/~" + id.String() + "/m", Hosts: []string{"h"}}
	const hls = "#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00Z\n#EXTINF:2.000,\n"
	for _, m := range []struct {
		name, head, segment string
		n                   int
	}{
		{"live", "#EXTM3U\n#EXT-X-TARGETDURATION:2\n", hls + "segment-0000001.m4s\n", 6},
		{"4h", "#EXTM3U\n#EXT-X-TARGETDURATION:2\n", hls + "segment-0000001.m4s\n", 7200},
		{"4h elsewhere", "#EXTM3U\n#EXT-X-TARGETDURATION:2\n", hls + "https://cdn.other/segment-0000001.m4s\n", 7200},
		{"mpd", `<MPD><Period><AdaptationSet><Representation><SegmentTemplate media="$Time$.m4s">`, `<S t="1234567890" d="96000"/>`, 7200},
		{"mpd told", `<!-- --><MPD maxSegmentDuration="PT2S"><Period><AdaptationSet><Representation><SegmentTemplate media="$Time$.m4s">`, `<S t="1234567890" d="96000"/>`, 7200},
	} {
		b.Run(m.name, func(b *testing.B) {
			manifest := []byte(m.head + strings.Repeat(m.segment, m.n))
			b.SetBytes(int64(len(manifest)))
			b.ReportAllocs()
			for b.Loop() {
				kinds.Survey(manifest, at)
			}
		})
	}
}
