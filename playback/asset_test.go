package playback

import (
	"strings"
	"testing"
)

func TestAddTokenToAssets(t *testing.T) {
	kinds, err := NewKinds(nil)
	if err != nil {
		t.Fatal(err)
	}
	token := "~" + id.String()
	at := Place{Path: "/a/" + token + "/ads.json", Hosts: []string{"h"}}
	for _, c := range []struct{ name, in, out string }{
		{"relative", `{"ASSETS":[{"URI":"ad/1.m3u8","DURATION":15.0}]}`, ""},
		{"as hls.js has it", "{\n  \"ASSETS\": [\n    {\"URI\": \"https://h/ad.m3u8?a=1&b=<2>\", \"DURATION\": \"15\"},\n    {\"URI\" : \"/ads/2.m3u8\" }\n  ]\n}\n",
			"{\n  \"ASSETS\": [\n    {\"URI\": \"https://h/TOK/ad.m3u8?a=1&b=<2>\", \"DURATION\": \"15\"},\n    {\"URI\" : \"/ads/TOK/2.m3u8\" }\n  ]\n}\n"},
		{"as PHP writes it", `{"ASSETS":[{"DURATION":15,"URI":"https:\/\/h\/ad.m3u8"},{"URI":"https:\/\/cdn.other\/ad.m3u8"}]}`,
			`{"ASSETS":[{"DURATION":15,"URI":"https://h/TOK/ad.m3u8"},{"URI":"https:\/\/cdn.other\/ad.m3u8"}]}`},
		{"over the token", `{"ASSETS":[{"URI":"../ad.m3u8"}]}`, `{"ASSETS":[{"URI":"../../TOK/ad.m3u8"}]}`},
		{"a name in no list", `{"ASSETS":[{"URI":"/ads/17"}]}`, `{"ASSETS":[{"URI":"/ads/TOK/17"}]}`},
		{"with the token", `{"ASSETS":[{"URI":"/ads/TOK/1.m3u8"}]}`, ""},
		{"other URLs, and other URIs", `{"URI":"/1.m3u8","X":[{"URI":"/1.m3u8"}],"ASSETS":[{"X-AD":{"URI":"/1.m3u8","ASSETS":[{"URI":"/1.m3u8"}]},"TRACKING":["/1.m3u8"],"URI":"/1.m3u8"}],"SKIP-CONTROL":{"OFFSET":5}}`,
			`{"URI":"/1.m3u8","X":[{"URI":"/1.m3u8"}],"ASSETS":[{"X-AD":{"URI":"/1.m3u8","ASSETS":[{"URI":"/1.m3u8"}]},"TRACKING":["/1.m3u8"],"URI":"/TOK/1.m3u8"}],"SKIP-CONTROL":{"OFFSET":5}}`},
		{"a key in escapes", `{"\u0041SSETS":[{"\u0055RI":"/\u0061d.m3u8"}]}`, `{"\u0041SSETS":[{"\u0055RI":"/TOK/ad.m3u8"}]}`},
		{"nothing to play", `{"ASSETS":[]}`, ""},
		{"a URI that is none", `{"ASSETS":[{"URI":null},{"URI":17},{"URI":["/1.m3u8"]}]}`, ""},
	} {
		in, want := strings.ReplaceAll(c.in, "TOK", token), strings.ReplaceAll(c.out, "TOK", token)
		if want == "" {
			want = in
		}
		got, _, ok := kinds.AddTokenToAssets([]byte(in), at, id)
		if string(got) != want || !ok {
			t.Errorf("%s: %v\n%s\nwant\n%s", c.name, ok, got, want)
		}
	}
	for _, none := range []string{
		"", "{}", "[]", "null", "1", `"ASSETS"`, `{"assets":[{"URI":"/1.m3u8"}]}`, `{"ASSETS":{"URI":"/1.m3u8"}}`, `{"ASSETS":["/1.m3u8"]}`,
		`{"ASSETS":[{"URI":"/1.m3u8"}]`, `{"ASSETS":[{"URI":"/1.m3u8"}]}}`, `{"ASSETS":[{"URI":"/1.m3u8"}]} {}`, `{"ASSETS":[{"URI":"/1.m3u8",}]}`,
		`{"ASSETS":[{"URI":"/1.m3u8"}}}`, `{"ASSETS":[{"URI"}]}`, "<html>", strings.Repeat("[", 100_000), `{"x":` + strings.Repeat("[", 100_000),
		`{"ASSETS":[` + strings.Repeat(`{"URI":"/"},`, MaxManifest/12-2) + `{}]}`,
	} {
		if got, _, ok := kinds.AddTokenToAssets([]byte(none), at, id); ok || got != nil {
			t.Errorf("%.60q became %d bytes, %v", none, len(got), ok)
		}
	}
}

// A list of assets comes under the token whatever it is named, and so do assets.
func TestInterstitialsKeepTheToken(t *testing.T) {
	kinds, err := NewKinds([]KindRule{{"other", []string{"/free/*"}}})
	if err != nil {
		t.Fatal(err)
	}
	token := "~" + id.String()
	at := Place{Path: "/a/" + token + "/m.m3u8", Hosts: []string{"h"}}
	for in, want := range map[string]string{
		`X-ASSET-LIST="/stitch/assetlist/eyJhc3NldHM%3D%3D"`:           `X-ASSET-LIST="/stitch/assetlist/TOK/eyJhc3NldHM%3D%3D"`,
		`X-ASSET-LIST="https://h/ads.json?pod=3",X-ASSET-URI="/ads/1"`: `X-ASSET-LIST="https://h/TOK/ads.json?pod=3",X-ASSET-URI="/ads/TOK/1"`,
		`X-ASSET-LIST="/free/1.json",X-ASSET-URI="/free/1.m3u8"`:       `X-ASSET-LIST="/free/1.json",X-ASSET-URI="/free/1.m3u8"`,
		`X-ASSET-LIST="ads.json"`:                                      `X-ASSET-LIST="ads.json"`,
		`X-ASSET-LIST="../ads.json"`:                                   `X-ASSET-LIST="../../TOK/ads.json"`,
		`X-ASSET-LIST="https://ads.other/ads.json"`:                    `X-ASSET-LIST="https://ads.other/ads.json"`,
		`X-COM-EXAMPLE-BEACON="/beacon",X-ASSET-URI="{$ads}/1.m3u8"`:   `X-COM-EXAMPLE-BEACON="/beacon",X-ASSET-URI="/ads/TOK/1.m3u8"`,
	} {
		const before = "#EXT-X-DEFINE:NAME=\"ads\",VALUE=\"/ads\"\n#EXT-X-DATERANGE:ID=\"1\",CLASS=\"com.apple.hls.interstitial\","
		if got, want := string(kinds.AddToken([]byte(before+in), at, id)), before+strings.ReplaceAll(want, "TOK", token); got != want {
			t.Errorf("%s\nwant\n%s", got, want)
		}
	}
}

func FuzzAddTokenToAssets(f *testing.F) {
	f.Add(`{"ASSETS":[{"URI":"/1.m3u8","DURATION":1}],"X":[{}]}`)
	kinds, err := NewKinds(nil)
	if err != nil {
		f.Fatal(err)
	}
	token := "~" + id.String() + "/"
	f.Fuzz(func(t *testing.T, list string) {
		got, _, ok := kinds.AddTokenToAssets([]byte(list), Place{Path: "/a/" + token + "m.json", Hosts: []string{"h"}}, id)
		if again, _, still := kinds.AddTokenToAssets(got, Place{Path: "/a/" + token + "m.json", Hosts: []string{"h"}}, id); ok && (!still || string(again) != string(got)) {
			t.Errorf("%q became %q, and that %q", list, got, again)
		}
	})
}

func TestAssets(t *testing.T) {
	kinds, err := NewKinds(nil)
	if err != nil {
		t.Fatal(err)
	}
	token := "~" + id.String()
	at := Place{Path: "/v/x/" + token + "/m.m3u8", Query: "ad=7", Hosts: []string{"h"}}
	playlist := "#EXTM3U\n#EXT-X-DEFINE:NAME=\"ads\",VALUE=\"https://h/ads\"\n#EXT-X-DEFINE:QUERYPARAM=\"ad\"\n" +
		"#EXT-X-DATERANGE:ID=\"1\",X-ASSET-URI=\"{$ads}/{$ad}/m.m3u8?x=1\"\n" +
		"#EXT-X-DATERANGE:X-ASSET-URI=\"../../ads/a%20b.m3u8\",ID=\"2\"\n" +
		"#EXT-X-DATERANGE:ID=\"3\",X-ASSET-URI=\"https://cdn.other/m.m3u8\"\n" +
		"#EXT-X-DATERANGE:ID=\"4\",X-ASSET-LIST=\"/ads/list.json\"\n#EXTINF:4,\n1.ts\n"
	if got := strings.Join(kinds.Assets([]byte(playlist), at), " "); got != "/ads/7/m.m3u8 /ads/a b.m3u8" {
		t.Errorf("assets %s", got)
	}
	_, paths, _ := kinds.AddTokenToAssets([]byte(`{"ASSETS":[{"URI":"/ads/\u0031.m3u8"},{"URI":"https://cdn.other/2.m3u8"},{"URI":"3.m3u8"}]}`), at, id)
	if got := strings.Join(paths, " "); got != "/ads/1.m3u8 /v/x/3.m3u8" {
		t.Errorf("assets of a list %s", got)
	}
	many := kinds.Assets([]byte(strings.Repeat("#EXT-X-DATERANGE:X-ASSET-URI=\"/1.m3u8\"\n", 2*MaxAssets)), at)
	if len(many) != MaxAssets {
		t.Errorf("%d assets", len(many))
	}
}
