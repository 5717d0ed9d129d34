package caddymodule

import (
	"strings"
	"testing"
)

const (
	cdnLive   = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nhttps://cdn.other/7.ts\n#EXTINF:4,\nhttps://cdn.other/8.ts\n"
	cdnFilm   = cdnLive + "#EXT-X-ENDLIST\n"
	fourParts = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhttps://video.example.com/v/x/v1.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\nhttps://video.example.com/v/x/v2.m3u8\n" +
		"#EXT-X-STREAM-INF:BANDWIDTH=3\nhttps://video.example.com/v/x/a1.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=4\nhttps://video.example.com/v/x/s1.m3u8\n"
	isUUID = "8e5e9ab2-6d8c-4a3f-9b1c-0123456789ab"
)

// Each row is a case that somebody met (issue 21): options of the gate besides
// the user, where limit 1 goes without saying, and what is right.
var cases = []struct {
	name, options string
	site          string            // directives beside the gate, or a whole Caddyfile
	origin        map[string]string // what it answers, where the harness does not make it up
	steps         string
}{
	// cases.md 1
	{name: "CMCD on segments only", steps: `
		tv /live/x/master.m3u8 -> 200
		tv #1 -> 200
		tv #1 sid=s1 -> 200
		tv #2 sid=s1 -> 200
		tv v.m3u8 -> 200
		tv #1 sid=s1 -> 200
		holds 1 live/x
		pc /live/x/8.ts sid=s2 -> 429
		pc /live/x/master.m3u8 sid=s2 -> 429`},
	{name: "CMCD on segments only, without tokens", options: "playback stream", steps: `
		tv /live/x/master.m3u8 -> 200
		tv #1 -> 200
		tv #1 sid=s1 -> 200
		tv v.m3u8 -> 200
		tv #2 sid=s1 -> 200
		tv v.m3u8 -> 200
		holds 1 live/x
		pc /live/x/8.ts sid=s2 -> 429`},

	// 6
	{name: "titles in one folder", steps: `
		tv /hls/ch1.m3u8 -> 200
		tv ch1-1.ts -> 200
		holds 1 hls/ch1
		pc /hls/ch2.m3u8 -> 429
		pc /hls/ch2-1.ts -> 429
		pc /hls/ch1-2.ts -> 200
		tv ch1-3.ts -> 200
		holds 1 hls/ch1`},
	{name: "titles in one folder at limit 2", options: "limit 2", steps: `
		tv /hls/ch1.m3u8 -> 200
		tv ch1-1.ts -> 200
		pc /hls/ch2.m3u8 -> 200
		pc ch2-1.ts -> 200
		holds 2 hls/ch2
		box /hls/ch3.m3u8 -> 429`},

	// 7
	{name: "deeper trees than the stream option knows: Emby", steps: `
		a /emby/Videos/1/master.m3u8 -> 200
		a /emby/Videos/2/master.m3u8 -> 200
		a /emby/Videos/3/master.m3u8 -> 200
		a /emby/Videos/4/master.m3u8 -> 200
		silent many different manifests
		a /emby/Videos/5/master.m3u8 -> 200
		a /emby/Videos/6/master.m3u8 -> 200
		a /emby/Videos/7/master.m3u8 -> 200
		a /emby/Videos/8/master.m3u8 -> 200
		logged many different manifests are of one stream
		logged "stream":"emby/Videos"
		logged ["/emby/Videos/1/master.m3u8","/emby/Videos/8/master.m3u8"]
		logged "option":"stream dir 2"`},
	{name: "deeper trees than the stream option knows: Xtream", steps: `
		a /live/user/pass/1.m3u8 -> 200
		a /live/user/pass/2.m3u8 -> 200
		a /live/user/pass/3.m3u8 -> 200
		a /live/user/pass/4.m3u8 -> 200
		a /live/user/pass/5.m3u8 -> 200
		a /live/user/pass/6.m3u8 -> 200
		a /live/user/pass/7.m3u8 -> 200
		a /live/user/pass/8.m3u8 -> 200
		logged "stream":"live/user"
		logged ["/live/user/pass/1.m3u8","/live/user/pass/8.m3u8"]`},
	{name: "a title's renditions are no crowd", steps: `
		a /v/x/master.m3u8 -> 200
		a v1.m3u8 -> 200
		a v2.m3u8 -> 200
		a v3.m3u8 -> 200
		a v4.m3u8 -> 200
		a a1.m3u8 -> 200
		a a2.m3u8 -> 200
		a a3.m3u8 -> 200
		a a4.m3u8 -> 200
		a s1.m3u8 -> 200
		a s2.m3u8 -> 200
		silent many different manifests`},

	// 8
	{name: "numbered channels", options: "stream name", steps: `
		tv /tv/channel_1.m3u8 -> 200
		tv channel_1_00007.ts -> 200
		tv channel_1-7.ts -> 200
		holds 1 tv/channel_1
		pc /tv/channel_2.m3u8 -> 429
		pc /tv/channel_2_00007.ts -> 429
		pc /tv/channel_1_00008.ts -> 200`},
	{name: "numbered episodes", options: "stream name", steps: `
		tv /tv/show-1x01.m3u8 -> 200
		tv show-1x01-3.ts -> 200
		pc /tv/show-1x02.m3u8 -> 429
		pc /tv/show-1x02-3.ts -> 429
		pc /tv/show-1x01-4.ts -> 200`},
	{name: "channels with a number for a name", options: "stream name", steps: `
		tv /tv/bbc-2.m3u8 -> 200
		tv bbc-2-17.ts -> 200
		holds 1 tv/bbc-2
		pc /tv/bbc-4.m3u8 -> 429
		pc /tv/bbc-4-17.ts -> 429`},
	{name: "renditions in the file's name", options: "stream name", steps: `
		tv /tv/alien_720p.m3u8 -> 200
		tv alien_hi-7.ts -> 200
		tv alien_480p800kbps000000007.ts -> 200
		holds 1 tv/alien
		pc /tv/alien_480p800kbps000000008.ts -> 200
		pc /tv/aliens_720p-7.ts -> 429`},

	// 9
	{name: "a box without cookies zaps", options: "limit 1\nlimit 1 per client replace", steps: `
		box /live/a.m3u8 -> 200
		box #1 -> 200
		holds 1 live/a
		box /live/b.m3u8 -> 200
		box #1 -> 200
		holds 1 live/b
		box /live/a.m3u8 -> 200
		box #1 -> 200
		wait 5s
		box #1 -> 200
		holds 1 live/a
		pc /live/a.m3u8 -> 429`},
	{name: "a box without cookies zaps between films", options: "limit 1\nlimit 1 per client replace", steps: `
		box /v/a/m.m3u8 -> 200
		box #1 -> 200
		box /v/b/m.m3u8 -> 200
		box #1 -> 200
		box /v/a/m.m3u8 -> 200
		box #1 -> 200
		holds 1 v/a`},
	// 10
	{name: "a server probes, then plays", steps: `
		ffmpeg /v/x/m.m3u8 -> 200
		ffmpeg #1 -> 200
		ffmpeg /v/x/m.m3u8 -> 200 within 11s
		ffmpeg #1 -> 200
		ffmpeg #2 -> 200
		holds 1 v/x`},
	{name: "a server probes, then plays, replacing its own", options: "limit 1\nlimit 1 per client replace", steps: `
		ffmpeg /v/x/m.m3u8 -> 200
		ffmpeg #1 -> 200
		ffmpeg /v/x/m.m3u8 -> 200
		ffmpeg #1 -> 200
		holds 1 v/x`},

	// 11
	{name: "a viewer goes back", options: "limit 1 replace", steps: `
		tv /v/a/m.m3u8 -> 200
		tv #1 -> 200
		tv#2 /v/b/m.m3u8 -> 200
		tv#2 #1 -> 200
		tv#3 /v/a/m.m3u8 -> 200
		tv#3 #1 -> 200
		tv #2 -> 429 GUARD_REPLACED
		tv m.m3u8 -> 429 GUARD_REPLACED
		holds 1 v/a
		tv#2 #2 -> 429 GUARD_REPLACED`},
	{name: "a viewer goes back to a channel", options: "limit 1 replace", steps: `
		tv /live/a.m3u8 -> 200
		tv #1 -> 200
		tv /live/b.m3u8 -> 200
		tv #1 -> 200
		tv /live/a.m3u8 -> 200
		tv #1 -> 200
		tv /live/b.m3u8 -> 200
		tv #1 -> 200
		tv #2 -> 200
		holds 1 live/b`},
	{name: "a viewer with a name goes back", options: "limit 1 replace", steps: `
		tv /v/a/m.m3u8 sid=a -> 200
		tv #1 sid=a -> 200
		tv /v/b/m.m3u8 sid=b -> 200
		tv #1 sid=b -> 200
		tv /v/a/m.m3u8 sid=a -> 200
		tv #1 sid=a -> 200
		holds 1 v/a`},

	// 12
	{name: "two boxes that retry by themselves", options: "limit 1 replace", steps: `
		box /v/a/m.m3u8 -> 200
		box #1 -> 200
		box#2 /v/a/m.m3u8 -> 200
		box#2 #1 -> 200
		wait 2s
		box #1 -> 429 GUARD_REPLACED
		box /v/a/m.m3u8 -> 200
		box #1 -> 200
		wait 2s
		box#2 #1 -> 429 GUARD_REPLACED
		box#2 /v/a/m.m3u8 -> 200
		box#2 #1 -> 200
		wait 2s
		box #1 -> 429 GUARD_REPLACED
		box /v/a/m.m3u8 -> 200
		box #1 -> 200
		wait 2s
		box#2 #1 -> 429 GUARD_REPLACED
		box#2 /v/a/m.m3u8 -> 200
		box#2 #1 -> 200
		wait 2s
		box #1 -> 429 GUARD_REPLACED
		box /v/a/m.m3u8 -> 429 REPLACED_LATELY within 21s
		box#2 #2 -> 200`},

	// 13
	{name: "five players that only preload", options: "limit 3", steps: `
		tv /v/a/m.m3u8 -> 200
		tv#2 /v/b/m.m3u8 -> 200
		tv#3 /v/c/m.m3u8 -> 200
		tv#4 /v/d/m.m3u8 -> 200
		tv#5 /v/e/m.m3u8 -> 200
		holds 0
		tv#5 #1 -> 200
		tv#4 #1 -> 200
		tv#3 #1 -> 200
		tv#2 #1 -> 429
		holds 3 v/c`},
	{name: "five players that name themselves and only preload", options: "limit 3", steps: `
		tv /v/a/m.m3u8 sid=a -> 200
		tv /v/b/m.m3u8 sid=b -> 200
		tv /v/c/m.m3u8 sid=c -> 200
		tv /v/d/m.m3u8 sid=d -> 200
		tv /v/e/m.m3u8 sid=e -> 200
		holds 0`},

	// 14
	{name: "a preload replaces nothing", options: "limit 1 replace", steps: `
		tv /v/a/m.m3u8 -> 200
		tv #1 -> 200
		tv#2 /v/b/m.m3u8 -> 200
		tv#2 HEAD #1 -> 200
		tv#2 HEAD /v/b/m.m3u8 -> 200
		tv#2 /v/b/m.m3u8 Sec-Purpose=prefetch -> 200
		tv #2 -> 200
		holds 1 v/a
		tv#2 #1 -> 200
		holds 1 v/b
		tv #2 -> 429 GUARD_REPLACED`},
	{name: "a prefetch with a name replaces nothing", options: "limit 1 replace", steps: `
		tv /v/a/m.m3u8 sid=a -> 200
		tv #1 sid=a -> 200
		tv#2 /v/b/m.m3u8 sid=b Sec-Purpose=prefetch;anonymous-client-ip -> 200
		tv#2 HEAD /v/b/1.ts sid=b -> 200
		tv #2 sid=a -> 200
		holds 1 v/a`},

	// 15
	{name: "segments of a channel on a CDN", origin: map[string]string{"/live/x/m.m3u8": cdnLive}, steps: `
		a /live/x/m.m3u8 -> 200
		b /live/x/m.m3u8 -> 429 REACHED_MAX_GUARDS_COUNT
		c /live/x/m.m3u8 -> 429
		d /live/x/m.m3u8 -> 429
		wait 4s
		a m.m3u8 -> 200
		b /live/x/m.m3u8 -> 429
		wait 30s
		a m.m3u8 -> 200
		wait 30s
		a m.m3u8 -> 200
		wait 40s
		a m.m3u8 -> 200
		b /live/x/m.m3u8 -> 429
		holds 1 live/x
		logged none of a manifest's media come this way, so the manifest takes the slot itself and keeps it by its reloads
		logged "path":"/live/x/m.m3u8"
		wait 91s
		b /live/x/m.m3u8 -> 200
		a m.m3u8 -> 429`},
	{name: "a film whose segments are on a CDN", origin: map[string]string{"/v/x/m.m3u8": cdnFilm}, steps: `
		a /v/x/m.m3u8 -> 200
		b /v/x/m.m3u8 -> 429
		logged it is not live, and its playback counts for ttl only
		wait 91s
		b /v/x/m.m3u8 -> 200`},
	{name: "a master here, its playlists and segments on a CDN", origin: map[string]string{
		"/v/x/master.m3u8": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhttps://cdn.other/v.m3u8\n",
	}, steps: `
		a /v/x/master.m3u8 -> 200
		b /v/x/master.m3u8 -> 429
		holds 1 v/x`},
	{name: "audio on a CDN, video here", origin: map[string]string{
		"/v/x/master.m3u8": "#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",URI=\"https://cdn.other/a.m3u8\"\n#EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO=\"a\"\nv.m3u8\n",
	}, steps: `
		a /v/x/master.m3u8 -> 200
		holds 0
		b /v/x/master.m3u8 -> 200`},
	{name: "an MPD whose segments are on a CDN", origin: map[string]string{
		"/live/x/m.mpd": `<MPD type="dynamic" minimumUpdatePeriod="PT2S"><BaseURL>https://cdn.other/</BaseURL><Period><AdaptationSet><SegmentTemplate media="$Number$.m4s" duration="2"/><Representation id="v"/></AdaptationSet></Period></MPD>`,
	}, steps: `
		a /live/x/m.mpd -> 200
		b /live/x/m.mpd -> 429
		a m.mpd -> 200
		holds 1 live/x`},
	{name: "an MPD of two hosts, the first of which decides", origin: map[string]string{
		"/live/x/m.mpd": `<MPD type="dynamic"><BaseURL>/media/</BaseURL><BaseURL>https://cdn.other/</BaseURL><Period><AdaptationSet><SegmentTemplate media="$Number$.m4s" duration="2"/><Representation id="v"/></AdaptationSet></Period></MPD>`,
	}, steps: `
		a /live/x/m.mpd -> 200
		holds 0`},
	{name: "a channel that has no segments yet", origin: map[string]string{"/live/x/m.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-MEDIA-SEQUENCE:0\n"}, steps: `
		a /live/x/m.m3u8 -> 200
		holds 0
		b /live/x/m.m3u8 -> 200`},
	{name: "a named player whose segments are on a CDN", origin: map[string]string{"/live/x/m.m3u8": cdnLive}, steps: `
		a /live/x/m.m3u8 sid=a -> 200
		b /live/x/m.m3u8 sid=b -> 429
		wait 20s
		a m.m3u8 sid=a -> 200
		holds 1 live/x`},
	{name: "segments on a CDN, replacing", options: "limit 1 replace", origin: map[string]string{"/live/x/m.m3u8": cdnLive}, steps: `
		a /live/x/m.m3u8 -> 200
		b /live/x/m.m3u8 -> 200
		holds 1 live/x
		wait 4s
		a m.m3u8 -> 429 GUARD_REPLACED
		b m.m3u8 -> 200`},

	// 16
	{name: "a CDN in front: manifests only", options: "kind other *.ts *.m4s", steps: `
		a /live/x/m.m3u8 -> 200
		a #1 -> 200
		holds 1 live/x
		b /live/x/m.m3u8 -> 429
		wait 60s
		a m.m3u8 -> 200
		wait 60s
		a m.m3u8 -> 200
		b /live/x/m.m3u8 -> 429
		b /live/x/7.ts -> 200`},
	{name: "a CDN in front: manifests only, by extension", options: "kind other .ts .m4s .mp4 .vtt", steps: `
		a /live/x/master.m3u8 -> 200
		holds 0
		a #1 -> 200
		holds 1 live/x
		b /live/x/m.m3u8 -> 429
		b /live/x/m.mpd -> 429`},
	{name: "a player that knows no playlist but its media's", options: "playback stream\nkind other *.ts", steps: `
		a /live/x/m.m3u8 -> 200
		holds 1 live/x
		wait 60s
		a /live/x/m.m3u8 -> 200
		wait 60s
		b /live/y/m.m3u8 -> 429`},

	// 17
	{name: "names of other servers", options: "limit 0", origin: map[string]string{"/v/x/list.m3u": cdnFilm, "/radio/list.m3u": "#EXTM3U\nstream.mp3\n"}, steps: `
		a /v/x/list.m3u -> 429
		a /v/a.ism/Manifest -> 429
		a /v/a.isml/manifest -> 429
		a /v/a.ism/manifest(format=m3u8-aapl) -> 429
		a /v/a.ism/manifest(format=mpd-time-csf) -> 429
		a /v/a.ism/QualityLevels(1)/Fragments(video=0) -> 429
		a /v/a.ism/QualityLevels(1)/Manifest(video,format=m3u8-aapl) -> 429
		a /vod/mp4:a.mp4/Manifest -> 429
		a /Videos/1/stream.mkv -> 429
		a /Videos/1/stream -> 429
		a /Audio/1/universal -> 429
		a /emby/Videos/1/stream.mp4 -> 429
		a /emby/videos/1/hls1/main/0.ts -> 429
		a /movie/u/p/7.avi -> 429
		a /series/u/p/7.mkv -> 429
		a /live/x.flv -> 429
		a /a/1.flac -> 429
		a /a/1.ogg -> 429
		a /a/1.opus -> 429
		a /a/1.m2ts -> 429
		a /a/1.MKV -> 429
		a /poster.jpg -> 200
		a /v/a.txt/Manifest -> 200
		a /stream -> 200
		holds 0`},

	// 18
	{name: "names that the operator knows", options: "kind manifest /live/*/playlist\nkind media /live/*/seg", origin: map[string]string{
		"/live/a/playlist": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nseg\n",
	}, steps: `
		tv /live/a/playlist -> 200
		tv seg -> 200
		tv /live/a/seg -> 200
		holds 1 live/a
		pc /live/b/playlist -> 429
		pc /live/b/seg -> 429
		pc /live/b/other -> 200
		pc /live/b/7.ts -> 429`},
	{name: "names that nobody knows", origin: map[string]string{
		"/live/a/playlist": "Content-Type: application/vnd.apple.mpegurl\n\n#EXTM3U\n",
		"/live/b/playlist": "Content-Type: audio/x-mpegurl\n\n#EXTM3U\n",
	}, steps: `
		tv /index.html -> 200
		silent is not counted
		tv /live/a/playlist -> 200
		logged a manifest is not counted
		logged "path":"/live/a/playlist"
		logged kind manifest /live/a/playlist
		tv /live/b/playlist -> 200
		silent /live/b/playlist`},
	{name: "names that nobody knows, and DASH", origin: map[string]string{"/v/a/manifest": "Content-Type: Application/DASH+XML; charset=utf-8\n\n<MPD/>"}, steps: `
		tv /v/a/manifest -> 200
		logged kind manifest /v/a/manifest`},

	// 19
	{name: "MediaTailor", options: `stream path_regexp ^/v1/\w+/([^/]+/[^/]+)/`, origin: map[string]string{
		"/v1/master/1/o/index.m3u8":  "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n../../../manifest/1/o/S/0.m3u8\n",
		"/v1/manifest/1/o/S/0.m3u8":  "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n../../../../segment/1/o/S/0/1.ts\n",
		"/v1/dash/1/o/index.mpd":     `<MPD type="dynamic" minimumUpdatePeriod="PT2S"><BaseURL>/v1/dashsegment/1/o/S/</BaseURL><Period><AdaptationSet><SegmentTemplate media="0/$Number$.m4s" duration="2"/><Representation id="v"/></AdaptationSet></Period></MPD>`,
		"/v1/master/1/other/m.m3u8":  "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n/v1/manifest/1/other/S/0.m3u8\n",
		"/v1/session/1/o/index.m3u8": `{"manifestUrl":"/v1/master/1/o/index.m3u8?aws.sessionId=S"}`,
	}, steps: `
		tv /v1/master/1/o/index.m3u8 -> 200
		tv #1 -> 200
		tv #1 -> 200
		holds 1 1/o
		tv /v1/segment/1/o/S/0/2.ts -> 200
		holds 1 1/o
		pc /v1/master/1/other/m.m3u8 -> 429
		pc /v1/segment/1/other/S/0/1.ts -> 429`},

	// 20
	{name: "nginx in front with its own Host, absolute URLs", options: "limit 2", site: `{
		servers {
			trusted_proxies static 10.0.0.0/8
		}
	}
	` + gateSite("limit 2", ""), origin: map[string]string{"/v/x/master.m3u8": fourParts}, steps: `
		tv /v/x/master.m3u8 Host=backend X-Forwarded-Host=video.example.com -> 200
		tv ##1 Host=backend X-Forwarded-Host=video.example.com -> 200
		tv #1 Host=backend X-Forwarded-Host=video.example.com -> 200
		tv ##2 Host=backend X-Forwarded-Host=video.example.com -> 200
		tv #1 Host=backend X-Forwarded-Host=video.example.com -> 200
		tv ##3 Host=backend X-Forwarded-Host=video.example.com -> 200
		tv #1 Host=backend X-Forwarded-Host=video.example.com -> 200
		tv ##4 Host=backend X-Forwarded-Host=video.example.com -> 200
		tv #1 Host=backend X-Forwarded-Host=video.example.com -> 200
		holds 1 v/x`},

	// 21
	{name: "an interstitial under another CMCD session", steps: `
		tv /v/x/m.m3u8 sid=F -> 200
		tv #1 sid=F -> 200
		holds 1 v/x
		tv#ad /ads/1/m.m3u8?_HLS_primary_id=F sid=A -> 200
		tv#ad #1 sid=A -> 200
		tv#ad #2 sid=A -> 200
		tv #2 sid=F -> 200
		holds 1 v/x
		pc /v/y/m.m3u8 -> 429`},
	{name: "an interstitial of AVPlayer", steps: `
		tv /v/x/m.m3u8 X-Playback-Session-Id=F -> 200
		tv #1 X-Playback-Session-Id=F -> 200
		tv#ad /ads/1/m.m3u8?_HLS_primary_id=F X-Playback-Session-Id=A -> 200
		tv#ad #1 X-Playback-Session-Id=A -> 200
		tv#ad /ads/1/9.ts?_HLS_primary_id=F X-Playback-Session-Id=A -> 200
		holds 1 v/x
		tv#ad2 /ads/2/m.m3u8?_HLS_primary_id=F X-Playback-Session-Id=B -> 200
		tv#ad2 #1 X-Playback-Session-Id=B -> 200
		tv m.m3u8 X-Playback-Session-Id=F -> 200
		holds 1 v/x`},
	{name: "an interstitial without tokens", options: "playback stream", steps: `
		tv /v/x/m.m3u8 sid=F -> 200
		tv #1 sid=F -> 200
		tv#ad /ads/1/m.m3u8?_HLS_primary_id=F sid=A -> 200
		tv#ad /ads/1/1.ts?_HLS_primary_id=F sid=A -> 200
		tv #2 sid=F -> 200
		holds 1 v/x`},
	{name: "an interstitial of a film that nobody watches", steps: `
		tv /v/x/m.m3u8 sid=F -> 200
		tv #1 sid=F -> 200
		pc /ads/1/m.m3u8?_HLS_primary_id=none sid=A -> 429
		pc /v/y/m.m3u8?_HLS_primary_id=none -> 429
		pc /v/y/1.ts?_HLS_primary_id=none -> 429
		pc /v/y/1.ts?_HLS_primary_id=none sid=A -> 429
		holds 1 v/x`},
	{name: "an interstitial keeps the film alive", steps: `
		tv /v/x/m.m3u8 sid=F -> 200
		tv #1 sid=F -> 200
		tv#ad /ads/1/m.m3u8?_HLS_primary_id=F sid=A -> 200
		tv#ad #1 sid=A -> 200
		wait 60s
		tv#ad #2 sid=A -> 200
		wait 60s
		tv#ad #1 sid=A -> 200
		wait 60s
		tv #2 sid=F -> 200
		holds 1 v/x
		pc /v/y/m.m3u8 -> 429`},
	{name: "an asset list and its assets", origin: map[string]string{
		"/v/x/m.m3u8":    "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-DATERANGE:ID=\"a\",CLASS=\"com.apple.hls.interstitial\",X-ASSET-LIST=\"/ads/list.json\"\n#EXTINF:4,\n1.ts\n#EXT-X-ENDLIST\n",
		"/ads/list.json": `{"ASSETS":[{"URI":"/ads/1/m.m3u8","DURATION":15},{"URI":"https://cdn.other/2/m.m3u8","DURATION":15}]}`,
	}, steps: `
		tv /v/x/m.m3u8 sid=F -> 200
		tv #1 sid=F -> 200
		tv#ad /ads/list.json?_HLS_primary_id=F -> 200
		holds 1 v/x`},

	// 22
	{name: "nobody under somebody's token", options: "anonymous allow", steps: `
		nobody/x /v/x/~` + isUUID + `/1.ts -> 307
		got Location: ../1.ts
		nobody/x /v/x/~` + isUUID + `/1.ts?a=1 -> 200
		asked /v/x/1.ts?a=1
		nobody/x /v/x/~` + isUUID + `/m.m3u8 -> 200
		asked /v/x/m.m3u8
		nobody/x /v/x/m.m3u8 -> 200
		nobody/x HEAD /v/x/~` + isUUID + `/1.ts -> 307
		holds 0`},
	{name: "nobody under somebody's token, without the directive in front", site: strings.Replace(gateSite("anonymous allow", ""), "stream_guard_token\n", "", 1), steps: `
		nobody/x /v/x/~` + isUUID + `/1.ts -> 307
		nobody/x /v/x/~` + isUUID + `/1.ts -> 200
		asked /v/x/1.ts
		nobody/x /v/x/~` + isUUID + `/sub/1.m4s -> 200
		asked /v/x/sub/1.m4s`},

	// 23
	{name: "a preflight under a token", steps: `
		nobody/x OPTIONS /v/x/~` + isUUID + `/1.m4s Origin=https://page Access-Control-Request-Method=GET -> 200
		asked /v/x/1.m4s
		nobody/x OPTIONS /v/x/~` + isUUID + `/m.m3u8?a=1 Origin=https://page -> 200
		asked /v/x/m.m3u8?a=1
		tv OPTIONS /v/x/~` + isUUID + `/1.m4s -> 200
		asked /v/x/1.m4s
		holds 0`},
	{name: "a preflight under a token, without the directive in front", site: strings.Replace(gateSite("", ""), "stream_guard_token\n", "", 1), steps: `
		nobody/x OPTIONS /v/x/~` + isUUID + `/1.m4s Origin=https://page -> 200
		asked /v/x/1.m4s`},

	// 24
	{name: "a cookie without a Path", options: "limit 2", origin: map[string]string{
		"/v/x/m.m3u8":     "Set-Cookie: s=1\n\n#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n1.ts\n#EXT-X-ENDLIST\n",
		"/v/x/1.ts":       "Set-Cookie: t=1; Path=/v; Secure\n\nmedia",
		"/v/x/sub/2.ts":   "Set-Cookie: u=1; HttpOnly; Path\n\nmedia",
		"/m.m3u8":         "Set-Cookie: w=1\n\n#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n1.ts\n#EXT-X-ENDLIST\n",
		"/v/x/plain.html": "Set-Cookie: p=1\n\npage",
	}, steps: `
		tv /v/x/m.m3u8 -> 200
		got Set-Cookie: s=1; Path=/v/x
		tv 1.ts -> 200
		got Set-Cookie: t=1; Path=/v; Secure
		tv sub/2.ts -> 200
		got Set-Cookie: u=1; HttpOnly; Path; Path=/v/x/sub
		tv /v/x/plain.html -> 200
		got Set-Cookie: p=1
		pc /m.m3u8 -> 200
		got Set-Cookie: w=1; Path=/`},

	// 25
	{name: "a page of another origin without cors", options: "limit 2", steps: `
		tv /v/x/m.m3u8 Origin=https://page.example -> 302
		got Access-Control-Allow-Origin: https://page.example
		got Access-Control-Allow-Credentials: true
		got Vary: Origin
		tv /v/x/m.m3u8 Origin=https://page.example -> 200
		tv #1 Origin=https://page.example -> 200
		got Access-Control-Allow-Origin: -
		tv /v/x/m.m3u8 Origin=null sid=a -> 302
		got Access-Control-Allow-Origin: null`},
	{name: "CMCD headers and credentials from another origin without cors", origin: map[string]string{
		"/v/x/m.m3u8": "Access-Control-Allow-Origin: https://page.example\nAccess-Control-Allow-Credentials: true\n\n#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n1.ts\n#EXT-X-ENDLIST\n",
	}, steps: `
		nobody/tv OPTIONS /v/x/m.m3u8 Origin=https://page.example Access-Control-Request-Headers=cmcd-session -> 200
		got Access-Control-Allow-Origin: https://page.example
		tv /v/x/m.m3u8 sid=a Origin=https://page.example -> 302
		got Access-Control-Allow-Origin: https://page.example
		got Access-Control-Allow-Credentials: true
		nobody/tv OPTIONS /v/x/~` + isUUID + `/m.m3u8 Origin=https://page.example Access-Control-Request-Headers=cmcd-session -> 200
		got Access-Control-Allow-Origin: https://page.example
		tv /v/x/m.m3u8 sid=a Origin=https://page.example -> 200
		got Access-Control-Allow-Origin: https://page.example`},

	// cases2.md 27
	{name: "a channel list of absolute URLs", origin: map[string]string{
		"/tv/list.m3u8": "#EXTM3U\n#EXTINF:-1 tvg-id=\"a\",A\nhttp://video.example/live/a/m.m3u8\n#EXTINF:-1,B\nhttp://video.example/live/b/m.m3u8\n#EXTINF:-1,C\nhttp://video.example/live/c/m.m3u8\n#EXTINF:-1,D\nhttp://video.example/live/d/m.m3u8\n",
	}, steps: `
		tv /tv/list.m3u8 -> 200
		holds 0
		tv #1 -> 200
		tv #1 -> 200
		holds 1 live/a
		tv#2 /tv/list.m3u8 -> 200
		tv#2 #2 -> 429
		tv#3 /tv/list.m3u8 -> 200
		tv#3 #3 -> 429
		pc /tv/list.m3u8 -> 200
		pc #4 -> 429
		pc /live/d/7.ts -> 429
		holds 1 live/a`},
	{name: "a channel list of relative URLs", origin: map[string]string{
		"/tv/list.m3u8": "#EXTM3U\n#EXTINF:-1,A\na/m.m3u8\n#EXTINF:-1,B\n../live/b/m.m3u8\n",
	}, steps: `
		tv /tv/list.m3u8 -> 200
		tv #1 -> 200
		asked /tv/a/m.m3u8
		tv #1 -> 200
		asked /tv/a/1.ts
		tv#2 /tv/list.m3u8 -> 200
		tv#2 #2 -> 429
		tv#2 /tv/list.m3u8 -> 200
		tv#2 #1 -> 200 within 21s
		holds 1 tv/a`},
	{name: "a list of lists", options: "limit 2", origin: map[string]string{
		"/tv/all.m3u":       "#EXTM3U\n#EXTINF:-1,News\nnews/list.m3u\n#EXTINF:-1,Films\nfilms/list.m3u\n",
		"/tv/news/list.m3u": "#EXTM3U\n#EXTINF:-1,A\n../live/a.m3u8\n#EXTINF:-1,B\n../live/b.m3u8\n#EXTINF:-1,C\n../live/c.m3u8\n",
	}, steps: `
		a /tv/all.m3u -> 200
		a #1 -> 200
		holds 0
		a #1 -> 200
		asked /tv/live/a.m3u8
		a #1 -> 200
		b /tv/news/list.m3u -> 200
		b #2 -> 200
		b #1 -> 200
		c /tv/all.m3u -> 200
		c #1 -> 200
		c #3 -> 429
		holds 2`},
	{name: "radio", origin: map[string]string{
		"/radio/list.m3u": "#EXTM3U\n#EXTINF:-1,One\none/stream.mp3\n#EXTINF:-1,Two\ntwo/stream.mp3\n",
	}, steps: `
		a /radio/list.m3u -> 200
		a #1 -> 200
		holds 1 radio/one
		a /radio/list.m3u -> 200
		a #2 -> 429
		b /radio/list.m3u -> 200
		b #2 -> 429
		b #1 -> 429
		a /radio/one/stream.mp3 -> 200`},
	{name: "radio without a header", origin: map[string]string{
		"/radio/list.m3u": "one/stream.mp3\ntwo/stream.mp3\n",
	}, steps: `
		a /radio/list.m3u -> 200
		a #1 -> 200
		b /radio/list.m3u -> 200
		b #2 -> 429`},
	{name: "a list at a full house, known and not", origin: map[string]string{
		"/tv/list.m3u8": "#EXTM3U\n#EXTINF:-1,A\nhttp://video.example/live/a/m.m3u8\n#EXTINF:-1,B\nhttp://video.example/live/b/m.m3u8\n",
	}, steps: `
		tv /v/x/m.m3u8 -> 200
		tv #1 -> 200
		pc /tv/list.m3u8 -> 200
		pc /tv/list.m3u8 -> 200
		pc #1 -> 429`},

	// 28
	{name: "a start that failed: 404", origin: map[string]string{"/a/m.m3u8": "404", "/a/1.ts": "404"}, steps: `
		tv /a/m.m3u8 -> 404
		tv /a/1.ts -> 404
		holds 0
		tv /b/m.m3u8 -> 200
		tv #1 -> 200
		holds 1`},
	{name: "a start that failed: 403, 416, 502 and a dead origin", origin: map[string]string{"/a/1.ts": "403", "/a/2.ts": "416", "/a/3.ts": "502", "/a/4.ts": "down", "/a/m.m3u8": "down"}, steps: `
		tv /a/1.ts -> 403
		tv /a/2.ts -> 416
		tv /a/3.ts -> 502
		tv /a/4.ts -> 502
		tv /a/m.m3u8 -> 502
		tv /a/1.ts sid=a -> 403
		tv /a/4.ts sid=b -> 502
		holds 0
		tv /b/m.m3u8 -> 200`},
	{name: "a start that failed: error behind the gate", site: strings.Replace(gateSite("", "error /a/* 451\nabort /abort/*"), "reverse_proxy", "route {\nerror /a/* 451\nreverse_proxy", 1) + "\n}", steps: `
		tv /a/m.m3u8 -> 451
		tv /a/1.ts -> 451
		holds 0
		tv /b/m.m3u8 -> 200`},
	{name: "playlist 200, segments 404", origin: map[string]string{"/a/1.ts": "404", "/a/2.ts": "404"}, steps: `
		tv /a/m.m3u8 -> 200
		tv #1 -> 404
		tv #2 -> 404
		holds 0
		pc /b/m.m3u8 -> 200
		pc #1 -> 200`},
	{name: "a failed start does not end what plays", origin: map[string]string{"/v/x/2.ts": "404"}, steps: `
		tv /v/x/m.m3u8 -> 200
		tv #1 -> 200
		tv #2 -> 404
		tv 3.ts -> 200
		wait 25s
		tv #2 -> 404
		holds 1 v/x
		pc /v/y/m.m3u8 -> 429`},
	{name: "a failed start lets go on what it replaced", options: "limit 1 replace", origin: map[string]string{"/v/y/1.ts": "404", "/v/y/2.ts": "3s down"}, steps: `
		tv /v/x/m.m3u8 -> 200
		tv #1 -> 200
		pc /v/y/m.m3u8 -> 200
		pc #1 -> 404
		tv #2 -> 200
		holds 1 v/x
		pc #2 -> 502 within 4s
		tv #1 -> 200
		tv m.m3u8 -> 200
		holds 1 v/x`},
	{name: "a segment on a CDN is no failure", origin: map[string]string{"/v/x/1.ts": "302 https://cdn.other/1.ts"}, steps: `
		tv /v/x/m.m3u8 -> 200
		tv #1 -> 302
		got Location: https://cdn.other/1.ts
		holds 1 v/x
		pc /v/y/m.m3u8 -> 429`},

	// 30
	{name: "the origin sends each playlist on to a session URL", origin: map[string]string{"/v/x/m.m3u8": "302 /v/x/s/m.m3u8"}, steps: `
		tv /v/x/m.m3u8 -> 200
		tv #1 -> 200
		tv m.m3u8 -> 200
		tv #1 -> 200
		tv m.m3u8 -> 200
		tv #1 -> 200
		holds 1 v/x
		tv /v/x/m.m3u8 -> 200 within 11s
		tv #1 -> 200
		tv /v/x/m.m3u8 -> 200 within 11s
		tv #1 -> 200
		holds 1 v/x`},
	{name: "the origin sends each playlist on to an absolute session URL", origin: map[string]string{"/v/x/m.m3u8": "307 http://video.example/v/x/s/m.m3u8"}, steps: `
		tv /v/x/m.m3u8 -> 200
		tv #1 -> 200
		tv #2 -> 200
		holds 1 v/x
		pc /v/x/m.m3u8 -> 429`},
	{name: "the origin sends a channel on, whose first URL is reloaded", origin: map[string]string{"/live/x/m.m3u8": "302 /live/x/s/m.m3u8"}, steps: `
		gst /live/x/m.m3u8 -> 200
		gst #1 -> 200
		wait 4s
		gst /live/x/m.m3u8 -> 200
		gst #1 -> 200
		wait 4s
		gst /live/x/m.m3u8 -> 200
		gst #1 -> 200
		holds 1 live/x`},

	// 31
	{name: "a channel made of films that lie elsewhere", origin: map[string]string{
		"/ch/1.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n/vod/a/1.ts\n#EXT-X-DISCONTINUITY\n#EXTINF:4,\n/vod/b/1.ts\n",
	}, steps: `
		tv /ch/1.m3u8 -> 200
		tv #1 -> 200
		tv #2 -> 200
		holds 1 ch
		tv /ch/1.m3u8 -> 200
		tv #2 -> 200
		holds 1 ch
		pc /vod/a/m.m3u8 -> 429`},
	{name: "a common intro in another folder", origin: map[string]string{
		"/v/x/m.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n../../intro/1.ts\n#EXT-X-DISCONTINUITY\n#EXTINF:4,\n1.ts\n#EXT-X-ENDLIST\n",
	}, steps: `
		tv /v/x/m.m3u8 -> 200
		tv #1 -> 200
		asked /intro/1.ts
		tv #2 -> 200
		holds 1 v/x`},
	{name: "a named channel made of films that lie elsewhere", origin: map[string]string{
		"/ch/1.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n/vod/a/1.ts\n#EXT-X-DISCONTINUITY\n#EXTINF:4,\n/vod/b/1.ts\n",
	}, steps: `
		tv /ch/1.m3u8 sid=a -> 200
		tv #1 sid=a -> 200
		tv #2 sid=a -> 200
		tv /ch/1.m3u8 sid=a -> 200
		tv #1 sid=a -> 200
		holds 1 ch`},

	// 32
	{name: "cameras named by a parameter only", options: "limit 2", origin: map[string]string{
		"/api/stream.m3u8":       "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhls/playlist.m3u8?id=1\n",
		"/api/hls/playlist.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nx.ts?id=1\n",
	}, steps: `
		a /api/stream.m3u8?src=a -> 200
		a #1 -> 200
		a #1 -> 200
		holds 1
		b /api/stream.m3u8?src=b -> 200
		b #1 -> 200
		b #1 -> 200
		holds 2
		a x.ts?id=2 -> 200
		c /api/stream.m3u8?src=c -> 429`},
	{name: "one client, two cameras", options: "limit 1", origin: map[string]string{
		"/api/stream.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nhls/x.ts?id=1\n",
	}, steps: `
		a /api/stream.m3u8?src=a -> 200
		a #1 -> 200
		a /api/stream.m3u8?src=a -> 200
		a #1 -> 200
		holds 1`},
	{name: "cameras whose parameter is the stream", options: "limit 1\nstream {query.src}", origin: map[string]string{
		"/api/stream.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nhls/x.ts?id=1\n",
	}, steps: `
		a /api/stream.m3u8?src=a -> 200
		a #1 -> 200
		holds 1 a
		b /api/stream.m3u8?src=b -> 429`},

	// attacks.md 1
	{name: "what is revoked is the playback, under whichever name it is asked for", steps: `
		tv /v/x/m.m3u8 -> 200
		tv #1 -> 200
		tv /v/x/1.ts -> 200
		tv /v/x/2.ts -> 200
		holds 1 v/x
		revoke
		tv /v/x/3.ts -> 429 GUARD_REVOKED
		wait 20s
		tv /v/x/4.ts -> 429
		wait 30s
		tv /v/x/5.ts -> 429
		wait 30s
		tv /v/x/6.ts -> 429
		holds 0`},
	{name: "a name on the manifest only, revoked", options: "playback stream", steps: `
		tv /v/x/m.m3u8 sid=a -> 200
		tv #1 -> 200
		tv #2 -> 200
		holds 1 v/x
		revoke
		tv #1 -> 429
		wait 40s
		tv #2 -> 429
		tv /v/x/m.m3u8 sid=a -> 200
		tv #2 -> 429
		holds 0`},
	{name: "a straggler after the slot is given back", steps: `
		tv POST /guards body={"streamId":"v/x"} -> 201
		tv /v/x/m.m3u8?guard=$id -> 200
		wait 10s
		tv #1 -> 200
		tv /v/x/1.ts -> 200
		tv DELETE /guards/$id -> 204
		tv /v/x/2.ts -> 200
		holds 0
		pc /v/y/m.m3u8 -> 200
		pc #1 -> 200
		holds 1 v/y`},

	// attacks.md 2
	{name: "a store that came back empty: who has lost the token", steps: `
		tv /v/x/m.m3u8 -> 200
		tv /v/x/1.ts -> 200
		tv #1 -> 200
		holds 1 v/x
		flush
		holds 0
		wait 25s
		tv /v/x/2.ts -> 200
		wait 1s
		tv #2 -> 200
		wait 1s
		holds 1 v/x
		wait 20s
		tv /v/x/3.ts -> 200
		tv #1 -> 200
		wait 1s
		holds 1 v/x
		pc /v/y/m.m3u8 -> 429`},
	{name: "a store that came back empty: somebody has taken the slot", steps: `
		tv /v/x/m.m3u8 -> 200
		tv #1 -> 200
		tv /v/x/2.ts -> 200
		flush
		pc /v/y/m.m3u8 -> 200
		pc #1 -> 200
		wait 25s
		tv /v/x/3.ts -> 200
		wait 1s
		tv /v/x/4.ts -> 200
		tv #1 -> 200
		wait 30s
		tv /v/x/3.ts -> 200
		tv #1 -> 200
		pc #2 -> 200
		holds 2`},

	// attacks.md 3
	{name: "a reserved guard, and segments without its name", steps: `
		tv POST /guards body={} -> 201
		tv /v/x/m.m3u8?guard=$id -> 200
		tv #1 -> 200
		tv /v/x/1.ts -> 200
		tv /v/x/2.ts -> 200
		holds 1 v/x`},
	{name: "a reserved guard, and segments without its name or token", options: "playback stream", steps: `
		tv POST /guards body={} -> 201
		tv /v/x/m.m3u8?guard=$id -> 200
		tv #1 -> 200
		tv #2 -> 200
		holds 1 v/x`},
	{name: "the guard on the master only", options: "playback stream", steps: `
		tv POST /guards body={} -> 201
		tv /v/x/master.m3u8?guard=$id -> 200
		tv #1 -> 200
		tv #1 -> 200
		holds 1 v/x`},
	{name: "a device in the body, and none in the Caddyfile", steps: `
		tv POST /guards body={"streamId":"v/x","deviceId":"tv"} -> 201
		tv /v/x/m.m3u8?guard=$id -> 200
		tv /v/x/1.ts -> 200
		tv #1 -> 200
		holds 1 v/x`},
	{name: "a session id kept while zapping", steps: `
		tv /v/x/m.m3u8 sid=a -> 200
		tv #1 sid=a -> 200
		tv /v/y/m.m3u8 sid=a -> 200
		wait 50ms
		tv /v/y/1.ts -> 200
		tv #1 sid=a -> 200
		holds 1 v/y`},
	{name: "a session id kept while zapping, without tokens", options: "playback stream", steps: `
		tv /v/x/m.m3u8 sid=a -> 200
		tv #1 sid=a -> 200
		tv /v/y/m.m3u8 sid=a -> 200
		wait 50ms
		tv #1 -> 200
		tv #1 sid=a -> 200
		wait 2s
		holds 1 v/y`},
	{name: "a reserved guard without a stream is not a free pass", steps: `
		tv POST /guards body={} -> 201
		tv /v/a/1.ts -> 200
		tv /v/b/1.ts -> 429
		tv /v/c/1.ts -> 429
		tv /v/d/1.ts -> 429
		tv /v/e/1.ts -> 429
		tv /v/f/1.ts -> 429
		tv /v/g/1.ts -> 429
		tv /v/h/1.ts -> 429
		tv /v/i/1.ts -> 429
		tv /v/j/1.ts -> 429
		tv /v/a/2.ts -> 200
		holds 1 v/a`},

	// How it is shown
	{name: "reserved by Safari, played by AppleCoreMedia", steps: `
		safari POST /guards body={"streamId":"v/x"} -> 201
		core /v/x/m.m3u8?guard=$id X-Playback-Session-Id=zz -> 200
		core #1 X-Playback-Session-Id=zz -> 200
		core #2 X-Playback-Session-Id=zz -> 200
		holds 1 v/x`},
	{name: "reserved by Safari for a playback, played by AppleCoreMedia", steps: `
		safari POST /guards body={"playbackId":"s1"} -> 201
		core /v/x/m.m3u8 X-Playback-Session-Id=s1 -> 200
		core #1 X-Playback-Session-Id=s1 -> 200
		core #2 -> 200
		holds 1 v/x`},
	{name: "a playbackId that comes as sid beside another session id", steps: `
		safari POST /guards body={"playbackId":"s1"} -> 201
		core /v/x/m.m3u8 sid=s1 X-Playback-Session-Id=zz -> 200
		core #1 sid=s1 X-Playback-Session-Id=zz -> 200
		core /v/x/2.ts sid=s1 X-Playback-Session-Id=zz -> 200
		holds 1 v/x`},
	{name: "a title of one folder", steps: `
		tv /alien/index.m3u8 -> 200
		tv 7.ts -> 200
		tv 8.ts -> 200
		tv /alien/9.ts -> 200
		holds 1 alien
		pc /aliens/index.m3u8 -> 429`},
	{name: "MediaMTX", steps: `
		tv /cam/index.m3u8 -> 200
		tv main_stream.m3u8 -> 200
		tv 0123456789ab_main_seg7.mp4 -> 200
		tv /cam/0123456789ab_main_seg8.mp4 -> 200
		tv video1_stream.m3u8 -> 200
		tv 0123456789ab_video1_init.mp4 -> 200
		holds 1 cam`},
	{name: "ffmpeg's stream_%v", steps: `
		tv /v/x/stream_0.m3u8 -> 200
		tv stream_0-7.ts -> 200
		tv stream_1.m3u8 -> 200
		tv stream_1-7.ts -> 200
		holds 1 v/x`},
	{name: "ffmpeg's stream_%v in one folder", steps: `
		tv /x/stream_0.m3u8 -> 200
		tv stream_0-7.ts -> 200
		tv /x/stream_1-7.ts -> 200
		holds 1 x`},
	{name: "HEAD and prefetch of media at a full house", steps: `
		tv /v/x/m.m3u8 -> 200
		tv #1 -> 200
		pc HEAD /v/y/1.ts -> 429
		pc /v/y/1.ts Sec-Purpose=prefetch -> 429
		pc HEAD /v/y/1.ts sid=a -> 429
		pc /v/y/1.ts sid=a Purpose=prefetch -> 429
		pc HEAD /v/y/m.m3u8 -> 429
		holds 1 v/x`},
	{name: "HEAD of media takes nothing, a prefetch does", steps: `
		tv HEAD /v/x/1.ts -> 200
		holds 0
		tv HEAD /v/x/1.ts sid=a -> 200
		holds 0
		tv /v/x/1.ts sid=a Sec-Purpose=prefetch -> 200
		holds 1 v/x`},
	{name: "other methods pass untouched", steps: `
		enc PUT /live/ch1/1.ts -> 200
		enc DELETE /live/ch2/1.ts -> 200
		enc PROPFIND /live/ch3/1.ts -> 200
		nobody/enc POST /live/ch3/1.ts -> 200
		holds 0`},
	{name: "a look whose only guard in the way has lapsed", options: "limit 1\nreclaim lapsed", steps: `
		tv /v/x/m.m3u8 -> 200
		tv #1 -> 200
		pc /v/y/m.m3u8 -> 429
		wait 61s
		pc /v/y/m.m3u8 -> 200
		holds 1 v/x
		pc #1 -> 200
		holds 1 v/y
		tv #2 -> 429`},
	{name: "an MPD with a Location on a second host name, replacing", options: "limit 1 replace", origin: map[string]string{
		"/live/x/m.mpd": `<MPD type="dynamic" minimumUpdatePeriod="PT2S"><Location>http://second.example/live/x/m.mpd</Location><Period><AdaptationSet><SegmentTemplate media="$Number$.m4s" duration="2"/><Representation id="v"/></AdaptationSet></Period></MPD>`,
	}, steps: `
		tv /live/x/m.mpd -> 200
		tv 1.m4s -> 200
		wait 2s
		tv http://second.example/live/x/m.mpd -> 200
		tv 2.m4s -> 200
		wait 2s
		tv http://second.example/live/x/m.mpd -> 200
		tv 3.m4s -> 200
		wait 2s
		tv http://second.example/live/x/m.mpd -> 200
		tv 4.m4s -> 200
		holds 1 live/x`},
	{name: "a token of another user", steps: `
		tv /v/x/m.m3u8 -> 200
		tv #1 -> 200
		ann/tv /v/x/~` + isUUID + `/m.m3u8 -> 200
		ann/tv #1 -> 200
		ann/tv#2 /v/y/m.m3u8 -> 429
		tv /v/x/~` + isUUID + `/m.m3u8 -> 200 within 11s
		holds 1 v/x`},
	{name: "a variable that names itself, and others in a circle", origin: map[string]string{
		"/v/x/m.m3u8": "#EXTM3U\n#EXT-X-DEFINE:NAME=\"a\",VALUE=\"{$a}{$b}\"\n#EXT-X-DEFINE:NAME=\"b\",VALUE=\"{$a}{$a}\"\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{$a}1.ts\n#EXT-X-ENDLIST\n",
	}, steps: `
		tv /v/x/m.m3u8 -> 200
		tv 1.ts -> 200
		holds 1 v/x`},
	{name: "variables before absolute URLs", origin: map[string]string{
		"/v/x/m.m3u8": "#EXTM3U\n#EXT-X-DEFINE:NAME=\"base\",VALUE=\"http://video.example/other/x/\"\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{$base}1.ts\n#EXT-X-ENDLIST\n",
	}, steps: `
		tv /v/x/m.m3u8 -> 200
		holds 0`},
	{name: "GStreamer with a target duration of 12", origin: map[string]string{
		"/live/x/m.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:12\n#EXTINF:12,\n7.ts\n#EXTINF:12,\n8.ts\n",
	}, steps: `
		gst /live/x/m.m3u8 -> 200
		gst #1 -> 200
		wait 12s
		gst /live/x/m.m3u8 -> 200
		gst #1 -> 200
		wait 13s
		gst /live/x/m.m3u8 -> 200
		gst #2 -> 200
		wait 12s
		gst /live/x/m.m3u8 -> 200
		gst #2 -> 200
		holds 1 live/x`},
	{name: "FFmpeg on an MPD of segments of 12 s", origin: map[string]string{
		"/live/x/m.mpd": `<MPD type="dynamic"><Period><AdaptationSet><SegmentTemplate media="$Number$.m4s" timescale="1000" duration="12000"/><Representation id="v"/></AdaptationSet></Period></MPD>`,
	}, steps: `
		ffmpeg /live/x/m.mpd -> 200
		ffmpeg 1.m4s -> 200
		wait 12s
		ffmpeg /live/x/m.mpd -> 200
		ffmpeg 2.m4s -> 200
		wait 12s
		ffmpeg /live/x/m.mpd -> 200
		ffmpeg 3.m4s -> 200
		wait 12s
		ffmpeg /live/x/m.mpd -> 200
		ffmpeg 4.m4s -> 200
		holds 1 live/x`},
	{name: "mpv paused for 15 s on a live MPD", steps: `
		mpv /live/x/m.mpd -> 200
		mpv 1.m4s -> 200
		wait 4s
		mpv /live/x/m.mpd -> 200
		mpv 2.m4s -> 200
		wait 4s
		mpv /live/x/m.mpd -> 200
		mpv 3.m4s -> 200
		wait 15s
		mpv /live/x/m.mpd -> 200
		mpv 4.m4s -> 200
		holds 1 live/x`},
}

func TestCases(t *testing.T) {
	onBothStores(t, func(t *testing.T, in func(*testing.T, int, string, func(*world))) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				caddyfile := c.site
				if !strings.HasPrefix(caddyfile, "{") && !strings.HasPrefix(caddyfile, "http") {
					caddyfile = gateSite(c.options, c.site)
				}
				in(t, 1, caddyfile, func(w *world) {
					w.answers(c.origin)
					w.play(c.steps)
				})
			})
		}
	})
}
