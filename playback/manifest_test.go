package playback

import (
	"fmt"
	"html"
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
		{"relative URLs stay", "/a/TOK/b/m.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:2\nv/1.ts\n../x/2.ts?a=/b/c.ts\n#EXT-X-MAP:URI=\"init.mp4\"\n", ""},
		{"absolute paths", "/a/m.m3u8", "#EXTM3U\r\n/v/1.ts?x=/y\r\n", "#EXTM3U\r\n/v/TOK/1.ts?x=/y\r\n"},
		{"same host", "/a/m.m3u8", "#EXT-X-VERSION:3\nhttps://CDN.example:8443/v/1.ts#f\n//cdn.example:8443/2.ts", "#EXT-X-VERSION:3\nhttps://CDN.example:8443/v/TOK/1.ts#f\n//cdn.example:8443/TOK/2.ts"},
		{"other host", "/a/m.m3u8", "#EXT-X-VERSION:3\nhttps://cdn.example/v/1.ts\nhttps://other:8443/v/1.ts\ndata:video/mp4;base64,AA/1.ts\n", ""},
		{"attributes", "/a/m.m3u8", `#EXT-X-MEDIA:TYPE=AUDIO,URI="/a/audio.m3u8",NAME="/x.ts"` + "\n" + `#EXT-X-MAP:URI="/a/init.mp4",BYTERANGE="1@0"`,
			`#EXT-X-MEDIA:TYPE=AUDIO,URI="/a/TOK/audio.m3u8",NAME="/x.ts"` + "\n" + `#EXT-X-MAP:URI="/a/TOK/init.mp4",BYTERANGE="1@0"`},
		{"keys are not ours", "/a/m.m3u8", `#EXT-X-KEY:METHOD=AES-128,URI="/keys/1.key"`, ""},
		{"token already there", "/a/m.m3u8", "/v/TOK/1.ts", ""},
		{"broken URL", "/a/m.m3u8", "#EXT-X-VERSION:3\n/v/%zz.ts\nhttp://[::1/1.ts", ""},
		{"DASH", "/a/m.MPD",
			`<MPD><Location>https://cdn.example:8443/a/m.mpd?x=1&amp;y=2</Location><BaseURL serviceLocation="a">/v/</BaseURL><Period><SegmentTemplate media="/v/$RepresentationID$/$Number$.m4s" initialization="init.mp4"/></Period></MPD>`,
			`<MPD><Location>https://cdn.example:8443/a/TOK/m.mpd?x=1&amp;y=2</Location><BaseURL serviceLocation="a">/v/TOK/</BaseURL><Period><SegmentTemplate media="/v/$RepresentationID$/TOK/$Number$.m4s" initialization="init.mp4"/></Period></MPD>`},
		{"DASH without a base", "/a/m.mpd", `<MPD><Period id="1"><BaseURL>x/</BaseURL></Period><Period id="2"/></MPD>`,
			`<MPD><BaseURL>./</BaseURL><Period id="1"><BaseURL>x/</BaseURL></Period><Period id="2"/></MPD>`},
		{"DASH with a namespace", "/a/m.mpd", `<d:MPD><d:Period></d:Period></d:MPD>`, `<d:MPD><d:BaseURL>./</d:BaseURL><d:Period></d:Period></d:MPD>`},
		{"over the token", "/s/a/TOK/m.m3u8",
			"../x/1.ts?a=../b\n./../../../1.ts\nv/../2.ts\nv/../../2.ts\n#EXT-X-KEY:URI=\"../1.key\"\n",
			"../../x/TOK/1.ts?a=../b\n.././../../../TOK/1.ts\nv/../2.ts\n../v/../../TOK/2.ts\n#EXT-X-KEY:URI=\"../../TOK/1.key\"\n"},
		{"over the token from below", "/a/TOK/v/m.m3u8", "#EXT-X-VERSION:3\n../x/1.ts\n../../x/1.ts", "#EXT-X-VERSION:3\n../x/1.ts\n../../../x/TOK/1.ts"},
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
		{"variables", "/a/TOK/m.m3u8",
			"#EXT-X-DEFINE:NAME=\"host\",VALUE=\"cdn.example:8443\"\n#EXT-X-DEFINE:VALUE=\"v/x\",NAME=\"dir\"\n#EXT-X-DEFINE:NAME=\"all\",VALUE=\"https://{$host}/{$dir}\"\n" +
				"https://{$host}/{$dir}/1.ts\n{$all}/2.ts?a={$dir}\n{$dir}/3.ts\n../{$dir}/4.ts\nhttps://o{$host}/5.ts\n#EXT-X-MAP:URI=\"{$all}/init.mp4\"\n#EXT-X-KEY:URI=\"{$all}/1.key\"\n",
			"#EXT-X-DEFINE:NAME=\"host\",VALUE=\"cdn.example:8443\"\n#EXT-X-DEFINE:VALUE=\"v/x\",NAME=\"dir\"\n#EXT-X-DEFINE:NAME=\"all\",VALUE=\"https://{$host}/{$dir}\"\n" +
				"https://cdn.example:8443/v/x/TOK/1.ts\nhttps://cdn.example:8443/v/x/TOK/2.ts?a=v/x\n{$dir}/3.ts\n../../v/x/TOK/4.ts\nhttps://o{$host}/5.ts\n#EXT-X-MAP:URI=\"https://cdn.example:8443/v/x/TOK/init.mp4\"\n#EXT-X-KEY:URI=\"{$all}/1.key\"\n"},
		{"a variable that may be imported", "/a/TOK/m.m3u8",
			"#EXT-X-DEFINE:NAME=\"a\",VALUE=\"https://cdn.example:8443/v/x\"\n#EXT-X-DEFINE:NAME=\"b\",VALUE=\"https://cdn.example:8443/v/\"\n#EXT-X-DEFINE:NAME=\"c\",VALUE=\"https://other/v/x\"\n{$a}/1.m3u8\n{$b}2.m3u8\n{$c}/3.m3u8\n",
			"#EXT-X-DEFINE:NAME=\"a\",VALUE=\"https://cdn.example:8443/v/TOK/x\"\n#EXT-X-DEFINE:NAME=\"b\",VALUE=\"https://cdn.example:8443/v/TOK/\"\n#EXT-X-DEFINE:NAME=\"c\",VALUE=\"https://other/v/x\"\n{$a}/1.m3u8\n{$b}2.m3u8\n{$c}/3.m3u8\n"},
		{"a variable in front of which a proxy may have a folder", "/a/TOK/m.m3u8",
			"#EXT-X-DEFINE:NAME=\"a\",VALUE=\"https://cdn.example:8443/v\"\n{$a}/x/1.m3u8\n",
			"#EXT-X-DEFINE:NAME=\"a\",VALUE=\"https://cdn.example:8443/v\"\nhttps://cdn.example:8443/v/x/TOK/1.m3u8\n"},
		{"variables of the query", "/a/TOK/m.m3u8", "#EXT-X-DEFINE:QUERYPARAM=\"cdn\"\n#EXT-X-DEFINE:QUERYPARAM=\"auth\"\n{$cdn}/v/1.ts?auth={$auth}\n1.ts?auth={$auth}\n",
			"#EXT-X-DEFINE:QUERYPARAM=\"cdn\"\n#EXT-X-DEFINE:QUERYPARAM=\"auth\"\nhttps://cdn.example:8443/v/TOK/1.ts?auth=1\n1.ts?auth={$auth}\n"},
		{"variables that are not known", "/s/a/TOK/m.m3u8", "#EXT-X-DEFINE:IMPORT=\"base\"\n{$base}/1.ts\n{$base}/../../2.ts\n#EXT-X-DEFINE:NAME=\"me\",VALUE=\"{$me}/\"\n{$me}1.ts\n{$late}/1.ts\n#EXT-X-DEFINE:NAME=\"late\",VALUE=\"/v\"\n", ""},
		{"DASH in CDATA", "/a/TOK/m.mpd", "<MPD><BaseURL><![CDATA[https://cdn.example:8443/v/?a=1&b=2]]></BaseURL><Period><BaseURL> <![CDATA[x/]]> </BaseURL></Period></MPD>",
			"<MPD><BaseURL>https://cdn.example:8443/v/TOK/?a=1&amp;b=2</BaseURL><Period><BaseURL> x/ </BaseURL></Period></MPD>"},
		{"DASH with markup in CDATA", "/a/TOK/m.mpd", "<MPD><BaseURL>v/</BaseURL><Period><Event><![CDATA[<!-- <a media='/1.ts'/>]]></Event><!-- <![CDATA[ --><S media='/2.ts'/><b media='/2.ts'/></Period></MPD>",
			"<MPD><BaseURL>v/</BaseURL><Period><Event>&lt;!-- &lt;a media=&apos;/1.ts&apos;/&gt;</Event><S media='/2.ts'/><b media='/TOK/2.ts'/></Period></MPD>"},
		{"DASH with CDATA in CDATA", "/a/TOK/m.mpd", "<MPD><BaseURL><![CDATA[<![CDATA[/v/]]>]]></BaseURL><Period/></MPD>", "<MPD><BaseURL>&lt;![CDATA[/v/]]></BaseURL><Period/></MPD>"},
		{"DASH with references to characters", "/s/a/TOK/m.mpd",
			"<MPD><BaseURL>&#104;ttps:&#x2F;&#47;cdn.example:8443/v/?a=1&#38;b=&lt;&apos;&copy=</BaseURL><Period><SegmentTemplate media='&#47;v/$Number$.m4s' initialization='x/&#105;.mp4'/></Period></MPD>",
			"<MPD><BaseURL>https://cdn.example:8443/v/TOK/?a=1&amp;b=&lt;&apos;&amp;copy=</BaseURL><Period><SegmentTemplate media='/v/TOK/$Number$.m4s' initialization='x/&#105;.mp4'/></Period></MPD>"},
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
		got := string(kinds.AddToken([]byte(in), Place{path, "cdn=https%3A%2F%2Fcdn.example%3A8443&auth=1", []string{"backend", "cdn.example:8443"}}, id))
		if got != want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, want)
		}
		if again := string(kinds.AddToken([]byte(got), Place{path, "cdn=https%3A%2F%2Fcdn.example%3A8443&auth=1", []string{"backend", "cdn.example:8443"}}, id)); again != got {
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
		if got := string(kinds.AddToken([]byte(ref), Place{Path: "/m.m3u8", Hosts: []string{host}}, id)); !strings.Contains(got, tok) {
			t.Errorf("%s of %s has no token", got, host)
		}
		if got := string(kinds.AddToken([]byte(ref), Place{Path: "/m.m3u8", Hosts: []string{host + "0"}}, id)); got != ref {
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
				{"HLS", resolve(base+".m3u8", string(kinds.AddToken([]byte(ref), Place{Path: base + ".m3u8"}, id)))},
				{"DASH", func() string {
					mpd := kinds.AddToken([]byte(`<MPD><Period><SegmentURL media="`+ref+`"/></Period></MPD>`), Place{Path: base + ".mpd"}, id)
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
		if strings.Contains(manifest, token) || strings.Contains(manifest, "<!") || strings.Contains(manifest, "{$") || hasToken(path) {
			return
		}
		got := string(kinds.AddToken([]byte(manifest), Place{Path: path, Hosts: []string{"h"}}, id))
		// Take out what was added and the manifest is as it was.
		plain := func(s string) string { return reference.ReplaceAllStringFunc(s, html.UnescapeString) }
		bare, manifest := plain(strings.ReplaceAll(got, token, "")), plain(manifest)
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
				kinds.AddToken(manifest, Place{Path: "/a/~" + id.String() + "/m." + m.name}, id)
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
			edited := kinds.AddToken(manifest, Place{Path: "/a/" + token + "/m"}, id)
			if small := size == MaxManifest/100; (edited != nil) != small || len(edited) > MaxManifest || small && len(edited) <= len(manifest) {
				t.Errorf("%s: %d bytes became %d", name, len(manifest), len(edited))
			}
		}
	}
}

// Variables do not make more of a playlist than it may become.
func TestVariablesAreBounded(t *testing.T) {
	kinds, err := NewKinds(nil)
	if err != nil {
		t.Fatal(err)
	}
	var many, doubling strings.Builder
	for n := range 10_000 {
		fmt.Fprintf(&many, "#EXT-X-DEFINE:NAME=\"v%d\",VALUE=\"/v%d\"\n{$v%d}/1.ts\n", n, n, n)
	}
	doubling.WriteString("#EXT-X-DEFINE:NAME=\"v0\",VALUE=\"/v\"\n")
	for n := range 100 {
		fmt.Fprintf(&doubling, "#EXT-X-DEFINE:NAME=\"v%d\",VALUE=\"{$v%d}{$v%d}\"\n", n+1, n, n)
	}
	doubling.WriteString(strings.Repeat("{$v12}{$v12}{$v99}/1.ts\n", 10_000))
	wide := "#EXT-X-DEFINE:NAME=\"v\",VALUE=\"/" + strings.Repeat("v", maxVariable/2) + "\"\n" + strings.Repeat("{$v}/1.ts\n", 100_000)
	at := Place{Path: "/a/~" + id.String() + "/m.m3u8"}
	if edited := string(kinds.AddToken([]byte(many.String()), at, id)); strings.Count(edited, "/~") != 10_000 {
		t.Errorf("%d of 10000 have the token", strings.Count(edited, "/~"))
	}
	if edited := kinds.AddToken([]byte(doubling.String()), at, id); string(edited) != doubling.String() {
		t.Errorf("%d bytes became %d", doubling.Len(), len(edited))
	}
	if edited := kinds.addToken([]byte(wide), at, id); len(edited) > 2*MaxManifest {
		t.Errorf("%d bytes became %d", len(wide), len(edited))
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
