package caddymodule

import "strings"

// Brothers of the cases: other servers, other players, other proxies.
func init() {
	cases = append(cases, []struct {
		name, options string
		site          string
		origin        map[string]string
		steps         string
	}{
		// Failing starts (28)
		{name: "a start that is aborted", site: strings.Replace(gateSite("", ""), "reverse_proxy", "route {\nabort /a/*\nreverse_proxy", 1) + "\n}", steps: `
			tv /a/1.ts -> 0
			holds 0
			tv /b/m.m3u8 -> 200
			tv #1 -> 200
			tv 2.ts -> 200
			holds 1`},
		{name: "404 subtitles before segments", origin: map[string]string{"/v/x/s.vtt": "404"}, steps: `
			tv /v/x/m.m3u8 -> 200
			tv s.vtt -> 404
			tv #1 -> 200
			tv #2 -> 200
			tv s.vtt -> 404
			holds 1 v/x
			pc /v/y/m.m3u8 -> 429`},
		{name: "404 subtitles after segments", origin: map[string]string{"/v/x/s.vtt": "404"}, steps: `
			tv /v/x/m.m3u8 -> 200
			tv #1 -> 200
			tv s.vtt -> 404
			holds 1 v/x
			pc /v/y/m.m3u8 -> 429`},
		{name: "404 subtitles that have lost their name, beside segments", origin: map[string]string{"/v/x/s.vtt": "404"}, steps: `
			tv /v/x/m.m3u8 -> 200
			tv /v/x/s.vtt -> 404
			tv #1 -> 200
			tv /v/x/s.vtt -> 404
			holds 1 v/x`},
		{name: "304 and 206 are no failures", origin: map[string]string{"/v/x/1.ts": "304", "/v/y/1.ts": "206"}, options: "limit 2", steps: `
			tv /v/x/m.m3u8 -> 200
			tv #1 -> 304
			pc /v/y/m.m3u8 -> 200
			pc #1 -> 206
			holds 2`},

		// Sent on (30)
		{name: "the origin sends a segment's playlist on by 303", origin: map[string]string{"/v/x/m.m3u8": "303 s/m.m3u8?session=1"}, steps: `
			tv /v/x/m.m3u8 -> 200
			asked /v/x/s/m.m3u8?session=1
			tv #1 -> 200
			asked /v/x/s/1.ts
			holds 1 v/x`},
		{name: "the origin sends a playlist on over the token", origin: map[string]string{"/v/x/m.m3u8": "308 ../../s/x/m.m3u8"}, steps: `
			tv /v/x/m.m3u8 -> 200
			tv #1 -> 200
			holds 1`},
		{name: "the origin sends a playlist on to a CDN", origin: map[string]string{"/v/x/m.m3u8": "302 https://cdn.other/m.m3u8"}, steps: `
			tv /v/x/m.m3u8 -> 302
			tv /v/x/m.m3u8 -> 302
			holds 0`},
		{name: "where an answer comes from, and where to go on", origin: map[string]string{
			"/v/x/m.m3u8": "Content-Location: /v/x/s/m.m3u8\nRefresh: 5; url=/v/x/s/m.m3u8\nLocation: /poster.jpg\n\n#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n1.ts\n#EXT-X-ENDLIST\n",
		}, steps: `
			tv POST /guards body={} -> 201
			tv /v/x/m.m3u8?guard=$id -> 200
			got Content-Location: /v/x/s/~$id/m.m3u8
			got Refresh: 5; url=/v/x/s/~$id/m.m3u8
			got Location: /poster.jpg`},

		// Lists (27)
		{name: "a list of stations in one folder", origin: map[string]string{"/radio/list.m3u": "\ufeff#EXTM3U\r\n#EXTINF:-1 tvg-id=\"1\",One\r\none.mp3\r\n#EXTINF:-1,Two\r\ntwo.mp3\r\n"}, steps: `
			a /radio/list.m3u -> 200
			body M3U
			a #1 -> 200
			holds 1 radio/one
			b /radio/list.m3u -> 200
			b #2 -> 429`},
		{name: "a list of transport streams", origin: map[string]string{"/get.m3u8": "#EXTM3U url-tvg=\"x\"\n#EXT-X-SESSION-DATA:DATA-ID=\"a\"\n#EXTINF:-1 tvg-id=\"1\",One\nhttp://video.example/live/u/p/1.ts\n#EXTINF:-1,Two\nhttp://video.example/live/u/p/2.ts\n"}, steps: `
			a /get.m3u8?type=m3u_plus -> 200
			holds 0
			a #1 -> 200
			holds 1`},
		{name: "a playlist of before EXT-X tags", origin: map[string]string{"/v/x/m.m3u8": "#EXTM3U\n#EXTINF:10,\n1.ts\n#EXTINF:10,\n2.ts\n"}, steps: `
			a /v/x/m.m3u8 -> 200
			a #1 -> 200
			a #2 -> 200
			holds 1 v/x
			b /v/y/m.m3u8 -> 429`},
		{name: "a playlist of before EXT-X tags, with a byte order mark", origin: map[string]string{"/v/x/m.m3u8": "\ufeff#EXTM3U\n#EXTINF:10,\n1.ts\n"}, steps: `
			a /v/x/m.m3u8 -> 200
			a #1 -> 200
			holds 1 v/x
			a #1 -> 200
			holds 1 v/x`},
		{name: "a list for nobody", options: "anonymous allow", origin: map[string]string{"/tv/list.m3u8": "#EXTM3U\n#EXTINF:-1,A\na/m.m3u8\n#EXTINF:-1,B\nb/m.m3u8\n"}, steps: `
			nobody/a /tv/list.m3u8 -> 200
			nobody/a #1 -> 200
			nobody/a #1 -> 200
			asked /tv/a/1.ts
			holds 0`},
		{name: "a list without tokens", options: "playback stream", origin: map[string]string{"/tv/list.m3u8": "#EXTM3U\n#EXTINF:-1,A\na/m.m3u8\n#EXTINF:-1,B\nb/m.m3u8\n"}, steps: `
			a /tv/list.m3u8 -> 200
			holds 0
			a #1 -> 200
			a #1 -> 200
			holds 1 tv/a
			b /tv/list.m3u8 -> 200
			b #2 -> 429`},
		{name: "a list under a name", origin: map[string]string{"/tv/list.m3u8": "#EXTM3U\n#EXTINF:-1,A\na/m.m3u8\n#EXTINF:-1,B\nb/m.m3u8\n"}, steps: `
			a /tv/list.m3u8 sid=a -> 200
			a #1 sid=a -> 200
			a #1 sid=a -> 200
			holds 1 tv/a
			b /tv/list.m3u8 sid=b -> 200
			b #2 sid=b -> 429`},

		// Stand-ins (15, 16)
		{name: "a stand-in with a name of its own", options: "playback {header.Player}", origin: map[string]string{"/live/x/m.m3u8": cdnLive}, steps: `
			a /live/x/m.m3u8 Player=a -> 200
			b /live/x/m.m3u8 Player=b -> 429
			wait 30s
			a /live/x/m.m3u8 Player=a -> 200
			b /live/x/m.m3u8 Player=b -> 429
			holds 1 live/x`},
		{name: "a stand-in that is compressed", origin: map[string]string{"/live/x/m.m3u8": cdnLive}, site: "encode gzip", steps: `
			a /live/x/m.m3u8 Accept-Encoding=gzip -> 200
			b /live/x/m.m3u8 Accept-Encoding=gzip -> 429
			holds 1 live/x`},
		{name: "a stand-in's HEAD", origin: map[string]string{"/live/x/m.m3u8": cdnLive}, steps: `
			a HEAD /live/x/m.m3u8 -> 200
			holds 0`},
		{name: "a stand-in's prefetch", origin: map[string]string{"/live/x/m.m3u8": cdnLive}, options: "limit 1 replace", steps: `
			a /live/x/m.m3u8 -> 200
			b /live/x/m.m3u8 Sec-Purpose=prefetch -> 200
			a m.m3u8 -> 200
			holds 1 live/x`},
		{name: "a stand-in that is given back", origin: map[string]string{"/live/x/m.m3u8": cdnLive}, steps: `
			a POST /guards body={} -> 201
			a /live/x/m.m3u8?guard=$id -> 200
			holds 1 live/x
			a DELETE /guards/$id -> 204
			holds 0
			b /live/x/m.m3u8 -> 200
			holds 1 live/x`},
		{name: "media of which the first alternative comes here", origin: map[string]string{
			"/v/x/master.m3u8": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nv.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhttps://cdn.other/v.m3u8\n",
		}, steps: `
			a /v/x/master.m3u8 -> 200
			holds 0`},
		{name: "media of which the second alternative comes here", origin: map[string]string{
			"/v/x/master.m3u8": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhttps://cdn.other/v.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=1\nv.m3u8\n",
		}, steps: `
			a /v/x/master.m3u8 -> 200
			holds 1 v/x
			a #2 -> 200
			holds 1 v/x`},

		// Interstitials (21)
		{name: "an asset under the film's token", origin: map[string]string{
			"/v/x/m.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-DATERANGE:ID=\"a\",CLASS=\"com.apple.hls.interstitial\",X-ASSET-URI=\"/ads/1/m.m3u8\"\n#EXTINF:4,\n1.ts\n#EXT-X-ENDLIST\n",
		}, steps: `
			tv POST /guards body={} -> 201
			tv /v/x/m.m3u8?guard=$id -> 200
			body X-ASSET-URI="/ads/1/~$id/m.m3u8"
			tv #1 -> 200
			tv#ad /ads/1/~$id/m.m3u8?_HLS_primary_id=F -> 200
			tv#ad #1 -> 200
			wait 25s
			tv#ad #2 -> 200
			wait 1s
			tv #1 -> 200
			wait 1s
			holds 1 v/x
			pc /v/y/m.m3u8 -> 429`},
		{name: "an asset under the film's token, by a player that does not say what it interrupts", origin: map[string]string{
			"/v/x/m.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-DATERANGE:ID=\"a\",CLASS=\"com.apple.hls.interstitial\",X-ASSET-URI=\"/ads/1/m.m3u8\"\n#EXTINF:4,\n1.ts\n#EXT-X-ENDLIST\n",
		}, steps: `
			tv POST /guards body={} -> 201
			tv /v/x/m.m3u8?guard=$id -> 200
			tv #1 -> 200
			tv#ad /ads/1/~$id/m.m3u8 -> 200
			tv#ad #1 -> 200
			wait 25s
			tv#ad m.m3u8 -> 200
			tv#ad #2 -> 200
			wait 25s
			tv #1 -> 200
			wait 1s
			holds 1 v/x`},
		{name: "an asset list under the film's token", origin: map[string]string{
			"/ads/list.json":  `{"ASSETS":[{"URI":"/ads/1/m.m3u8","DURATION":15},{"URI":"2/m.m3u8"},{"URI":"https://cdn.other/3/m.m3u8"}]}`,
			"/ads/other.json": `{"config":{"URI":"/ads/1/m.m3u8"}}`,
		}, steps: `
			tv POST /guards body={} -> 201
			tv /v/x/m.m3u8?guard=$id -> 200
			tv #1 -> 200
			tv /ads/~$id/list.json -> 200
			body {"URI":"/ads/1/~$id/m.m3u8","DURATION":15},{"URI":"2/m.m3u8"},{"URI":"https://cdn.other/3/m.m3u8"}
			tv /ads/~$id/other.json -> 200
			body {"config":{"URI":"/ads/1/m.m3u8"}}
			holds 1 v/x`},
		{name: "an asset list by what it interrupts", origin: map[string]string{"/ads/list.json": `{"ASSETS":[{"URI":"/ads/1/m.m3u8","DURATION":15}]}`}, steps: `
			tv POST /guards body={"playbackId":"F"} -> 201
			tv /v/x/m.m3u8 sid=F -> 200
			tv #1 sid=F -> 200
			tv#ad /ads/list.json?_HLS_primary_id=F&_HLS_start_offset=0 -> 200
			body {"URI":"/ads/1/~$id/m.m3u8","DURATION":15}
			tv#ad /ads/1/~$id/m.m3u8 sid=A -> 200
			tv#ad #1 sid=A -> 200
			tv#ad #2 -> 200
			holds 1 v/x`},
		{name: "what a stranger calls a film is none", steps: `
			tv /v/x/m.m3u8 sid=F -> 200
			tv #1 sid=F -> 200
			ann/pc /v/y/m.m3u8?_HLS_primary_id=F sid=A -> 200
			ann/pc #1 sid=A -> 200
			ann/pc#2 /v/z/m.m3u8?_HLS_primary_id=F sid=B -> 429
			holds 1 v/x`},
		{name: "an interstitial before the film's first segment", steps: `
			tv /v/x/m.m3u8 sid=F -> 200
			tv#ad /ads/1/m.m3u8?_HLS_primary_id=F sid=A -> 200
			tv#ad #1 sid=A -> 200
			holds 1 v/x
			tv #1 sid=F -> 200
			holds 1 v/x
			pc /v/y/m.m3u8 -> 429`},

		// Names (1, attacks 3)
		{name: "a thousand names under one token", steps: `
			tv /v/x/m.m3u8 -> 200
			tv #1 sid=a -> 200
			tv #1 sid=b -> 200
			tv #1 sid=c X-Playback-Session-Id=d -> 200
			tv 1.ts?CMCD=sid%3D%22e%22 -> 200
			tv m.m3u8 sid=f -> 200
			tv #1 Stream-Guard-Id=` + isUUID + ` -> 200
			holds 1 v/x`},
		{name: "named in the manifest's query, by a token in the segments", steps: `
			tv /v/x/m.m3u8?CMCD=sid%3D%22a%22 -> 200
			tv #1 -> 200
			tv /v/x/2.ts?CMCD=sid%3D%22a%22 -> 200
			tv /v/x/2.ts sid=a -> 200
			holds 1 v/x`},
		{name: "a name on the media alone, in another folder", steps: `
			tv /v/x/1.ts sid=a -> 200
			tv /v/y/1.ts sid=a -> 200
			wait 1500ms
			tv /v/y/2.ts sid=a -> 200
			wait 1s
			holds 1 v/y`},
		{name: "a guard by hand of no stream", steps: `
			tv POST /guards body={} -> 201
			tv /v/x/m.m3u8 -> 429
			tv /v/x/1.ts -> 200
			holds 1 v/x`},
		{name: "a guard by hand for another stream", steps: `
			tv POST /guards body={"streamId":"v/x"} -> 201
			tv /v/y/1.ts -> 429
			tv /v/x/1.ts -> 200
			holds 1 v/x`},
		{name: "the device fills in a guard by hand", options: "limit 1\ndevice {header.Device}", steps: `
			tv POST /guards Device=a body={"streamId":"v/x"} -> 201
			tv /v/x/1.ts Device=a -> 200
			pc /v/x/1.ts Device=b -> 429
			holds 1 v/x`},

		{name: "a tokened URL that was passed on", steps: `
			tv POST /guards body={} -> 201
			tv /v/x/m.m3u8?guard=$id -> 200
			tv #1 -> 200
			pc /v/x/~$id/1.ts -> 200
			tv #1 -> 200
			pc /v/x/~$id/2.ts -> 200
			silent take turns
			tv #2 -> 200
			logged two clients take turns under one token
			holds 1 v/x`},
		{name: "a phone that changes networks", steps: `
			wifi POST /guards body={} -> 201
			wifi /v/x/m.m3u8?guard=$id -> 200
			wifi #1 -> 200
			lte /v/x/~$id/1.ts -> 200
			lte /v/x/~$id/2.ts -> 200
			wifi #1 -> 200
			wifi #2 -> 200
			lte /v/x/~$id/1.ts -> 200
			hotel /v/x/~$id/1.ts -> 200
			silent take turns`},
		{name: "a viewer who is refused by himself", steps: `
			tv /v/x/m.m3u8 -> 200
			tv #1 -> 200
			pc /v/y/m.m3u8 -> 429
			silent refused by himself
			tv#2 /v/y/m.m3u8 -> 429
			logged a viewer is probably refused by himself`},

		// Doubt
		{name: "a page that reserves is loaded again", steps: `
			page POST /guards body={"streamId":"v/x"} -> 201
			page /v/x/m.m3u8?guard=$id -> 200
			page #1 -> 200
			page#2 POST /guards body={"streamId":"v/x"} -> 201 within 11s
			page#2 /v/x/m.m3u8?guard=$id -> 200
			page#2 #1 -> 200
			holds 1 v/x
			page #2 -> 429 GUARD_REPLACED`},
		{name: "a page that reserves without a stream is loaded again", steps: `
			page POST /guards body={} -> 201
			page /v/x/m.m3u8?guard=$id -> 200
			page #1 -> 200
			page#2 POST /guards body={} -> 429`},
		{name: "a page whose segments have lost their token is loaded again", steps: `
			page /v/x/m.m3u8 -> 200
			page /v/x/1.ts -> 200
			page#2 /v/x/m.m3u8 -> 200 within 11s
			page#2 /v/x/1.ts -> 200
			page#2 #1 -> 200
			page#2 /v/x/2.ts -> 200
			holds 1 v/x
			wait 40s
			page#2 /v/x/2.ts -> 200
			page#2 #2 -> 200
			holds 1 v/x`},
		{name: "a page whose segments have lost their token, and whose guard is its client's", steps: `
			page /v/x/m.m3u8 -> 200
			page /v/x/1.ts -> 200
			page /v/x/2.ts -> 200
			holds 1 v/x
			pc /v/x/3.ts -> 429
			page#2 /v/x/3.ts -> 200
			holds 1 v/x`},
		{name: "what was replaced, and segments without a name that another's guard serves", options: "limit 1 replace", steps: `
			tv /v/x/m.m3u8 -> 200
			tv #1 -> 200
			pc /v/x/m.m3u8 -> 200
			pc #1 -> 200
			tv #2 -> 429 GUARD_REPLACED
			tv /v/x/2.ts -> 200
			holds 1 v/x`},
		{name: "another client does not wait", steps: `
			tv /v/x/m.m3u8 -> 200
			tv #1 -> 200
			pc /v/x/m.m3u8 -> 429 REACHED_MAX_GUARDS_COUNT
			tv#2 /v/y/m.m3u8 -> 429 REACHED_MAX_GUARDS_COUNT
			pc POST /guards body={"streamId":"v/x"} -> 429`},
		{name: "a limit of nothing does not wait", options: "limit 0", steps: `
			tv /v/x/m.m3u8 -> 429 REACHED_MAX_GUARDS_COUNT
			tv /v/x/1.ts -> 429`},
		{name: "short times", options: "limit 1\ninterval 1s\nttl 2s", steps: `
			tv /v/x/m.m3u8 -> 200
			tv #1 -> 200
			tv#2 /v/x/m.m3u8 -> 200 within 3s
			tv#2 #1 -> 200
			holds 1 v/x`},

		// Marks
		{name: "what was replaced goes on when the start has failed, though it asked meanwhile", options: "limit 1 replace", origin: map[string]string{"/v/y/1.ts": "3s 404"}, steps: `
			tv /v/x/m.m3u8 -> 200
			tv #1 -> 200
			pc /v/y/m.m3u8 -> 200
			pc #1 -> 404 within 4s
			tv #2 -> 200
			tv m.m3u8 -> 200
			holds 1 v/x`},
		{name: "another manifest under the token moves the guard with its next refresh", options: "limit 1", steps: `
			tv POST /guards body={} -> 201
			tv /v/x/m.m3u8?guard=$id -> 200
			tv #1 -> 200
			tv /v/y/~$id/m.m3u8 -> 200
			holds 1 v/x
			wait 2s
			tv #1 -> 200
			tv m.m3u8 -> 200
			wait 1s
			holds 1 v/y`},
		{name: "an untokened manifest moves the guard at once", options: "limit 1", steps: `
			tv /v/x/m.m3u8 sid=a -> 200
			tv #1 sid=a -> 200
			tv /v/y/m.m3u8 sid=a -> 200
			holds 1 v/y
			tv #1 sid=a -> 200
			holds 1 v/y`},
		{name: "zapping back while the other plays", options: "limit 1 replace", steps: `
			tv /v/x/m.m3u8 -> 200
			tv #1 -> 200
			pc /v/y/m.m3u8 -> 200
			pc #1 -> 200
			wait 3s
			tv #2 -> 429 GUARD_REPLACED
			tv m.m3u8 -> 429 GUARD_REPLACED
			tv /v/x/2.ts -> 429
			tv POST /guards body={"streamId":"v/x"} -> 201
			pc #2 -> 429 GUARD_REPLACED`},
		{name: "a named player that was revoked does not start anew", options: "limit 1", steps: `
			tv /v/x/m.m3u8 sid=a -> 200
			tv #1 sid=a -> 200
			revoke
			tv /v/x/m.m3u8 sid=a -> 429 GUARD_REVOKED
			tv #1 sid=a -> 429 GUARD_REVOKED
			tv#2 /v/x/m.m3u8 sid=b -> 200`},

		// Proxies
		{name: "a gate behind handle_path", site: "http://:80 {\nhandle_path /p/* {\nstream_guard {\nuser {header.X-User-Id}\nlimit 1\nstore test.shared\n}\nreverse_proxy origin:80 {\ntransport test\n}\n}\n}", origin: map[string]string{
			"/v/x/m.m3u8": "302 s/m.m3u8",
		}, steps: `
			tv /p/v/x/m.m3u8 -> 200
			tv #1 -> 200
			asked /v/x/s/1.ts
			holds 1 v/x`},
		{name: "a cookie and a token behind handle_path", site: "http://:80 {\nhandle_path /p/* {\nstream_guard {\nuser {header.X-User-Id}\nlimit 1\nstore test.shared\n}\nreverse_proxy origin:80 {\ntransport test\n}\n}\n}", origin: map[string]string{
			"/v/x/m.m3u8": "Set-Cookie: s=1\n\n#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n1.ts\n#EXT-X-ENDLIST\n",
		}, steps: `
			tv /p/v/x/m.m3u8 -> 200
			got Set-Cookie: s=1; Path=/p/v/x`},
		{name: "two gates in a row", site: "http://:80 {\nroute {\nstream_guard {\nuser {header.X-User-Id}\nlimit 1\nstore memory a\n}\nstream_guard {\nuser {header.X-User-Id}\nlimit 1\nstore test.shared\n}\nreverse_proxy origin:80 {\ntransport test\n}\n}\n}", steps: `
			tv /v/x/m.m3u8 -> 200
			tv #1 -> 200
			asked /v/x/1.ts
			holds 1 v/x
			tv #2 -> 200
			tv m.m3u8 -> 200
			pc /v/y/m.m3u8 -> 429
			tv /v/x/2.ts -> 200
			holds 1 v/x`},
		{name: "two gates in a row, of different users", site: "http://:80 {\nroute {\nstream_guard {\nuser {header.X-User-Id}\nlimit 1\nstore memory a\n}\nstream_guard {\nuser {header.X-Account}\nlimit 2\nanonymous allow\nstore memory b\n}\nreverse_proxy origin:80 {\ntransport test\n}\n}\n}", steps: `
			tv /v/x/m.m3u8 X-Account=fam -> 200
			tv #1 X-Account=fam -> 200
			asked /v/x/1.ts
			ann/tv /v/x/m.m3u8 X-Account=fam -> 200
			ann/tv #1 X-Account=fam -> 200
			bob/box /v/x/m.m3u8 X-Account=fam -> 429
			bob/pc /v/x/m.m3u8 -> 200
			bob/pc #1 -> 200
			asked /v/x/1.ts`},
		{name: "two gates in a row, the first of which lets nobody in", site: "http://:80 {\nroute {\nstream_guard {\nuser {header.X-Account}\nanonymous allow\nstore memory a\n}\nstream_guard {\nuser {header.X-User-Id}\nlimit 1\nstore test.shared\n}\nreverse_proxy origin:80 {\ntransport test\n}\n}\n}", steps: `
			tv /v/x/m.m3u8 -> 200
			tv #1 -> 200
			asked /v/x/1.ts
			holds 1 v/x`},
		{name: "two gates in a row, behind stream_guard_token", site: "http://:80 {\nstream_guard_token\nroute {\nstream_guard {\nuser {header.X-Account}\nanonymous allow\nstore memory a\n}\nstream_guard {\nuser {header.X-User-Id}\nlimit 1\nstore test.shared\n}\nreverse_proxy origin:80 {\ntransport test\n}\n}\n}", steps: `
			tv /v/x/m.m3u8 -> 200
			tv #1 -> 200
			asked /v/x/1.ts
			holds 1 v/x`},
		{name: "two servers with gates in a row", site: "http://:80 {\nstream_guard_token\nstream_guard {\nuser {header.X-User-Id}\nlimit 1\nstore memory a\n}\nreverse_proxy inner:81 {\ntransport test\n}\n}\n" + strings.Replace(gateSite("", ""), ":80 {\nstream", ":81 {\nstream", 1), origin: map[string]string{
			"/v/x/abs.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n/v/x/1.ts\n#EXT-X-ENDLIST\n",
		}, steps: `
			tv /v/x/m.m3u8 -> 200
			tv #1 -> 200
			asked /v/x/1.ts
			holds 1 v/x
			tv m.m3u8 -> 200
			tv #2 -> 200
			pc /v/y/m.m3u8 -> 429
			pc /v/y/1.ts -> 429
			tv abs.m3u8 -> 200
			tv #1 -> 200
			holds 1 v/x
			tv#2 /v/x/m.m3u8 -> 200 within 23s
			tv#2 #1 -> 200
			holds 1 v/x`},
		{name: "two servers with gates in a row, by names", site: "http://:80 {\nstream_guard_token\nstream_guard {\nuser {header.X-User-Id}\nlimit 1\nstore memory a\n}\nreverse_proxy inner:81 {\ntransport test\n}\n}\n" + strings.Replace(gateSite("", ""), ":80 {\nstream", ":81 {\nstream", 1), steps: `
			tv /v/x/m.m3u8 sid=a -> 200
			tv #1 sid=a -> 200
			asked /v/x/1.ts
			tv /v/x/2.ts sid=a -> 200
			holds 1 v/x
			pc /v/y/m.m3u8 sid=b -> 429`},
		{name: "a second server whose gate names by stream", site: "http://:80 {\nstream_guard_token\nstream_guard {\nuser {header.X-User-Id}\nlimit 1\nstore memory a\n}\nreverse_proxy inner:81 {\ntransport test\n}\n}\n" + strings.Replace(gateSite("playback stream", ""), ":80 {\nstream", ":81 {\nstream", 1), steps: `
			tv /v/x/m.m3u8 -> 200
			tv #1 -> 200
			asked /v/x/1.ts
			tv #2 -> 200
			holds 1 v/x`},

		// Bad input
		{name: "an MPD with CDATA in CDATA", origin: map[string]string{
			"/v/x/m.mpd": `<MPD type="static"><BaseURL><![CDATA[<![CDATA[http://video.example/other/]]></BaseURL><!-- <BaseURL>https://cdn.other/</BaseURL> --><Period><AdaptationSet><SegmentTemplate media="$Number$.m4s" duration="2"/><Representation id="v"/></AdaptationSet></Period></MPD>`,
		}, steps: `
			tv /v/x/m.mpd -> 200
			tv 1.m4s -> 200
			holds 1 v/x`},
		{name: "an MPD with an absolute URL in CDATA and in references", origin: map[string]string{
			"/v/x/m.mpd": `<MPD type="static"><BaseURL><![CDATA[http://video.example/v/x/a&b/]]></BaseURL><Period><AdaptationSet><SegmentTemplate media="http:&#x2f;&#47;video.example/v/x/$Number$.m4s" duration="2"/><Representation id="v"/></AdaptationSet></Period></MPD>`,
		}, steps: `
			tv POST /guards body={} -> 201
			tv /v/x/m.mpd?guard=$id -> 200
			body <BaseURL>http://video.example/v/x/a&amp;b/~$id/</BaseURL>
			body media="http://video.example/v/x/~$id/$Number$.m4s"`},
		{name: "a manifest that is none", origin: map[string]string{"/v/x/m.m3u8": "\x00\xff\xfe", "/v/x/m.mpd": "{}", "/v/x/e.m3u8": ""}, steps: `
			tv /v/x/m.m3u8 -> 200
			tv /v/x/m.mpd -> 200
			tv /v/x/e.m3u8 -> 200
			holds 0`},
	}...)
}
