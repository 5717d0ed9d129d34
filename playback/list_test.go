package playback

import (
	"net/url"
	"strings"
	"testing"
)

// Whoever opens what a list names begins a playback of its own.
func TestListsLeadOutOfTheToken(t *testing.T) {
	kinds, err := NewKinds(nil)
	if err != nil {
		t.Fatal(err)
	}
	token := "~" + id.String()
	for _, c := range []struct{ name, path, in, out string }{
		{"relative", "/tv/TOK/list.m3u", "#EXTM3U\n#EXTINF:-1 tvg-logo=\"a.png\",A\na.m3u8\n#EXTINF:-1,B\nb/b.m3u8?x=../y\n",
			"#EXTM3U\n#EXTINF:-1 tvg-logo=\"a.png\",A\n../a.m3u8\n#EXTINF:-1,B\n../b/b.m3u8?x=../y\n"},
		{"climbing", "/tv/TOK/list.m3u", "a.m3u8\r\n../b.m3u8\r\n./c.m3u8\r\n", "../a.m3u8\r\n../../b.m3u8\r\n.././c.m3u8\r\n"},
		{"absolute", "/tv/TOK/list.m3u", "#EXTM3U\nhttps://h/a.m3u8\n/b.m3u8\n//h/c.m3u8\nudp://@239.0.0.1:1234\n", ""},
		{"from below", "/tv/TOK/x/y/list.m3u", "a.m3u8\nb.m3u8\n", "../../../x/y/a.m3u8\n../../../x/y/b.m3u8\n"},
		{"of two tokens", "/tv/TOK/x/TOK/list.m3u", "a.m3u8\nb.m3u8", "../../../x/a.m3u8\n../../../x/b.m3u8"},
		{"itself, asked otherwise", "/TOK/list.m3u8", "#EXTM3U\n#EXTINF:-1,A\n?ch=1\n#EXTINF:-1,B\n?ch=2\n", "#EXTM3U\n#EXTINF:-1,A\n../list.m3u8?ch=1\n#EXTINF:-1,B\n../list.m3u8?ch=2\n"},
		{"without a token", "/tv/list.m3u", "a.m3u8\nb.m3u8\n", ""},
		{"one title's own", "/tv/TOK/list.m3u", "#EXTM3U\n#EXTINF:9,\n/v/alien-1.ts\n#EXTINF:9,\n/v/alien-2.ts\n", "#EXTM3U\n#EXTINF:9,\n/v/TOK/alien-1.ts\n#EXTINF:9,\n/v/TOK/alien-2.ts\n"},
		{"a playlist that is no list", "/tv/TOK/list.m3u", "#EXTM3U\n#EXT-X-VERSION:3\n/v/a.ts\n/w/b.ts\n", "#EXTM3U\n#EXT-X-VERSION:3\n/v/TOK/a.ts\n/w/TOK/b.ts\n"},
	} {
		in, want := strings.ReplaceAll(c.in, "TOK", token), strings.ReplaceAll(c.out, "TOK", token)
		if want == "" {
			want = in
		}
		at := Place{Path: strings.ReplaceAll(c.path, "TOK", token), Hosts: []string{"h"}}
		got := string(kinds.AddToken([]byte(in), at, id))
		if got != want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, want)
		}
		if !kinds.Survey([]byte(in), at).List {
			continue
		}
		bare, _, _ := CutToken(at.Path)
		from, meant := &url.URL{Path: at.Path}, &url.URL{Path: bare}
		lines := strings.Split(in, "\n")
		for i, line := range strings.Split(got, "\n") {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "#") {
				continue
			}
			led, err := from.Parse(line)
			want, _ := meant.Parse(strings.TrimSpace(lines[i]))
			if line != "" && (err != nil || led.String() != want.String()) {
				t.Errorf("%s: %s leads to %s, want %s", c.name, line, led, want)
			}
		}
	}
	long := strings.Repeat("a\nc.mkv\n", MaxManifest/9)
	if got := kinds.AddToken([]byte("#EXTM3U\n"+long), Place{Path: "/tv/" + token + "/list.m3u"}, id); got != nil {
		t.Errorf("a list of %d bytes became %d", len(long), len(got))
	}
}

func TestLocationUnder(t *testing.T) {
	kinds, err := NewKinds([]KindRule{{"manifest", []string{"/v/*/list"}}})
	if err != nil {
		t.Fatal(err)
	}
	token := "~" + id.String()
	at := Place{Path: "/v/x/" + token + "/m.m3u8", Hosts: []string{"backend:8080", "h"}}
	for location, want := range map[string]string{
		"/v/x/s/m.m3u8":                   "/v/x/s/TOK/m.m3u8",
		"https://h/v/x/s/m.m3u8?s=1#t=2":  "https://h/v/x/s/TOK/m.m3u8?s=1#t=2",
		"http://H:80/1.ts":                "http://H:80/TOK/1.ts",
		"//h/a.ism/Manifest":              "//h/a.ism/TOK/Manifest",
		"http://backend:8080/v/x/2.m3u8":  "http://backend:8080/v/x/TOK/2.m3u8",
		"/v/x/list?a=1":                   "/v/x/TOK/list?a=1",
		"s/m.m3u8":                        "s/m.m3u8",
		"./m.m3u8?s=1":                    "./m.m3u8?s=1",
		"?s=1":                            "?s=1",
		"../m.m3u8":                       "../../TOK/m.m3u8",
		"../y/list":                       "../../y/TOK/list",
		"/v/x/TOK/m.m3u8":                 "/v/x/TOK/m.m3u8",
		"/login?to=/v/x/m.m3u8":           "/login?to=/v/x/m.m3u8",
		"../login":                        "../login",
		"https://cdn.other/v/x/m.m3u8":    "https://cdn.other/v/x/m.m3u8",
		"https://h:8443/v/x/m.m3u8":       "https://h:8443/v/x/m.m3u8",
		"//cdn.other/v/x/m.m3u8":          "//cdn.other/v/x/m.m3u8",
		"rtmp://h/m.m3u8":                 "rtmp://h/m.m3u8",
		"https://cdn.other@h/v/x/m.m3u8":  "https://cdn.other@h/v/x/TOK/m.m3u8",
		"https://h@cdn.other/v/x/m.m3u8":  "https://h@cdn.other/v/x/m.m3u8",
		"":                                "",
		"/%zz.m3u8":                       "/%zz.m3u8",
		`\\cdn.other\v\m.m3u8`:            `\\cdn.other\v\m.m3u8`,
		"https://h/v/x/m.m3u8/../../a.ts": "https://h/v/x/m.m3u8/../../TOK/a.ts",
	} {
		want = strings.ReplaceAll(want, "TOK", token)
		location = strings.ReplaceAll(location, "TOK", token)
		if got := kinds.LocationUnder(location, at, id); got != want {
			t.Errorf("%q became %q, want %q", location, got, want)
		}
	}
	for refresh, want := range map[string]string{
		"5; url=/v/y.m3u8":         "5; url=/v/TOK/y.m3u8",
		"0;URL='/v/y.m3u8'":        "0;URL='/v/TOK/y.m3u8'",
		` 2.5 , Url = "/v/y.m3u8"`: ` 2.5 , Url = "/v/TOK/y.m3u8"`,
		"5; /v/y.m3u8":             "5; /v/TOK/y.m3u8",
		"5; url=y.m3u8":            "5; url=y.m3u8",
		"5; url=/login":            "5; url=/login",
		"5":                        "5",
		"5;":                       "5;",
		"url=/v/y.m3u8":            "url=/v/y.m3u8",
		"":                         "",
	} {
		if got := kinds.RefreshUnder(refresh, at, id); got != strings.ReplaceAll(want, "TOK", token) {
			t.Errorf("%q became %q", refresh, got)
		}
	}
}
