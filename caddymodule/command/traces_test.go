package command

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/streamguard/streamguard/replay"
)

// Players whose log does not tell two playbacks apart: without a name, on one client
// and one title, they are taken for one.
var untold = map[string][2]int64{ // playbacks, and the most of a user at once
	"ffmpeg-killed-plain.log": {1, 1},
	"hls-reload-plain.log":    {1, 1},
	"native-reload-plain.log": {1, 1},
	"hls-twins-plain.log":     {1, 1},
	"mpv-twins-plain.log":     {1, 1},
	// Caddy writes neither duration nor user of an answer of reverse_proxy that the client breaks off.
	"vlc-mp4-plain.log": {0, 0},
}

// The log of each real player is replayed: it is as many playbacks as were played.
func TestReplayOfRealPlayers(t *testing.T) {
	const traces = "../../testdata/traces/"
	b, err := os.ReadFile(traces + "index.json")
	if err != nil {
		t.Fatal(err)
	}
	var index []struct {
		File, Gate, UserField              string
		Playbacks, Users, Streams, PerUser int64
	}
	if err := json.Unmarshal(b, &index); err != nil {
		t.Fatal(err)
	}
	if len(index) < 100 {
		t.Errorf("only %d traces", len(index))
	}
	for _, trace := range index {
		t.Run(trace.File, func(t *testing.T) {
			config := ":8090 {\n\tstream_guard {\n\t\tuser {vars.viewer}\n\t\tlimit 1\n"
			if trace.Gate == "stream" {
				config += "\t\tplayback stream\n"
			}
			o := replay.Options{Format: replay.Format{Set: map[string]string{"{http.vars.viewer}": trace.UserField}}}
			r := replayWith(t, config+"\t}\n}\n", "", o, traces+trace.File)
			most := int64(len(r.AtOnce))
			if told, is := untold[trace.File]; is {
				trace.Playbacks, trace.PerUser = told[0], told[1]
				trace.Users, trace.Streams = min(trace.Users, told[0]), min(trace.Streams, told[0])
			}
			if r.Playbacks != trace.Playbacks || r.Users != trace.Users || r.Streams != trace.Streams || most != trace.PerUser {
				t.Errorf("%d playbacks, %d users, %d streams, %d at once; in truth %d, %d, %d, %d", r.Playbacks, r.Users, r.Streams, most, trace.Playbacks, trace.Users, trace.Streams, trace.PerUser)
			}
			if r.Lines.Broken > 0 {
				t.Errorf("%d lines cannot be read: %s", r.Lines.Broken, r.Lines.BrokenAt)
			}
		})
	}
}
