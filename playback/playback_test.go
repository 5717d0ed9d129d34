package playback

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/streamguard/streamguard/guard"
)

var id = guard.DeriveID("user", "", "playback")

func TestKindOfAPath(t *testing.T) {
	kinds, err := NewKinds(nil)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]Kind{
		"/a/master.m3u8":    Manifest,
		"/a/manifest.mpd":   Manifest,
		"/a/MASTER.M3U8":    Manifest,
		"/a/7.ts":           Media,
		"/a/7.m4s":          Media,
		"/a/7.m4s/":         Media,
		"/a/7.m4s;jsession": Media,
		"/a/sub.vtt":        Media,
		"/a.ism/v=1-7.dash": Media, // Unified Streaming
		"/a/v_init.m4i":     Media,
		"/a/seg-1.m4f":      Media,
		"/a/init-1.webm":    Media,
		"/a/7.ts/.":         Media,
		"/a/7.ts/b/..":      Media,
		"/a/7.ts/..;/7.ts":  Media,
		"/a/7.ts/;a":        Media,
		"/a/7.ts;a.html":    Media,
		"/a/7.ts\x00.html":  Media,
		"/a/7.ts?a.html":    Media,
		"/a/7.ts.":          Media,
		"/a/7.TS ":          Media,
		"/a/7.ts\\":         Media,
		// What servers without an extension, or with one of their own, call it.
		"/v/x/list.m3u":                                               Manifest,
		"/v/a.ism/Manifest":                                           Manifest,
		"/v/a.isml/manifest":                                          Manifest,
		"/v/a.ism/MANIFEST/":                                          Manifest,
		"/vod/mp4:a.mp4/Manifest":                                     Manifest, // Wowza
		"/vod/smil:a.smil/Manifest":                                   Manifest,
		"/live/a.stream/Manifest":                                     Manifest,
		"/v/a.ism/manifest(format=m3u8-aapl)":                         Manifest, // Azure, Unified Streaming
		"/v/a.ism/manifest(format=mpd-time-csf)":                      Manifest,
		"/v/a.ism/manifest(format=mpd-time-cmaf,filter=a.b)":          Manifest,
		"/v/a.ism/QualityLevels(1)/Manifest(video,format=m3u8-aapl)":  Manifest,
		"/v/a.ism/QualityLevels(1)/Fragments(video=0)":                Media,
		"/v/a.ism/QualityLevels(1)/Fragments(audio_eng=0)":            Media,
		"/v/a.ism/QualityLevels(1)/Fragments(v=i,format=mpd-time-cs)": Media,
		"/Videos/1/stream.mkv":                                        Media, // Emby, Jellyfin
		"/Videos/1/stream":                                            Media,
		"/emby/videos/1/STREAM":                                       Media,
		"/Audio/1/universal":                                          Media,
		"/Audio/1/stream":                                             Media,
		"/Audio/1/stream.flac":                                        Media,
		"/library/parts/1/2/file.avi":                                 Media, // Plex
		"/live/u/p/7.ts":                                              Media, // Xtream
		"/movie/u/p/7.mkv":                                            Media,
		"/live/x.flv":                                                 Media,
		"/a/1.m2ts":                                                   Media,
		"/a/1.MTS":                                                    Media,
		"/a/1.mka":                                                    Media,
		"/a/1.mov":                                                    Media,
		"/a/1.oga":                                                    Media,
		"/a/1.ogg":                                                    Media,
		"/a/1.opus":                                                   Media,
		"/a/1.weba":                                                   Media,
		// What has such a name for other reasons, or needs a line kind.
		"/manifest":                Other, // a web app's
		"/app/manifest":            Other,
		"/manifest.json":           Other,
		"/a/site.webmanifest":      Other,
		"/v2/x/manifests/latest":   Other, // a registry of containers
		"/fragments/header":        Other,
		"/a/stream":                Other,
		"/stream":                  Other,
		"/Items/1/Download":        Other,
		"/a/beep.wav":              Other, // a page plays it, not its viewer
		"/live/u/p/7":              Other,
		"/proxy/ts/stream/0a1b-2c": Other, // Dispatcharr
		"/stream/channelid/7":      Other, // TVHeadend
		"/a/7.ts/index.html":       Other,
		"/a/7.ts/..":               Other,
		"/a/poster.jpg":            Other,
		"/a/ts":                    Other,
		"/":                        Other,
		"":                         Other,
	} {
		if got := kinds.Of(path); got != want {
			t.Errorf("kind of %q: %v, want %v", path, got, want)
		}
	}
	for _, bad := range []string{"", "ts", ".", "./x", ".a.b", "live/*", "/a?b", "/a%20b", "/["} {
		if _, err := NewKinds([]KindRule{{"media", []string{bad}}}); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// What most requests ask for costs nothing to be told.
func TestKindOfAUsualPathIsToldWithoutAllocations(t *testing.T) {
	kinds, err := NewKinds(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/vod/alien/1080p/7.m4s", "/vod/alien/master.m3u8", "/vod/alien/poster.jpg", "/", "/api/films/7"} {
		if n := testing.AllocsPerRun(100, func() { kinds.Of(path) }); n != 0 {
			t.Errorf("%s: %v allocations", path, n)
		}
	}
}

// Nor does the stream of a path in a tree of its own. A folder for all needs
// expressions, whose memory is pooled: with -race some of it is not.
func TestStreamOfAPathIsToldWithoutAllocations(t *testing.T) {
	const path = "/vod/alien/1080p/7.m4s"
	if n := testing.AllocsPerRun(100, func() { Dir(path, 2) }); n != 0 {
		t.Errorf("%s: %v allocations", path, n)
	}
}

// What nobody has said anything of is known from what is to pass.
func TestKindsKnowWhatTheyWereTold(t *testing.T) {
	kinds, err := NewKinds([]KindRule{{"other", []string{"/ads/*", ".key"}}})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		"/a.ts": true, "/a.ism/Manifest": true, "/ads/playlist": true, "/a.KEY": true, "/live/7/playlist": false, "/a.jpg": false, "/": false,
	} {
		if got := kinds.Knows(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}

// Of all rules that fit a path the last decides, over the path as the gate reads it.
func TestKindRules(t *testing.T) {
	extensions := []KindRule{{"media", []string{".FLV"}}, {"other", []string{".vtt"}}}
	patterns := append(extensions, KindRule{"manifest", []string{"/live/*/playlist"}}, KindRule{"media", []string{"/live/*/seg", "/raw/*"}},
		KindRule{"other", []string{"/ads/*", "*.ts", "*thumb*"}}, KindRule{"media", []string{"/ads/film/*"}})
	for _, c := range []struct {
		rules []KindRule
		path  string
		want  Kind
	}{
		{extensions, "/a.flv", Media}, {extensions, "/a.FLV", Media}, {extensions, "/a.vtt", Other}, {extensions, "/a.ts", Media}, {extensions, "/a.mpd", Manifest},
		{patterns, "/a.flv", Media}, {patterns, "/a.vtt", Other}, {patterns, "/a.m4s", Media}, {patterns, "/a.mpd", Manifest},
		{patterns, "/live/7/playlist", Manifest}, {patterns, "/live/7/seg", Media}, {patterns, "/live/7/8/seg", Other}, {patterns, "/LIVE/7/Seg", Media},
		{patterns, "/raw/anything", Media}, {patterns, "/ads/1.m4s", Other}, {patterns, "/ads/film/1.m4s", Media}, {patterns, "/a/thumb/1.m4s", Other}, {patterns, "/x.ts", Other},
		{patterns, "/ads/..;/vod/7.m4s", Media}, {patterns, "/ads/../vod/7.m4s", Media}, {patterns, "/ads//x.m4s", Other}, {patterns, "/vod/../ads/x.m4s", Other},
		{patterns, "/ads", Other}, {patterns, `/ads/..\vod/7.m4s`, Media}, {patterns, `/ads/x/..\..\vod/7.m4s`, Media}, {patterns, "/ads/.\x00./vod/7.m4s", Media}, {patterns, "/ads/..\n/vod/7.m4s", Media}, {patterns, "/ads/.. /vod/7.m4s", Media},
		{extensions, "/x/7.ts;/a", Media}, {extensions, "/x/7.ts;a/b", Media}, {extensions, "/x/7.ts\n", Media}, {extensions, `/x/7.ts\foo`, Other}, {extensions, "/x/7.ts::$DATA", Media}, {extensions, "/a;b/c.html", Other}, {patterns, "/vod/7.m4s\x00/ads/", Media},
	} {
		kinds, err := NewKinds(c.rules)
		if err != nil {
			t.Fatal(err)
		}
		if got := kinds.Of(c.path); got != c.want {
			t.Errorf("%q is %v, want %v", c.path, got, c.want)
		}
	}
	for _, bad := range [][]KindRule{{{"video", []string{".ts"}}}, {{"media", nil}}, {{"media", []string{".ts"}}, {"other", []string{".TS"}}}} {
		if _, err := NewKinds(bad); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
}

func TestCutToken(t *testing.T) {
	other := guard.DeriveID("user", "", "other")
	tok, tok2 := "~"+id.String(), "~"+other.String()
	for _, c := range []struct {
		path, clean string
		found       bool
	}{
		{"/a/b.m3u8", "/a/b.m3u8", false},
		{"/a/" + tok + "/b.m3u8", "/a/b.m3u8", true},
		{"/" + tok + "/b.m3u8", "/b.m3u8", true},
		{"/a/" + tok + "/x/y.ts", "/a/x/y.ts", true},
		{"/a/" + strings.ToUpper(tok) + "/b", "/a/b", true},
		{"/a/" + tok + "/" + tok2 + "/b", "/a/b", true},
		{"/a/" + tok, "/a", true},
		{"/a/%7E" + id.String() + "/b", "/a/b", true},
		{"/a/%7e" + id.String() + "/b", "/a/b", true},
		{"/a/~user/b", "/a/~user/b", false},
		{"/a/~~" + id.String() + "/b", "/a/~~" + id.String() + "/b", false},
		{"/a/~" + id.String()[1:] + "/b", "/a/~" + id.String()[1:] + "/b", false},
		{"/a/~" + strings.Replace(id.String(), "-", "z", 1) + "/b", "/a/~" + strings.Replace(id.String(), "-", "z", 1) + "/b", false},
	} {
		clean, got, found := CutToken(c.path)
		if clean != c.clean || found != c.found || found && got != id {
			t.Errorf("CutToken(%q) = %q, %v, %v", c.path, clean, got, found)
		}
	}
}

// A player that follows the location and resolves what it finds there asks for
// paths that CutToken turns back into the origin's own.
func TestTokenLocationIsUndoneByCutToken(t *testing.T) {
	for _, request := range []string{
		"/a/master.m3u8", "/master.m3u8?x=1&y=%2F", "/a%20b/m%C3%A4.m3u8", "/a/b:c.mpd?", "/a/%7E/x.m3u8",
	} {
		u, err := url.Parse("http://h" + request)
		if err != nil {
			t.Fatal(err)
		}
		location := TokenLocation(u.EscapedPath(), u.RawQuery, id)
		target, err := u.Parse(location)
		if err != nil {
			t.Fatal(err)
		}
		clean, got, found := CutToken(target.EscapedPath())
		if !found || got != id || clean != u.EscapedPath() || target.RawQuery != u.RawQuery {
			t.Errorf("%s → %s → %s (%v)", request, location, clean, found)
		}
		segment, _ := target.Parse("v/1.ts")
		want, _ := u.Parse("v/1.ts")
		if clean, _, _ := CutToken(segment.EscapedPath()); clean != want.EscapedPath() {
			t.Errorf("segment of %s is %s, want %s", request, clean, want)
		}
	}
}

func TestExplicitID(t *testing.T) {
	for _, c := range []struct {
		query, header string
		found         bool
	}{
		{"", "", false},
		{"guard=" + id.String(), "", true},
		{"x=1&guard=" + strings.ToUpper(id.String()), "", true},
		{"", id.String(), true},
		{"guard=nonsense", id.String(), true},
		{"guard=nonsense", "nonsense", false},
		{"guard=", "", false},
	} {
		r := httptest.NewRequest("GET", "/a.ts?"+c.query, nil)
		r.Header.Set("Stream-Guard-Id", c.header)
		if got, found := ExplicitID(r); found != c.found || found && got != id {
			t.Errorf("query %q, header %q: %v, %v", c.query, c.header, got, found)
		}
	}
}

func TestPrimaryID(t *testing.T) {
	for query, want := range map[string]string{
		"_HLS_primary_id=3F2504E0-4F89-41D3-9A0C-0305E82C3301":                "3F2504E0-4F89-41D3-9A0C-0305E82C3301",
		"a=1&_HLS_primary_id=a%2Bb+c&_HLS_start_offset=3":                     "a+b c",
		"_HLS_primary_id=a&_HLS_primary_id=b":                                 "a",
		"_HLS_primary_id=" + strings.Repeat("a", 64):                          strings.Repeat("a", 64),
		"_HLS_primary_id=" + strings.Repeat("%61", 64):                        strings.Repeat("a", 64),
		"_HLS_primary_id=" + strings.Repeat("a", 65):                          "",
		"_HLS_primary_id=%zz":                                                 "",
		"_HLS_primary_id=":                                                    "",
		"_hls_primary_id=a&x_HLS_primary_id=a&_HLS_interstitial_id=a&_HLS_pr": "",
		"": "",
	} {
		if got := PrimaryID(&http.Request{URL: &url.URL{RawQuery: query}}); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}

func sidOf(r *http.Request) string { return string(CMCDSessionID(nil, r)) }

func TestCMCD(t *testing.T) {
	for _, c := range []struct{ name, data, sid, cid string }{
		{"hls.js", `br=3200,bl=21300,cid="movie",d=4004,mtp=25400,ot=v,sf=h,sid="6e2fb550-c457-11e9-bb97-0800200c9a66",st=v,su,tb=6000`, "6e2fb550-c457-11e9-bb97-0800200c9a66", "movie"},
		{"version 2", `br=(5000;v 128;a),e=t,sid="s",sta=p,ts=1700000000000,v=2`, "s", ""},
		{"custom key", `com.example-hello="world",sid="s"`, "s", ""},
		{"escapes", `sid="a\"b"`, `a"b`, ""},
		{"last one counts", `sid="a",sid="b"`, "b", ""},
		{"unterminated", `sid="a`, "", ""},
		{"not a string", `sid=a`, "", ""},
		{"a list", `sid=("a" "b")`, "", ""},
		{"a flag", `sid`, "", ""},
		{"empty", `sid=""`, "", ""},
		{"64 characters", `sid="` + strings.Repeat("x", 64) + `"`, strings.Repeat("x", 64), ""},
		{"65 characters", `sid="` + strings.Repeat("x", 65) + `",cid="c"`, "", "c"},
		{"last one counts, whatever it is", `sid="a",sid=b`, "", ""},
		{"last one counts, empty", `sid="a",sid="",cid="c"`, "", "c"},
		{"unterminated beside", `sid="a",cid="b`, "", ""},
		{"not ASCII", `sid="é"`, "", ""},
		{"not UTF-8", "sid=\"\xff\"", "", ""},
		{"not UTF-8 beside", "sid=\"a\",cid=\"\xff\"", "", ""},
		{"16 KB", `sid="a",nor="` + strings.Repeat("x", 16<<10) + `"`, "", ""},
		{"16 KB of sid", `sid="` + strings.Repeat("x", 16<<10), "", ""},
		{"none", ``, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			query := httptest.NewRequest("GET", "/a.ts?x=1&CMCD="+url.QueryEscape(c.data)+"&y=1", nil)
			header := httptest.NewRequest("GET", "/a.ts", nil)
			header.Header.Set("CMCD-Session", c.data)
			for _, r := range []*http.Request{query, header} {
				if sid, cid := sidOf(r), string(CMCDContentID(nil, r)); sid != c.sid || cid != c.cid {
					t.Errorf("%s %v: sid %q, cid %q, want %q and %q", r.URL, r.Header, sid, cid, c.sid, c.cid)
				}
			}
		})
	}
	split := httptest.NewRequest("GET", "/a.ts", nil)
	split.Header["Cmcd-Session"] = []string{`sid="s"`, `cid="c"`}
	if sid, cid := sidOf(split), string(CMCDContentID(nil, split)); sid != "s" || cid != "c" {
		t.Errorf("header on two lines: %q, %q", sid, cid)
	}
	for _, broken := range []string{"CMCD=sid%3D%22a%2", "CMCD=sid%3D%22a%zz%22", "CMCD=", "CMCD", "XCMCD=sid%3D%22a%22"} {
		if sid := sidOf(httptest.NewRequest("GET", "/a.ts?"+broken, nil)); sid != "" {
			t.Errorf("%s: sid %q", broken, sid)
		}
	}
}

// Renditions, audio, subtitles, init segments and parts of one title are one
// stream, other titles are others.
func TestStreamPresets(t *testing.T) {
	dir2 := func(p string) string { return Dir(p, 2) }
	for _, c := range []struct {
		name string
		of   func(string) string
		want string
		path []string
	}{
		{"dir 2", dir2, "vod/alien", []string{
			"/vod/alien/master.m3u8", "/vod/alien/1080p/7.m4s", "/vod/alien/audio/en/init.mp4", "/vod/alien/subs/en.vtt",
		}},
		{"dir 2 with one directory", dir2, "alien", []string{"/alien/master.m3u8", "/alien/7.ts"}},
		{"dir 2 in the root", dir2, "alien", []string{"/alien.m3u8", "/alien-7.ts"}},
		{"dir 2 of a root that is the title's", dir2, "/", []string{"/index.m3u8", "/7.ts", "/", ""}},
		{"a folder with its own name in it", dir2, "alien", []string{"/alien/alien.mpd", "/alien/alien_720p.m3u8", "/alien/init-stream0.m4s", "/alien/chunk-stream0-00001.m4s"}},
		{"a folder for all", dir2, "hls/ch1", []string{"/hls/ch1.m3u8", "/hls/ch1-1.ts", "/hls/ch1_hi.m3u8", "/hls/ch1_hi-7.ts", "/hls/ch1/index.m3u8", "/hls/ch1/7.ts"}},
		{"dir 3 with two directories", func(p string) string { return Dir(p, 3) }, "live/alien", []string{"/live/alien/index.m3u8", "/live/alien/seg-7-v1-a1.ts"}},
		{"dir 3 of a folder for all", func(p string) string { return Dir(p, 3) }, "live/tv/ch1", []string{"/live/tv/ch1.m3u8", "/live/tv/ch1-7.ts"}},
		{"dir 1", func(p string) string { return Dir(p, 1) }, "alien", []string{"/alien/m.mpd", "/alien/a/b/c.m4s"}},
		{"name", Name, "movie", []string{
			"/movie.m3u8", "/movie.mpd", "/movie-00012.ts", "/movie_00012.ts", "/movie.12.ts", "/movie_720p.m3u8", "/movie_720p_00012.m4s",
			"/movie-init.mp4", "/movie-init-stream0.m4s", "/movie-chunk-stream0-00001.m4s", "/movie_audio_eng_7.aac", "/movie-1280x720.m3u8",
			"/movie_v1.m3u8", "/movie.hd.part3.mp4", "/movie_800k.ts", "/movie_subs_deu.vtt", "/movie-h264-3000kbps-7.m4s",
			"/movie_hi.m3u8", "/movie_hd720-7.ts", "/movie_src-7.ts", // nginx-rtmp-module
			"/movie_adaptive.m3u8", "/movie_480p800kbps000000007.ts", // Ant Media
			"/movie_dashinit.mp4", "/movie_track1_dash7.m4s", // GPAC
			"/movie_720p_I-Frame.m3u8", "/movie_720p_00001.ts", // AWS Elemental
			"/movie_iframes.m3u8", "/movie_audio_en.m3u8", "/movie_de.vtt",
		}},
		{"name in a directory", Name, "live/bbc-one", []string{"/live/bbc-one.m3u8", "/live/bbc-one-hd-7.ts"}},
	} {
		for _, p := range c.path {
			if got := c.of(p); got != c.want {
				t.Errorf("%s: %s is %q, want %q", c.name, p, got, c.want)
			}
		}
	}
	// With nothing configured, whatever a packager of one of these layouts calls the files of a title.
	for layout, files := range map[string]string{
		"FFmpeg, -f hls":             "index.m3u8 index0.ts index17.ts",
		"FFmpeg, stream_%v":          "master.m3u8 stream_0.m3u8 stream_1.m3u8 stream_07.ts stream_1_007.m4s init_0.mp4",
		"FFmpeg, data%02d":           "playlist.m3u8 data00.ts out.m3u8 out7.ts file000.ts",
		"FFmpeg, -f dash":            "manifest.mpd init-stream0.m4s chunk-stream0-00001.m4s media_0.m3u8",
		"Apple":                      "all.m3u8 prog_index.m3u8 fileSequence7.ts iframe_index.m3u8",
		"MediaMTX":                   "index.m3u8 main_stream.m3u8 video1_stream.m3u8 audio2_stream.m3u8 0a1b2c3d4e5f_main_seg7.ts 0a1b2c3d4e5f_video1_init.mp4 0a1b2c3d4e5f_video1_part9.mp4",
		"nginx-rtmp, hls_nested":     "index.m3u8 0.ts 1764201600000.ts",
		"nginx-vod-module":           "master.m3u8 index-v1-a1.m3u8 seg-7-v1-a1.ts init-v1-a1.mp4",
		"Flussonic":                  "index.m3u8 video.m3u8 mono.m3u8",
		"Wowza":                      "playlist.m3u8 chunklist_w1402183.m3u8 chunklist_b800000.m3u8 media_w1402183_7.ts",
		"Nimble":                     "playlist.m3u8 chunks.m3u8",
		"OvenMediaEngine":            "llhls.m3u8 ts:playlist.m3u8",
		"Bento4, Shaka Packager":     "stream.mpd master.m3u8 h264_1080p.mp4 audio_en.mp4 video-1.m4s",
		"Unified Streaming, its own": ".mpd .m3u8",
	} {
		for file := range strings.FieldsSeq(files) {
			if got := dir2("/alien/" + file); got != "alien" {
				t.Errorf("%s: /alien/%s is %q", layout, file, got)
			}
		}
	}
	// Titles that share a folder.
	for layout, titles := range map[string][2]string{
		"nginx-rtmp, SRS":  {"/hls/ch1.m3u8 /hls/ch1-1.ts /hls/ch1-1764201600000.ts", "/hls/ch2.m3u8 /hls/ch2-1.ts"},
		"SRS":              {"/live/livestream.m3u8 /live/livestream-0.ts", "/live/other.m3u8 /live/other-0.ts"},
		"Ant Media":        {"/streams/alien.m3u8 /streams/alien_adaptive.m3u8 /streams/alien_480p800kbps000000007.ts", "/streams/heat.m3u8"},
		"numbered":         {"/hls/channel_1.m3u8 /hls/channel_1_00007.ts /hls/channel_1-7.ts /hls/channel_1_720p.m3u8", "/hls/channel_2.m3u8 /hls/channel_2-7.ts"},
		"episodes":         {"/tv/show-1x01.m3u8 /tv/show-1x01-7.ts /tv/show-1x01_720p_00007.m4s", "/tv/show-1x02.m3u8 /tv/show-1x02-7.ts"},
		"names of numbers": {"/hls/bbc-2.m3u8 /hls/bbc-2_hi-7.ts /hls/bbc-2.7.ts", "/hls/bbc-4.m3u8 /hls/bbc-4-7.ts"},
		"in the root":      {"/channel_1.m3u8 /channel_1-7.ts", "/channel_2.m3u8 /channel_2-7.ts"},
	} {
		for preset, of := range map[string]func(string) string{"dir 2": dir2, "name": Name} {
			streams := make(map[string]bool)
			for i, paths := range titles {
				for p := range strings.FieldsSeq(paths) {
					if got, first := of(p), of(strings.Fields(titles[i])[0]); got != first {
						t.Errorf("%s, %s: %s is %q, want %q", layout, preset, p, got, first)
					}
					streams[of(p)] = true
				}
			}
			if len(streams) != 2 {
				t.Errorf("%s, %s: two titles are %v", layout, preset, streams)
			}
		}
	}
	for a, b := range map[string]string{"/alien-2.m3u8": "/predator-2.m3u8", "/2001.m3u8": "/1984.m3u8", "/-1.ts": "/-x.ts"} {
		if Name(a) == Name(b) {
			t.Errorf("%s and %s are one stream, %q", a, b, Name(a))
		}
	}
	re := regexp.MustCompile(`^/v1/([a-z]+)/`)
	if got := Match("/v1/alien/7.ts", re); got != "alien" {
		t.Errorf("match: %q", got)
	}
	if got := Match("/v2/alien/7.ts", re); got != "" {
		t.Errorf("no match: %q", got)
	}
	if got := Match("/x/alien", regexp.MustCompile(`[^/]+$`)); got != "alien" {
		t.Errorf("match without a group: %q", got)
	}
}

func TestLabelFitsAndStaysDistinct(t *testing.T) {
	long := strings.Repeat("x", 300)
	a, b := Label(long+"a"), Label(long+"b")
	if len(a) != guard.MaxLabel || a == b || Label("short") != "short" || Label(long[:255]) != long[:255] {
		t.Errorf("%d bytes, %q, %q", len(a), a, b)
	}
}

func TestCheckUser(t *testing.T) {
	for user, ok := range map[string]bool{
		"alice": true, "日本": true, "a b": true, strings.Repeat("x", 256): true,
		"": false, strings.Repeat("x", 257): false, "a\nb": false, "a\x00": false, "a\u0085": false, "\x7f": false,
	} {
		if err := CheckUser(user); (err == nil) != ok {
			t.Errorf("CheckUser(%q): %v", user, err)
		}
	}
}

// The scanner says what the library says, wherever it says anything.
func FuzzCMCD(f *testing.F) {
	for _, s := range []string{
		`sid="a"`, `sid="a`, `br=(5000;v 128;a),sid="s"`, `sid=1,cid`, "sid=\"\\", "\xff", `sid="a",sid`, `sid="a",sid=b`, `a,`, `,a`, `a=,b`, `a=1.5`,
		`a=1234567890123456`, `a=-1`, `*a=*b`, `a=?1`, `a=:YQ==:`, `a;b=1`, `a="" , b`, `A=1`, `a=%`, `su,sid="x y",ot=v,d=4004,cid="c"`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, key := range []string{"sid", "cid"} {
			if len(s) > maxCMCD {
				continue
			}
			want := parse([]string{s}, key)
			if got, ok := scan(s, key, false); ok && got != want {
				t.Errorf("%q: %s is %q, the library says %q", s, key, got, want)
			}
			if unescaped, err := url.QueryUnescape(s); err == nil {
				if got, ok := scan(s, key, true); ok && got != parse([]string{unescaped}, key) {
					t.Errorf("%q: %s is %q, the library says %q", unescaped, key, got, parse([]string{unescaped}, key))
				}
			} else if got, ok := scan(s, key, true); ok {
				t.Errorf("%q is broken, but %s is %q", s, key, got)
			}
			r := &http.Request{URL: &url.URL{RawQuery: "CMCD=" + url.QueryEscape(s)}}
			if got := string(cmcd(nil, r, key, maxCMCD)); got != want {
				t.Errorf("%q in a query: %s is %q, the library says %q", s, key, got, want)
			}
		}
		sidOf(&http.Request{URL: &url.URL{RawQuery: s}})
	})
}

// What players send takes the way without the library.
func TestScanKnowsWhatPlayersSend(t *testing.T) {
	for _, s := range []string{
		`br=3200,bl=21300,cid="movie",d=4004,mtp=25400,ot=v,sf=h,sid="6e2fb550-c457-11e9-bb97-0800200c9a66",st=v,su,tb=6000`,
		`cid="a b",nor="..%2F300kbps%2Fsegment35.m4v",nrr="12323-48763",pr=0,rtp=15000,sid="s",v=2`,
	} {
		if sid, ok := scan(s, "sid", false); !ok || sid == "" {
			t.Errorf("%s: %q, %v", s, sid, ok)
		}
		if sid, ok := scan(url.QueryEscape(s), "sid", true); !ok || sid == "" {
			t.Errorf("%s in a query: %q, %v", s, sid, ok)
		}
	}
}

func FuzzCutToken(f *testing.F) {
	for _, s := range []string{"/a/~" + id.String() + "/b", "/~" + id.String() + "/~" + id.String(), "~", "/~/", "/~~" + id.String()} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		clean, _, found := CutToken(s)
		if !found && clean != s {
			t.Errorf("CutToken(%q) = %q without a token", s, clean)
		}
		if _, _, again := CutToken(clean); again {
			t.Errorf("CutToken(%q) = %q left a token", s, clean)
		}
	})
}

func FuzzStream(f *testing.F) {
	for _, s := range []string{"/vod/alien/7.ts", "//", "/a", "", "/-_.-", "/movie_720p-00012.ts"} {
		f.Add(s)
	}
	kinds, err := NewKinds(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, stream := range []string{Dir(s, 1), Dir(s, 2), Name(s)} {
			if len(Label(stream)) > guard.MaxLabel {
				t.Errorf("%q: stream of %d bytes", s, len(Label(stream)))
			}
		}
		kinds.Of(s)
	})
}
