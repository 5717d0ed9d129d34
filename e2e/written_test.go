package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The players that we cannot run: what an operator without a gate would have in his
// log, by what their documentation and source say, and what servers have seen of
// them. With -record the traces are written anew.
func TestRecordWritten(t *testing.T) {
	t.Parallel()
	var all []trace
	for _, s := range writtenScripts() {
		made := trace{
			File: "written-" + s.name + ".log", Player: s.player, Made: "written", Shows: s.shows,
			Gate: "none", Names: s.names, UserField: "user", Sources: s.sources, lines: s.log(t),
		}
		s.into(&made)
		if s.now != 0 {
			t.Errorf("%s: %d playbacks have not ended", s.name, s.now)
		}
		all = append(all, made)
	}
	if *recordInto != "" {
		writeTraces(t, *recordInto, "written", true, all)
		return
	}
	for _, w := range all {
		lines, err := os.ReadFile(filepath.Join(traces, w.File))
		if err != nil || string(lines) != w.lines {
			t.Errorf("%s is not as it is written here (make traces): %v", w.File, err)
		}
	}
	for _, old := range readIndex(t, traces) {
		if old.Made == "written" && !slices.ContainsFunc(all, func(w trace) bool { return w.File == old.File }) {
			t.Errorf("%s is written nowhere (make traces)", old.File)
		}
	}
}

// script is a trace that is written: who asks for what, and when.
type script struct {
	truth
	name, player, names, shows string
	sources                    []string
	lines                      []line
	ports                      int // that connections have had
}

// line is one of Caddy's access log, its fields in Caddy's order.
type line struct {
	Level    string      `json:"level"`
	TS       json.Number `json:"ts"`
	Logger   string      `json:"logger"`
	Msg      string      `json:"msg"`
	Request  asked       `json:"request"`
	UserID   string      `json:"user_id"`
	Duration float64     `json:"duration"`
	Size     int         `json:"size"`
	Status   int         `json:"status"`
	User     string      `json:"user"`

	end time.Duration
}

type asked struct {
	RemotePort string              `json:"remote_port"`
	ClientIP   string              `json:"client_ip"`
	Method     string              `json:"method"`
	Host       string              `json:"host"`
	URI        string              `json:"uri"`
	Headers    map[string][]string `json:"headers"`
}

// evening is when all scripts begin.
var evening = time.Date(2026, 11, 27, 20, 0, 0, 0, time.UTC)

// log is the script in the order in which Caddy writes: of the ends.
func (s *script) log(t *testing.T) string {
	t.Helper()
	slices.SortStableFunc(s.lines, func(a, b line) int { return int(a.end - b.end) })
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	for _, l := range s.lines {
		at := evening.Add(l.end)
		l.TS = json.Number(fmt.Sprintf("%d.%06d", at.Unix(), at.Nanosecond()/1000))
		if err := enc.Encode(l); err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

// screen is a device with its player.
type screen struct {
	*script
	user, ip, agent, port string
	header                map[string]string // of every request
}

func (s *script) screen(user, ip, agent string, header ...string) *screen {
	s.ports++
	p := &screen{script: s, user: user, ip: ip, agent: agent, port: fmt.Sprint(50_000 + 7*s.ports), header: make(map[string]string)}
	for i := 0; i < len(header); i += 2 {
		p.header[header[i]] = header[i+1]
	}
	return p
}

// ask has the player ask for something; at and took are seconds.
func (p *screen) ask(at, took float64, method, uri string, status, size int, header ...string) {
	headers := map[string][]string{"User-Agent": {p.agent}}
	for name, value := range p.header {
		headers[name] = []string{value}
	}
	for i := 0; i < len(header); i += 2 {
		headers[header[i]] = []string{header[i+1]}
	}
	p.lines = append(p.lines, line{
		Level: "info", Logger: "http.log.access.log0", Msg: "handled request",
		Request:  asked{p.port, p.ip, method, "media.example.com", uri, headers},
		Duration: took, Size: size, Status: status, User: p.user,
		end: time.Duration((at + took) * float64(time.Second)),
	})
}

func (p *screen) get(at float64, uri string, header ...string) {
	status, took, size := 200, 0.18, 742_188
	switch {
	case strings.Contains(uri, ".m3u8"), strings.Contains(uri, ".mpd"):
		took, size = 0.004, 812
		if i := slices.Index(header, "Cmcd-Object"); i >= 0 {
			header = slices.Clone(header)
			header[i+1] = "ot=m"
		}
	case strings.HasSuffix(uri, "init.mp4"):
		took, size = 0.006, 904
	}
	if p.header["Range"] != "" {
		status = 206
	}
	p.ask(at, took, "GET", uri, status, size, header...)
}

// part is get of some bytes.
func (p *screen) part(at, took float64, uri, bytes string, size int) {
	p.ask(at, took, "GET", uri, 206, size, "Range", "bytes="+bytes)
}

// title is where something is played: its manifest, and for each track its playlist,
// what goes before its segments, and how they are named.
type title struct {
	manifest string
	tracks   []track
}

type track struct{ playlist, init, segment string }

const segmentSeconds = 4 // of all titles here

func hlsTitle(folder string) title {
	return title{folder + "/master.m3u8", []track{
		{folder + "/v3/index.m3u8", folder + "/v3/init.mp4", folder + "/v3/%d.m4s"},
		{folder + "/a1/index.m3u8", folder + "/a1/init.mp4", folder + "/a1/%d.m4s"},
	}}
}

func tsTitle(folder string) title {
	return title{folder + "/master.m3u8", []track{{folder + "/720p/index.m3u8", "", folder + "/720p/%d.ts"}}}
}

func dashTitle(folder string) title {
	return title{folder + "/manifest.mpd", []track{
		{"", folder + "/v3/init.mp4", folder + "/v3/%d.m4s"},
		{"", folder + "/a1/init.mp4", folder + "/a1/%d.m4s"},
	}}
}

// opens fetches the manifest, the playlists, and what goes before the segments.
func (p *screen) opens(at float64, m title, header ...string) (next float64) {
	p.get(at, m.manifest, header...)
	for _, tr := range m.tracks {
		if tr.playlist != "" {
			at += 0.04
			p.get(at, tr.playlist, header...)
		}
	}
	for _, tr := range m.tracks {
		if tr.init != "" {
			at += 0.03
			p.get(at, tr.init, header...)
		}
	}
	return at + 0.05
}

// film plays a title from a segment on: so many ahead at once, and from then on each
// when there is room in the buffer.
func (p *screen) film(at float64, m title, from, ahead int, until float64, header ...string) {
	began := p.opens(at, m, header...)
	for i := 0; ; i++ {
		for j, tr := range m.tracks {
			when := began + float64(i)*0.3 + float64(j)*0.1
			if i >= ahead {
				when = began + float64(i-ahead+1)*segmentSeconds + float64(j)*0.1
			}
			if when > until {
				return
			}
			p.get(when, fmt.Sprintf(tr.segment, from+i), header...)
		}
	}
}

// channel plays a live title: the last three segments, then each as it comes, with
// the playlists, or the MPD, loaded again so often.
func (p *screen) channel(at float64, m title, from int, reload, until float64, header ...string) {
	began := p.opens(at, m, header...)
	for i := 0; ; i++ {
		for j, tr := range m.tracks {
			when := began + float64(i)*0.25 + float64(j)*0.1
			if i >= 3 {
				when = began + float64(i-2)*segmentSeconds + 0.3 + float64(j)*0.1
			}
			if when > until {
				break
			}
			p.get(when, fmt.Sprintf(tr.segment, from+i), header...)
		}
		if float64(i-3)*segmentSeconds > until-at {
			break
		}
	}
	for when := began + reload; when < until; when += reload {
		if m.tracks[0].playlist == "" {
			p.get(when, m.manifest, header...)
			continue
		}
		for j, tr := range m.tracks {
			p.get(when+float64(j)*0.02, tr.playlist, header...)
		}
	}
}

// Ids that players made up.
const (
	session1 = "7C6B4B0C-4DE1-4B39-8D3F-0B1E5C0F7A11"
	session2 = "1F0D8E52-93A5-4C0E-A6B7-2D9C4E6F8B22"
	session3 = "E2A9C7D4-5B68-4F31-9C0A-6F7E8D9A0C33"
)

const (
	iPhone     = "AppleCoreMedia/1.0.0.21G93 (iPhone; U; CPU OS 17_6_1 like Mac OS X; en_us)"
	appleTV    = "AppleCoreMedia/1.0.0.20L563 (Apple TV; U; CPU OS 16_5 like Mac OS X; en_us)"
	media3     = "Example/1.2.0 (Linux;Android 14) AndroidXMedia3/1.5.1"
	tizen      = "samsung-agent/1.1"
	webOS      = "Mozilla/5.0 (Web0S; Linux/SmartTV) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/87.0.4280.88 Safari/537.36 WebAppManager"
	roku       = "Roku/DVP-14.5 (14.5.0.4126-46)"
	chromecast = "Mozilla/5.0 (X11; Linux aarch64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/133.0.0.0 Safari/537.36 CrKey/1.54.250320"
)

// What the scripts are written from.
var (
	ofAVPlayer = []string{
		"https://developer.apple.com/documentation/avfoundation/avurlasset/httpsessionidentifier (X-Playback-Session-Id: one for each AVURLAsset, in all its requests)",
		"User-Agents of AppleCoreMedia in public server logs and their parsers",
	}
	ofRanges = []string{"notes of a playground on GitHub: AVPlayer asks for bytes=0-1 of a file first, then for ranges"}
	ofReload = []string{"RFC 8216, 6.3.4: a live playlist is loaded again after the target duration"}
	ofLL     = []string{
		"draft-pantos-hls-rfc8216bis, 6.2.5: _HLS_msn, _HLS_part, blocking preload hints",
		"https://github.com/OvenMediaLabs/OvenMediaEngine/pull/2207 (for the first part of a segment Safari sends _HLS_msn alone)",
	}
	ofAppleCMCD = []string{"https://developer.apple.com/documentation/avfoundation/avassetresourceloader/sendscommonmediaclientdataashttpheaders (headers, from iOS 18)"}
	ofMedia3    = []string{
		"https://github.com/androidx/media: Util.getUserAgent, DefaultHlsPlaylistTracker (reloads after the target duration, or half of it where nothing was new), DefaultLoadControl (50 s ahead)",
	}
	ofMedia3CMCD = []string{"https://github.com/androidx/media: CmcdConfiguration.Factory.DEFAULT (a random sid for each media item, headers), CmcdData (keys, sorted)"}
	ofMedia3DASH = []string{"ISO/IEC 23009-1, 5.3.1.2: minimumUpdatePeriod"}
	ofTizen      = []string{
		"https://developer.samsung.com/smarttv/develop/api-references/samsung-product-api-references/avplay-api.html",
		"the User-Agent samsung-agent/1.1, with a Range and without Accept-Encoding, in public servers' tables of clients (Gerbera and others)",
	}
	ofWebOS = []string{
		"https://webostv.developer.lge.com/develop/specifications/streaming-protocol-drm (native HLS)",
		"the User-Agent is that of its web engine; what its media pipeline sends is not documented",
	}
	ofRoku = []string{
		"https://developer.roku.com/dev/docs/video",
		"User-Agents of Roku/DVP in public parsers",
		"Mux, How to Keep Calm and Debug Smart TVs: it asks for parts of segments",
	}
	ofCast = []string{
		"https://developers.google.com/cast/docs/media/streaming_protocols (Shaka, or its own player; XMLHttpRequest, and so CORS)",
		"User-Agents of CrKey in public tables",
	}
)

func cmcd(sid, stream, kind string) []string {
	return []string{"Cmcd-Session", fmt.Sprintf(`cid="film",sf=h,sid="%s",st=%s,v=1`, sid, stream), "Cmcd-Object", "ot=" + kind, "Cmcd-Request", "mtp=8200,su"}
}

// writtenScripts are all traces of players that we cannot run.
func writtenScripts() (all []*script) {
	add := func(name, player, names, shows string, sources ...[]string) *script {
		s := &script{name: name, player: player, names: names, shows: shows, sources: slices.Concat(sources...)}
		all = append(all, s)
		return s
	}
	const home = "198.51.100.7"

	s := add("avplayer-vod", "AVPlayer, iOS 17", "session", "a film, HLS with audio apart", ofAVPlayer)
	p := s.screen("alice", home, iPhone, "X-Playback-Session-Id", session1)
	s.begins("alice", "/films/alien/")
	p.film(0, hlsTitle("/films/alien"), 1, 5, 36)
	s.ends("alice")

	s = add("avplayer-tv-zap", "AVPlayer, tvOS 16", "session", "three live channels, one after the other: an AVURLAsset, and so a session, of its own for each", ofAVPlayer, ofReload)
	for i, session := range []string{session1, session2, session3} {
		channel := []string{"news", "sports", "music"}[i]
		p := s.screen("alice", home, appleTV, "X-Playback-Session-Id", session)
		s.begins("alice", "/live/"+channel+"/")
		p.channel(float64(i)*16, tsTitle("/live/"+channel), 90_000, segmentSeconds, float64(i+1)*16-1)
		s.ends("alice")
	}

	s = add("avplayer-ll", "AVPlayer, iOS 17", "session", "a live channel, low-latency HLS", ofAVPlayer, ofLL)
	p = s.screen("alice", home, iPhone, "X-Playback-Session-Id", session1)
	s.begins("alice", "/live/news/")
	p.lowLatency("/live/news", 4500, 13)
	s.ends("alice")

	s = add("avplayer-cmcd", "AVPlayer, iOS 18", "cmcd", "a film, HLS; two names in each request: CMCD in headers, and a session", ofAVPlayer, ofAppleCMCD)
	p = s.screen("alice", home, strings.Replace(iPhone, "21G93 (iPhone; U; CPU OS 17_6_1", "22A3354 (iPhone; U; CPU OS 18_0", 1), "X-Playback-Session-Id", session1)
	s.begins("alice", "/films/alien/")
	p.film(0, tsTitle("/films/alien"), 1, 5, 50, cmcd(strings.ToLower(session2), "v", "av")...)
	s.ends("alice")

	s = add("avplayer-mp4", "AVPlayer, iOS 17", "session", "a film in one file, with a jump in it", ofAVPlayer, ofRanges)
	p = s.screen("alice", home, iPhone, "X-Playback-Session-Id", session1)
	s.begins("alice", "/films/alien/")
	const file, length = "/films/alien/alien.mp4", 91_238_417
	p.part(0, 0.01, file, "0-1", 2)
	p.part(0.1, 0.09, file, fmt.Sprintf("0-%d", length-1), 655_360)
	p.part(0.3, 0.05, file, fmt.Sprintf("%d-%d", length-201_729, length-1), 201_729)
	p.part(0.5, 18.2, file, fmt.Sprintf("48-%d", length-1), 14_680_064)
	p.part(19, 12.5, file, fmt.Sprintf("45088768-%d", length-1), 10_485_760)
	s.ends("alice")

	s = add("avplayer-two", "AVPlayer, iOS 17 and tvOS 16", "session", "one user at two devices of one home, the same film, at once for a while", ofAVPlayer)
	p = s.screen("alice", home, iPhone, "X-Playback-Session-Id", session1)
	s.begins("alice", "/films/alien/")
	p.film(0, tsTitle("/films/alien"), 1, 4, 32)
	p = s.screen("alice", home, appleTV, "X-Playback-Session-Id", session2)
	s.begins("alice", "/films/alien/")
	p.film(16, tsTitle("/films/alien"), 6, 4, 48)
	s.ends("alice")
	s.ends("alice")

	s = add("media3-vod", "Media3 1.5.1, Android 14", "none", "a film, HLS with audio apart", ofMedia3)
	p = s.screen("bob", home, media3)
	s.begins("bob", "/films/alien/")
	p.film(0, hlsTitle("/films/alien"), 1, 12, 20)
	s.ends("bob")

	s = add("media3-live", "Media3 1.5.1, Android 14", "none", "a live channel, HLS", ofMedia3)
	p = s.screen("bob", home, media3)
	s.begins("bob", "/live/news/")
	p.channel(0, tsTitle("/live/news"), 90_000, segmentSeconds, 42)
	s.ends("bob")

	s = add("media3-live-dash", "Media3 1.5.1, Android 14", "none", "a live channel, DASH", ofMedia3, ofMedia3DASH)
	p = s.screen("bob", home, media3)
	s.begins("bob", "/live/news/")
	p.channel(0, dashTitle("/live/news"), 90_000, 2, 24)
	s.ends("bob")

	s = add("media3-cmcd-zap", "Media3 1.5.1, Android 14", "cmcd", "three live channels, one after the other, CMCD in headers: a sid of its own for each", ofMedia3, ofMedia3CMCD)
	for i, session := range []string{session1, session2, session3} {
		channel := []string{"news", "sports", "music"}[i]
		p := s.screen("bob", home, media3)
		s.begins("bob", "/live/"+channel+"/")
		p.channel(float64(i)*16, tsTitle("/live/"+channel), 90_000, segmentSeconds, float64(i+1)*16-1, cmcd(strings.ToLower(session), "l", "av")...)
		s.ends("bob")
	}

	s = add("tizen-vod", "Tizen AVPlay", "none", "a film, HLS of MPEG-TS", ofTizen)
	p = s.screen("carol", home, tizen, "Range", "bytes=0-", "Cookie", "REDACTED")
	s.begins("carol", "/films/alien/")
	p.film(0, tsTitle("/films/alien"), 1, 3, 60)
	s.ends("carol")

	s = add("tizen-live", "Tizen AVPlay", "none", "a live channel, HLS", ofTizen, ofReload)
	p = s.screen("carol", home, tizen, "Range", "bytes=0-", "Cookie", "REDACTED")
	s.begins("carol", "/live/news/")
	p.channel(0, tsTitle("/live/news"), 90_000, segmentSeconds, 42)
	s.ends("carol")

	s = add("webos-vod", "webOS, native HLS", "none", "a film, HLS of MPEG-TS", ofWebOS)
	p = s.screen("carol", home, webOS, "Referer", "https://app.example.com/")
	s.begins("carol", "/films/alien/")
	p.film(0, tsTitle("/films/alien"), 1, 5, 44)
	s.ends("carol")

	s = add("webos-live", "webOS, native HLS", "none", "a live channel, HLS; silent for three quarters of a minute while it is paused", ofWebOS, ofReload)
	p = s.screen("carol", home, webOS, "Referer", "https://app.example.com/")
	s.begins("carol", "/live/news/")
	p.channel(0, tsTitle("/live/news"), 90_000, segmentSeconds, 20)
	p.channel(65, tsTitle("/live/news"), 90_016, segmentSeconds, 85)
	s.ends("carol")

	s = add("roku-vod", "Roku OS 14.5", "none", "a film, HLS of MPEG-TS, in parts of segments", ofRoku)
	p = s.screen("dave", home, roku)
	s.begins("dave", "/films/alien/")
	next := p.opens(0, tsTitle("/films/alien"))
	for i := range 14 {
		uri, at := fmt.Sprintf("/films/alien/720p/%d.ts", 1+i), next+float64(max(i-3, 0))*segmentSeconds+float64(min(i, 3))*0.5
		p.part(at, 0.12, uri, "0-524287", 524_288)
		p.part(at+0.15, 0.08, uri, "524288-", 217_900)
	}
	s.ends("dave")

	s = add("roku-live", "Roku OS 14.5", "none", "a live channel, HLS", ofRoku, ofReload)
	p = s.screen("dave", home, roku)
	s.begins("dave", "/live/news/")
	p.channel(0, tsTitle("/live/news"), 90_000, segmentSeconds, 42)
	s.ends("dave")

	origin := []string{"Origin", "https://receiver.example.com", "Referer", "https://receiver.example.com/"}
	s = add("chromecast-vod-dash", "Chromecast, Web Receiver", "none", "a film, DASH, from a page of another origin", ofCast)
	p = s.screen("erin", home, chromecast, origin...)
	s.begins("erin", "/films/alien/")
	p.film(0, dashTitle("/films/alien"), 1, 5, 32)
	s.ends("erin")

	s = add("chromecast-live-cmcd", "Chromecast, Web Receiver", "cmcd", "a live channel, HLS, CMCD in headers, and so with preflights, which have no user", ofCast, ofReload,
		[]string{"https://developer.mozilla.org/docs/Glossary/Preflight_request"})
	p = s.screen("", home, chromecast, origin...)
	preflight := []string{"Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "cmcd-object,cmcd-request,cmcd-session"}
	for i, uri := range []string{"/live/news/master.m3u8", "/live/news/720p/index.m3u8", "/live/news/720p/90000.ts", "/live/news/720p/90001.ts", "/live/news/720p/90002.ts"} {
		p.ask(float64(i)*0.03, 0.001, "OPTIONS", uri, 204, 0, preflight...)
	}
	p.user = "erin"
	s.begins("erin", "/live/news/")
	p.channel(0.02, tsTitle("/live/news"), 90_000, segmentSeconds, 30, cmcd(strings.ToLower(session1), "l", "av")...)
	s.ends("erin")

	s = add("home", "AVPlayer, Media3, Tizen AVPlay, Roku", "none", "a home: two users at two screens each, behind one address", ofAVPlayer, ofMedia3, ofTizen, ofRoku, ofReload)
	for i, playing := range []struct {
		user, agent string
		m           title
	}{
		{"alice", iPhone, tsTitle("/films/alien")},
		{"alice", tizen, tsTitle("/live/news")},
		{"bob", media3, tsTitle("/films/heat")},
		{"bob", roku, tsTitle("/live/news")},
	} {
		p := s.screen(playing.user, home, playing.agent)
		if playing.agent == iPhone {
			p.header["X-Playback-Session-Id"] = session1
		}
		s.begins(playing.user, playing.m.manifest)
		if strings.HasPrefix(playing.m.manifest, "/live/") {
			p.channel(float64(i)*3, playing.m, 90_000, segmentSeconds, 30)
		} else {
			p.film(float64(i)*3, playing.m, 1, 4, 30)
		}
	}
	for user, playing := range maps.Clone(s.users) {
		for range playing {
			s.ends(user)
		}
	}
	return all
}

// lowLatency plays a live channel in parts of a second, four of which are a segment.
func (p *screen) lowLatency(folder string, segment, seconds int) {
	p.get(0, folder+"/master.m3u8")
	p.get(0.05, folder+"/index.m3u8")
	p.get(0.1, folder+"/init.mp4")
	p.get(0.15, fmt.Sprintf("%s/%d.m4s", folder, segment-1))
	at := 0.4
	for i := range seconds {
		msn, part := segment+i/4, i%4
		waits := fmt.Sprintf("%s/index.m3u8?_HLS_msn=%d", folder, msn)
		if part > 0 {
			waits += fmt.Sprintf("&_HLS_part=%d", part)
		}
		p.ask(at, 0.98, "GET", waits, 200, 1_204)
		p.ask(at+0.01, 0.99, "GET", fmt.Sprintf("%s/%d.%d.m4s", folder, msn, part), 200, 185_400)
		at++
	}
}
