package playback

import (
	"net/url"
	"regexp"
	"strings"
	"testing"
)

func TestAddToken(t *testing.T) {
	kinds, err := NewKinds(nil)
	if err != nil {
		t.Fatal(err)
	}
	tok := "~" + id.String()
	for _, c := range []struct{ name, path, in, out string }{
		{"relative URLs stay", "/a/TOK/b/m.m3u8", "#EXTM3U\nv/1.ts\n../x/2.ts?a=/b/c.ts\n#EXT-X-MAP:URI=\"init.mp4\"\n", ""},
		{"absolute paths", "/a/m.m3u8", "#EXTM3U\r\n/v/1.ts?x=/y\r\n", "#EXTM3U\r\n/v/TOK/1.ts?x=/y\r\n"},
		{"same host", "/a/m.m3u8", "https://CDN.example:8443/v/1.ts#f\n//cdn.example:8443/2.ts", "https://CDN.example:8443/v/TOK/1.ts#f\n//cdn.example:8443/TOK/2.ts"},
		{"other host", "/a/m.m3u8", "https://cdn.example/v/1.ts\nhttps://other:8443/v/1.ts\ndata:video/mp4;base64,AA/1.ts\n", ""},
		{"attributes", "/a/m.m3u8", `#EXT-X-MEDIA:TYPE=AUDIO,URI="/a/audio.m3u8",NAME="/x.ts"` + "\n" + `#EXT-X-MAP:URI="/a/init.mp4",BYTERANGE="1@0"`,
			`#EXT-X-MEDIA:TYPE=AUDIO,URI="/a/TOK/audio.m3u8",NAME="/x.ts"` + "\n" + `#EXT-X-MAP:URI="/a/TOK/init.mp4",BYTERANGE="1@0"`},
		{"keys are not ours", "/a/m.m3u8", `#EXT-X-KEY:METHOD=AES-128,URI="/keys/1.key"`, ""},
		{"token already there", "/a/m.m3u8", "/v/TOK/1.ts", ""},
		{"broken URL", "/a/m.m3u8", "/v/%zz.ts\nhttp://[::1/1.ts", ""},
		{"DASH", "/a/m.MPD",
			`<MPD><Location>https://cdn.example:8443/a/m.mpd?x=1&amp;y=2</Location><BaseURL serviceLocation="a">/v/</BaseURL><Period><SegmentTemplate media="/v/$RepresentationID$/$Number$.m4s" initialization="init.mp4"/></Period></MPD>`,
			`<MPD><Location>https://cdn.example:8443/a/TOK/m.mpd?x=1&amp;y=2</Location><BaseURL serviceLocation="a">/v/TOK/</BaseURL><Period><SegmentTemplate media="/v/$RepresentationID$/TOK/$Number$.m4s" initialization="init.mp4"/></Period></MPD>`},
		{"DASH without a base", "/a/m.mpd", `<MPD><Period id="1"><BaseURL>x/</BaseURL></Period><Period id="2"/></MPD>`,
			`<MPD><BaseURL>./</BaseURL><Period id="1"><BaseURL>x/</BaseURL></Period><Period id="2"/></MPD>`},
		{"DASH with a namespace", "/a/m.mpd", `<d:MPD><d:Period></d:Period></d:MPD>`, `<d:MPD><d:BaseURL>./</d:BaseURL><d:Period></d:Period></d:MPD>`},
		{"over the token", "/s/a/TOK/m.m3u8",
			"../x/1.ts?a=../b\n./../../../1.ts\nv/../2.ts\nv/../../2.ts\n#EXT-X-KEY:URI=\"../1.key\"\n",
			"../../x/TOK/1.ts?a=../b\n.././../../../TOK/1.ts\nv/../2.ts\n../v/../../TOK/2.ts\n#EXT-X-KEY:URI=\"../../TOK/1.key\"\n"},
		{"over the token from below", "/a/TOK/v/m.m3u8", "../x/1.ts\n../../x/1.ts", "../x/1.ts\n../../../x/TOK/1.ts"},
		{"DASH over the token", "/s/a&b/TOK/m.mpd",
			`<MPD><Location>../m.mpd</Location><Period xlink:href="../p.mpd"><SegmentTemplate media="../v/$Number%05d$.m4s" initialization="/i.mp4"/></Period></MPD>`,
			`<MPD><Location>../../TOK/m.mpd</Location><BaseURL>../../TOK/a&amp;b/</BaseURL><Period xlink:href="../../TOK/p.mpd"><SegmentTemplate media="../v/$Number%05d$.m4s" initialization="/TOK/i.mp4"/></Period></MPD>`},
		{"DASH over the token by a base in a base", "/s/a/TOK/m.mpd",
			`<MPD><BaseURL>v/</BaseURL><BaseURL>https://other/v/</BaseURL><Period><BaseURL>../../x/</BaseURL></Period></MPD>`,
			`<MPD><BaseURL>../../../TOK/s/a/v/</BaseURL><BaseURL>https://other/v/</BaseURL><Period><BaseURL>../../x/</BaseURL></Period></MPD>`},
		{"DASH over the token from below", "/s/a/TOK/v/m.mpd",
			`<MPD><Period><BaseURL>../../x.mp4</BaseURL></Period></MPD>`,
			`<MPD><BaseURL>../../../TOK/a/v/</BaseURL><Period><BaseURL>../../x.mp4</BaseURL></Period></MPD>`},
		{"DASH over the token in a base", "/a/TOK/m.mpd",
			`<MPD><BaseURL>https://cdn.example:8443/s/v/</BaseURL><Period><SegmentTemplate media="../x/1.m4s"/></Period><Period><BaseURL>/</BaseURL></Period></MPD>`,
			`<MPD><BaseURL>https://cdn.example:8443/s/TOK/v/</BaseURL><Period><SegmentTemplate media="../x/1.m4s"/></Period><Period><BaseURL>/TOK/</BaseURL></Period></MPD>`},
		{"DASH up to the token", "/s/a/TOK/v/m.mpd", `<MPD><BaseURL>../x/</BaseURL><Period/></MPD>`, ""},
		{"a list of interstitials", "/a/TOK/m.m3u8", `#EXT-X-DATERANGE:ID="1",X-ASSET-LIST="../ads.json",X-ASSET-URI="/ad.m3u8"`,
			`#EXT-X-DATERANGE:ID="1",X-ASSET-LIST="../../TOK/ads.json",X-ASSET-URI="/TOK/ad.m3u8"`},
		{"steering is not ours", "/a/TOK/m.m3u8", `#EXT-X-CONTENT-STEERING:SERVER-URI="/steering/?a=/1.ts"`, ""},
		{"DASH in other quotes", "/s/a/TOK/m.mpd", `<MPD><Period><SegmentTemplate media = '../v/$Number$.m4s' index='/v/i.mp4'/></Period></MPD>`,
			`<MPD><BaseURL>../../TOK/a/</BaseURL><Period><SegmentTemplate media = '../v/$Number$.m4s' index='/v/TOK/i.mp4'/></Period></MPD>`},
		{"DASH with comments", "/a/TOK/m.mpd", "<!-- <MPD><Period> --><MPD><!-- <BaseURL>../../x/</BaseURL> --><Period/></MPD>", "<MPD><BaseURL>./</BaseURL><Period/></MPD>"},
		{"DASH with a space in a base", "/a/TOK/m.mpd", "<MPD><BaseURL>\n /a b/ </BaseURL><Period/></MPD>", "<MPD><BaseURL>\n /a b/TOK/ </BaseURL><Period/></MPD>"},
		{"DASH with a base named like its place", "/a/TOK/m.mpd", `<MPD><BaseURL serviceLocation="/a/">/a/</BaseURL><BaseURL/><Period/></MPD>`, `<MPD><BaseURL serviceLocation="/a/">/a/TOK/</BaseURL><BaseURL/><Period/></MPD>`},
		{"DASH whose queries do not climb", "/s/a/TOK/m.mpd", `<MPD><BaseURL>./</BaseURL><Period><SegmentURL media="1.mp4?a=../../.."/></Period></MPD>`, ""},
		{"DASH with an empty base", "/s/a/TOK/m.mpd", `<MPD><BaseURL/><BaseURL>v/</BaseURL><Period><BaseURL>../../x/</BaseURL></Period></MPD>`,
			`<MPD><BaseURL/><BaseURL>../../../TOK/s/a/v/</BaseURL><Period><BaseURL>../../x/</BaseURL></Period></MPD>`},
		{"DASH with a clock and steering", "/s/a/TOK/m.mpd",
			`<MPD><BaseURL>v/</BaseURL><UTCTiming value="../time"/><ContentSteering>../steering.json</ContentSteering><Period><Role value="main"/></Period></MPD>`,
			`<MPD><BaseURL>v/</BaseURL><UTCTiming value="../../TOK/time"/><ContentSteering>../../TOK/steering.json</ContentSteering><Period><Role value="main"/></Period></MPD>`},
		{"DASH over the token level by level", "/s/a/b/TOK/m.mpd",
			`<MPD><Period><BaseURL>../x/</BaseURL><AdaptationSet><BaseURL>../../y/</BaseURL></AdaptationSet></Period></MPD>`,
			`<MPD><BaseURL>../../../../TOK/s/a/b/</BaseURL><Period><BaseURL>../x/</BaseURL><AdaptationSet><BaseURL>../../y/</BaseURL></AdaptationSet></Period></MPD>`},
		{"a remote period", "/a/TOK/p.mpd", `<Period><BaseURL>v/</BaseURL></Period>`, ""},
		{"a patch", "/a/TOK/p.mpd", `<Patch><add sel="/MPD/Period" pos="after"><Period/></add></Patch>`, ""},
		{"DASH cut off", "/a/TOK/p.mpd", `<MPD><Period/><BaseURL>`, `<MPD><BaseURL>./</BaseURL><Period/><BaseURL>`},
		{"no manifest at all", "/a/m.mpd", `not found`, ""},
	} {
		in, want := strings.ReplaceAll(c.in, "TOK", tok), strings.ReplaceAll(c.out, "TOK", tok)
		if want == "" {
			want = in
		}
		path := strings.ReplaceAll(c.path, "TOK", tok)
		got := string(kinds.AddToken([]byte(in), path, "cdn.example:8443", id))
		if got != want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, want)
		}
		if again := string(kinds.AddToken([]byte(got), path, "cdn.example:8443", id)); again != got {
			t.Errorf("%s, twice:\n%s", c.name, again)
		}
	}
}

// A port that goes without saying makes no other host.
func TestPortsThatGoWithoutSaying(t *testing.T) {
	kinds, err := NewKinds(nil)
	if err != nil {
		t.Fatal(err)
	}
	tok := "~" + id.String() + "/"
	for ref, host := range map[string]string{
		"https://h:443/1.ts": "h", "https://h/1.ts": "h:443", "http://H:80/1.ts": "h", "https://[::1]:443/1.ts": "[::1]", "//h:443/1.ts": "h",
	} {
		if got := string(kinds.AddToken([]byte(ref), "/m.m3u8", host, id)); !strings.Contains(got, tok) {
			t.Errorf("%s of %s has no token", got, host)
		}
		if got := string(kinds.AddToken([]byte(ref), "/m.m3u8", host+"0", id)); got != ref {
			t.Errorf("%s of %s0 became %s", ref, host, got)
		}
	}
}

// A relative URL leads where it would without the token, and has it still.
func TestRelativeURLsLeadWhereTheyDid(t *testing.T) {
	kinds, err := NewKinds(nil)
	if err != nil {
		t.Fatal(err)
	}
	tok := "~" + id.String()
	resolve := func(base string, refs ...string) string {
		u, err := url.Parse("http://h" + base)
		for _, ref := range refs {
			if err == nil {
				u, err = u.Parse(ref)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		return u.EscapedPath()
	}
	for _, base := range []string{"/TOK/m", "/a/TOK/m", "/a/b/c/TOK/m", "/a/b/TOK/c/m", "/a/b/TOK/c/d/m"} {
		bare, _, _ := CutToken(base[:strings.Index(base, "TOK")] + tok + base[strings.Index(base, "TOK")+3:])
		base = strings.Replace(base, "TOK", tok, 1)
		for _, ref := range []string{"1.ts", "x/1.ts", "../1.ts", "../x/1.ts", "../../x/1.ts", "../../../1.ts", "./../.././1.ts", "x/../../1.ts", "x/y/../../../z/1.ts"} {
			want := resolve(bare+".m3u8", ref)
			for _, c := range []struct{ what, got string }{
				{"HLS", resolve(base+".m3u8", string(kinds.AddToken([]byte(ref), base+".m3u8", "h", id)))},
				{"DASH", func() string {
					mpd := kinds.AddToken([]byte(`<MPD><Period><SegmentURL media="`+ref+`"/></Period></MPD>`), base+".mpd", "h", id)
					return resolve(base+".mpd", string(ownBase.FindSubmatch(mpd)[1]), ref)
				}()},
			} {
				led, _, tokened := CutToken(c.got)
				// Where there is nothing further up, an MPD's URLs cannot keep it.
				if led != want || !tokened && c.what == "HLS" {
					t.Errorf("%s: %s in %s leads to %s, want %s with the token", c.what, ref, base, c.got, want)
				}
			}
		}
	}
}

func FuzzAddToken(f *testing.F) {
	f.Add("#EXTM3U\n/v/1.ts\n#EXT-X-MAP:URI=\"/init.mp4\"\n", "/m.m3u8")
	f.Add("<BaseURL>", "/m.mpd")
	f.Add(`<MPD><BaseURL>/v/</BaseURL><Period><SegmentTemplate media="/v/$Number$.m4s"/></Period></MPD>`, "/m.mpd")
	kinds, err := NewKinds(nil)
	if err != nil {
		f.Fatal(err)
	}
	token := "~" + id.String() + "/"
	f.Fuzz(func(t *testing.T, manifest, path string) {
		if strings.Contains(manifest, token) || strings.Contains(manifest, "<!--") || hasToken(path) {
			return
		}
		got := string(kinds.AddToken([]byte(manifest), path, "h", id))
		// Take out what was added and the manifest is as it was.
		bare := strings.ReplaceAll(got, token, "")
		if at := addedBase.FindStringIndex(bare); bare != manifest && (at == nil || bare[:at[0]]+bare[at[1]:] != manifest) {
			t.Errorf("%q became %q", manifest, got)
		}
	})
}

var (
	addedBase = regexp.MustCompile(`<(\w+:)?BaseURL>\./</(\w+:)?BaseURL>`)
	ownBase   = regexp.MustCompile(`<BaseURL>(.*?)<`)
)

// A live playlist, or MPD, of four hours comes again every two seconds.
func BenchmarkAddToken(b *testing.B) {
	kinds, err := NewKinds(nil)
	if err != nil {
		b.Fatal(err)
	}
	for _, m := range []struct{ name, head, segment, tail string }{
		{"m3u8", "#EXTM3U\n", "#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00Z\n#EXTINF:2.000,\nsegment-0000001.m4s\n", ""},
		{"absolute.m3u8", "#EXTM3U\n", "#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00Z\n#EXTINF:2.000,\n/a/segment-0000001.m4s\n", ""},
		{"mpd", "<MPD><Period><SegmentList>", "<SegmentURL media=\"segment-0000001.m4s\"/>\n", "</SegmentList></Period></MPD>"},
	} {
		b.Run(m.name, func(b *testing.B) {
			manifest := []byte(m.head + strings.Repeat(m.segment, 7200) + m.tail)
			b.SetBytes(int64(len(manifest)))
			for b.Loop() {
				kinds.AddToken(manifest, "/a/~"+id.String()+"/m."+m.name, "h", id)
			}
		})
	}
}

// What comes of a manifest is bounded like the manifest, whatever it is made of.
func TestWhatIsWrittenIntoAManifestIsBounded(t *testing.T) {
	kinds, err := NewKinds(nil)
	if err != nil {
		t.Fatal(err)
	}
	token := "~" + id.String()
	for name, c := range map[string]struct{ head, piece, tail string }{
		"lines":      {"", "../\n", ""},
		"attributes": {"#", `URI="/.ts"`, ""},
		"an MPD":     {"<MPD", ` index="/.ts"`, "></MPD>"},
	} {
		for _, size := range []int{MaxManifest / 100, MaxManifest * 3 / 10} {
			manifest := []byte(c.head + strings.Repeat(c.piece, size/len(c.piece)) + c.tail)
			edited := kinds.AddToken(manifest, "/a/"+token+"/m", "h", id)
			if small := size == MaxManifest/100; (edited != nil) != small || len(edited) > MaxManifest || small && len(edited) <= len(manifest) {
				t.Errorf("%s: %d bytes became %d", name, len(manifest), len(edited))
			}
		}
	}
}

func TestFirstTokenLocation(t *testing.T) {
	token := "~" + id.String()
	for path, want := range map[string]string{
		"/v/m.m3u8":                        "",
		"/v/TOK/m.m3u8":                    "",
		"/v/TOK/TOK/m.m3u8":                "../m.m3u8",
		"/v/TOK/x/TOK/TOK/y/m.m3u8":        "../../../y/m.m3u8",
		"/TOK/TOK//other.example/m.m3u8":   "../../..//other.example/m.m3u8",
		"/v/TOK/TOK":                       "./",
		"/v/TOK/%7E" + token[1:] + "/m%2F": "../m%2F",
	} {
		if want != "" {
			want += "?a=1"
		}
		if got := FirstTokenLocation(strings.ReplaceAll(path, "TOK", token), "a=1"); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}
