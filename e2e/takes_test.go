package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The players that we can run, as an operator sees them in his log: with the gate,
// which then has its tokens in it, and before there was one. With -record the traces
// are written anew. Without, one is recorded to see that this still works and that
// the player still asks for what the trace has.
func TestRecord(t *testing.T) {
	t.Parallel()
	if *recordInto == "" {
		t.Run("index", func(t *testing.T) {
			var recorded, listed []string
			for _, k := range takes() {
				recorded = append(recorded, k.name+".log")
			}
			for _, old := range readIndex(t, traces) {
				if old.Made == "recorded" {
					listed = append(listed, old.File)
				}
			}
			slices.Sort(recorded)
			if !slices.Equal(recorded, listed) {
				t.Errorf("recorded are %q\nbut the index has %q (make traces)", recorded, listed)
			}
		})
		const name = "ffmpeg-vod-plain"
		takes := takes()
		made := takes[slices.IndexFunc(takes, func(k take) bool { return k.name == name })].record(t)
		committed, err := os.ReadFile(filepath.Join(traces, name+".log"))
		if err != nil {
			t.Fatal(err)
		}
		if now, then := uris(t, made.lines), uris(t, string(committed)); !slices.Equal(now, then) {
			t.Errorf("ffmpeg asks for %q, the trace has %q", now, then)
		}
		return
	}
	var mu sync.Mutex
	var all []trace
	names := make(map[string]bool)
	t.Run("", func(t *testing.T) {
		for _, k := range takes() {
			if names[k.name] {
				t.Fatalf("two takes are %s", k.name)
			}
			names[k.name] = true
			t.Run(k.name, func(t *testing.T) {
				t.Parallel()
				made := k.record(t)
				mu.Lock()
				defer mu.Unlock()
				all = append(all, made)
			})
		}
	})
	writeTraces(t, *recordInto, "recorded", len(all) == len(names), all)
}

// uris is what a trace asks for, sorted.
func uris(t *testing.T, lines string) (list []string) {
	t.Helper()
	for line := range strings.Lines(lines) {
		var a access
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatal(err)
		}
		list = append(list, a.Request.URI)
	}
	slices.Sort(list)
	return list
}

const (
	llHLS = "/ll/{channel}/master.m3u8"
	film  = "/films/alien/alien.mp4"
)

// takes are all traces of players that we can run. Each kind of player is at a gate
// once and without one once at least, and says its name once if it can.
func takes() (all []take) {
	// One or more sites, with the name of each at the end of the take's.
	add := func(name, player, shows string, act func(*testing.T, *recording), sites ...string) {
		for _, site := range sites {
			names := map[string]string{"plain": "none", "basic": "none", "auto": "token", "stream": "none"}[site]
			if strings.Contains(name, "cmcd") && names == "none" {
				names = "cmcd"
			}
			all = append(all, take{name + "-" + site, player, site, names, shows, act})
		}
	}

	channelTS, channelCMAF, channelDASH, channelLL := tuned(liveTS, "news"), tuned(liveCMAF, "news"), tuned(liveDASH, "news"), tuned(llHLS, "news")

	// In the browser, until ten seconds have been shown.
	shown := func(name, player, media, cmcd, shows string, sites ...string) {
		add(name, player, shows, func(t *testing.T, r *recording) {
			p := r.opens(t, "alice", player, media, cmcd)
			r.shows(t, p, 10)
			r.shuts(t, p, "alice")
		}, sites...)
	}
	shown("hls-vod", "hls", hlsCMAF, "", "a film, HLS with audio apart", "auto", "plain")
	shown("hls-vod-ts", "hls", hlsTS, "", "a film, HLS of MPEG-TS", "plain")
	shown("hls-vod-byterange", "hls", "/media/byterange/master.m3u8", "", "a film, HLS of byte ranges", "plain")
	shown("hls-vod-cmcd", "hls", hlsTS, "query", "a film, HLS, CMCD in the query", "plain", "auto", "stream")
	shown("hls-vod-cmcd-header", "hls", hlsTS, "header", "a film, HLS, CMCD in headers", "plain")
	shown("hls-live", "hls", channelCMAF, "", "a live channel, HLS", "auto", "plain")
	shown("hls-live-cmcd", "hls", channelTS, "query", "a live channel, HLS, CMCD in the query", "plain")
	shown("hls-ll", "hls", channelLL, "", "a live channel, low-latency HLS", "auto", "plain")
	shown("dash-vod", "dash", mpd, "", "a film, DASH", "auto", "plain")
	shown("dash-vod-cmcd", "dash", mpd, "query", "a film, DASH, CMCD in the query", "plain")
	shown("dash-vod-cmcd-header", "dash", mpd, "header", "a film, DASH, CMCD in headers", "plain")
	shown("dash-live", "dash", channelDASH, "", "a live channel, DASH", "auto", "plain")
	shown("dash-live-cmcd", "dash", channelDASH, "query", "a live channel, DASH, CMCD in the query", "plain")
	shown("shaka-vod", "shaka", hlsCMAF, "", "a film, HLS with audio apart", "auto")
	shown("shaka-vod-dash", "shaka", mpd, "", "a film, DASH", "plain")
	shown("shaka-vod-dash-cmcd", "shaka", mpd, "query", "a film, DASH, CMCD in the query", "plain")
	shown("shaka-live", "shaka", channelDASH, "", "a live channel, DASH", "auto", "plain")
	shown("shaka-live-cmcd-header", "shaka", channelTS, "header", "a live channel, HLS, CMCD in headers", "plain")
	shown("shaka-ll", "shaka", channelLL, "", "a live channel, low-latency HLS", "plain")
	shown("video-vod", "video", hlsCMAF, "", "a film, HLS with audio apart", "auto", "plain")
	shown("video-vod-dash", "video", mpd, "", "a film, DASH", "plain")
	shown("video-live", "video", channelTS, "", "a live channel, HLS", "auto", "plain")
	shown("video-ll", "video", channelLL, "", "a live channel, low-latency HLS", "plain")
	shown("native-vod", "native", hlsTS, "", "a film, the browser's own HLS", "auto", "plain")
	shown("native-live", "native", channelCMAF, "", "a live channel, the browser's own HLS", "auto", "plain")

	add("native-mp4", "native", "a film in one file, with jumps in it", func(t *testing.T, r *recording) {
		p := r.opens(t, "alice", "native", film, "")
		for _, to := range []int{40, 5, 50} {
			p.run(t, "seek", to)
			p.plays(t)
		}
		r.shuts(t, p, "alice")
	}, "auto", "plain")
	add("hls-seek", "hls", "a film, with jumps in it", func(t *testing.T, r *recording) {
		p := r.opens(t, "alice", "hls", hlsTS, "")
		for _, to := range []int{50, 10, 45} {
			p.run(t, "seek", to)
			p.plays(t)
		}
		r.shuts(t, p, "alice")
	}, "plain")

	// From channel to channel, one after the other; a player that keeps its session id
	// from one to the next keeps its playback.
	zaps := func(name, player, media, cmcd string, keeps bool, sites ...string) {
		add(name, player, "three live channels, one after the other", func(t *testing.T, r *recording) {
			p := r.opens(t, "alice", player, tuned(media, "zap0"), cmcd)
			for i := 1; i < 3; i++ {
				next := tuned(media, fmt.Sprint("zap", i))
				if keeps {
					r.moves(next)
				} else {
					r.ends("alice")
					r.begins("alice", next)
				}
				p.run(t, "load", next)
				p.plays(t)
			}
			r.shuts(t, p, "alice")
		}, sites...)
	}
	zaps("hls-zap", "hls", liveTS, "", false, "auto", "plain")
	zaps("hls-zap-cmcd", "hls", liveTS, "query", true, "auto", "plain")
	zaps("dash-zap-cmcd", "dash", liveDASH, "query", false, "plain")
	zaps("shaka-zap-cmcd", "shaka", liveDASH, "query", true, "plain")
	zaps("video-zap", "video", liveTS, "", false, "auto")
	zaps("native-zap", "native", liveTS, "", false, "plain")

	pauses := func(name, player, media string, sites ...string) {
		add(name, player, "a live channel, paused for a quarter of a minute", func(t *testing.T, r *recording) {
			p := r.opens(t, "alice", player, media, "")
			p.run(t, "pause")
			lapse()
			p.run(t, "resume")
			p.plays(t)
			r.shuts(t, p, "alice")
		}, sites...)
	}
	pauses("hls-pause", "hls", channelTS, "plain")
	pauses("dash-pause", "dash", channelDASH, "auto")
	pauses("native-pause", "native", channelTS, "auto", "plain")

	reloads := func(name, player, media, cmcd string, sites ...string) {
		add(name, player, "a page that is loaded again while it plays", func(t *testing.T, r *recording) {
			p := r.opens(t, "alice", player, media, cmcd)
			p.do(t, "reload")
			r.ends("alice")
			r.begins("alice", media)
			p.run(t, "play", media, orNull(cmcd))
			p.plays(t)
			r.shuts(t, p, "alice")
		}, sites...)
	}
	reloads("hls-reload", "hls", hlsTS, "", "auto", "plain")
	reloads("hls-reload-cmcd", "hls", hlsTS, "query", "plain")
	reloads("native-reload", "native", channelTS, "", "plain")

	// Two tabs of one browser: the same cookies, address and User-Agent.
	twins := func(name, player, media, cmcd string, sites ...string) {
		add(name, player, "two tabs of one browser that show the same at once", func(t *testing.T, r *recording) {
			one := r.opens(t, "alice", player, media, cmcd)
			other := one.beside(t, r.page(player))
			r.begins("alice", media)
			other.run(t, "play", media, orNull(cmcd))
			r.shows(t, other, 8)
			one.plays(t)
			r.shuts(t, one, "alice") // and the other with it
			r.ends("alice")
		}, sites...)
	}
	twins("hls-twins", "hls", channelTS, "", "auto", "plain")
	twins("hls-twins-cmcd", "hls", channelTS, "query", "plain")

	// The pages of docs/players.md reserve their guards by name, and say goodbye.
	add("hls-goodbye", "hls", "the page of docs/players.md: reserved, loaded again, stopped", func(t *testing.T, r *recording) {
		p := openTab(t, page("http://"+r.addr, "hls"), "alice")
		r.begins("alice", hlsTS)
		p.run(t, "playNamed", hlsTS)
		p.plays(t)
		p.do(t, "reload")
		r.moves(hlsTS) // under the name that the page has kept
		p.run(t, "playNamed", hlsTS)
		p.plays(t)
		p.run(t, "stop")
		r.shuts(t, p, "alice")
	}, "auto")
	add("video-reserved-cmcd", "video", "the page of docs/players.md: reserved, CMCD of one key", func(t *testing.T, r *recording) {
		p := openTab(t, page("http://"+r.addr, "video"), "alice")
		r.begins("alice", hlsTS)
		p.run(t, "play", hlsTS, "the only one")
		p.plays(t)
		r.shuts(t, p, "alice")
	}, "stream")
	add("hls-elsewhere-cmcd-header", "hls", "a page of another origin: CMCD in headers, and so with preflights", func(t *testing.T, r *recording) {
		p := openTab(t, r.stage.url+"/player/record.html?player=hls", "alice")
		r.begins("alice", hlsTS)
		p.run(t, "play", "http://"+r.addr+hlsTS, "header")
		p.plays(t)
		r.shuts(t, p, "alice")
	}, "plain")

	// On the command line, until some segments have been asked for.
	const host = "127.0.0.2"
	played := func(name, player, media, part string, segments int, shows string, sites ...string) {
		add(name, player, shows, func(t *testing.T, r *recording) {
			user := host
			if r.site == "basic" {
				user = "alice:secret@" + host
			}
			kill := r.runs(t, "alice", media, r.commandLine(t.Context(), t, player, user, media))
			r.asks(t, part, segments)
			kill()
		}, sites...)
	}
	add("ffmpeg-vod", "ffmpeg", "a film, HLS of MPEG-TS, at full speed to its end, as a download", func(t *testing.T, r *recording) {
		r.begins("alice", hlsTS)
		if out, err := r.play(t, "alice", hlsTS); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		r.ends("alice")
	}, "auto", "plain")
	ffmpeg := func(name, media, part string, segments int, shows string, sites ...string) {
		add(name, "ffmpeg", shows, func(t *testing.T, r *recording) {
			kill := r.runs(t, "alice", media, r.ffmpeg(t.Context(), t, "alice", media, realTime))
			r.asks(t, part, segments)
			kill()
		}, sites...)
	}
	ffmpeg("ffmpeg-vod-dash", mpd, ".m4s", 8, "a film, DASH, in real time", "plain")
	ffmpeg("ffmpeg-vod-byterange", "/media/byterange/master.m3u8", ".mp4", 4, "a film, HLS of byte ranges, in real time", "plain")
	ffmpeg("ffmpeg-live", channelTS, ".ts", 8, "a live channel, HLS, in real time", "auto", "plain")
	ffmpeg("ffmpeg-live-dash", channelDASH, ".m4s", 8, "a live channel, DASH, in real time", "auto", "plain")
	ffmpeg("ffmpeg-ll", channelLL, ".m4s", 6, "a live channel, low-latency HLS, which it plays as any", "plain")
	add("ffmpeg-killed", "ffmpeg", "a live channel; killed, and started again, twice", func(t *testing.T, r *recording) {
		for range 3 {
			kill := r.runs(t, "alice", channelTS, r.ffmpeg(t.Context(), t, "alice", channelTS, realTime))
			r.asks(t, ".ts", 6)
			kill()
		}
	}, "auto", "plain")

	played("mpv-vod", "mpv", hlsCMAF, ".m4s", 12, "a film, HLS with audio apart", "auto", "basic")
	played("mpv-vod-dash", "mpv", mpd, ".m4s", 12, "a film, DASH", "plain")
	played("mpv-live", "mpv", channelTS, ".ts", 8, "a live channel, HLS", "auto", "plain")
	played("mpv-live-dash", "mpv", channelDASH, ".m4s", 8, "a live channel, DASH", "auto")
	played("vlc-vod", "vlc", hlsCMAF, ".m4s", 8, "a film, HLS with audio apart", "auto", "plain")
	played("vlc-vod-dash", "vlc", mpd, ".m4s", 8, "a film, DASH", "plain")
	played("vlc-live", "vlc", channelTS, ".ts", 5, "a live channel, HLS", "auto", "basic")
	add("vlc-mp4", "vlc", "a film in one file: one answer until the player is killed", func(t *testing.T, r *recording) {
		kill := r.runs(t, host, film, r.commandLine(t.Context(), t, "vlc", host, film))
		lapse()
		kill()
	}, "auto", "plain")
	add("mpv-mp4", "mpv", "a film in one file, with jumps in it", func(t *testing.T, r *recording) {
		mpv := r.remote(t, host, film)
		mpv.tell(t, "seek", 50, "absolute")
		r.asks(t, ".mp4", 1)
		mpv.tell(t, "seek", 5, "absolute")
		lapse()
		mpv.kill()
	}, "auto", "plain")
	played("gst-vod", "gst", hlsTS, ".ts", 6, "a film, HLS of MPEG-TS", "auto", "plain")
	played("gst-live", "gst", channelTS, ".ts", 7, "a live channel, HLS", "auto", "plain")
	played("gst-live-dash", "gst", channelDASH, ".m4s", 8, "a live channel, DASH", "auto")

	add("mpv-zap", "mpv", "three live channels, one after the other", func(t *testing.T, r *recording) {
		cmd := r.commandLine(t.Context(), t, "mpv", host, tuned(liveTS, "zap0"))
		first := cmd.Args[len(cmd.Args)-1]
		for i := 1; i < 3; i++ {
			cmd.Args = append(cmd.Args, strings.Replace(first, "zap0", fmt.Sprint("zap", i), 1))
		}
		cmd.Args = append(cmd.Args, "--length=1") // of each
		for i := range 3 {
			r.begins(host, tuned(liveTS, fmt.Sprint("zap", i)))
			r.ends(host)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("mpv: %v\n%s", err, out)
		}
	}, "auto", "plain")
	add("mpv-pause", "mpv", "a live channel, paused for a quarter of a minute", func(t *testing.T, r *recording) {
		mpv := r.remote(t, host, channelTS)
		r.asks(t, ".ts", 3)
		mpv.tell(t, "set_property", "pause", true)
		lapse()
		mpv.tell(t, "set_property", "pause", false)
		r.asks(t, ".ts", 2)
		mpv.kill()
	}, "plain")
	add("mpv-twins", "mpv", "two players of one user and machine that show the same at once", func(t *testing.T, r *recording) {
		one := r.runs(t, host, channelTS, r.commandLine(t.Context(), t, "mpv", host, channelTS))
		r.asks(t, ".ts", 2)
		other := r.runs(t, host, channelTS, r.commandLine(t.Context(), t, "mpv", host, channelTS))
		r.asks(t, ".ts", 7)
		one()
		other()
	}, "auto", "plain")

	// Three users: one at two screens, one who changes the channel, and one more.
	add("household", "hls", "three users: two browsers at once, mpv at two channels one after the other, ffmpeg at a film in real time", func(t *testing.T, r *recording) {
		one := r.opens(t, "alice", "hls", channelTS, "")
		other := r.opens(t, "alice", "native", tuned(liveTS, "weather"), "")
		const bob = "127.0.0.3"
		kill := r.runs(t, bob, channelTS, r.commandLine(t.Context(), t, "mpv", bob, channelTS))
		download := r.runs(t, "carol", hlsTS, r.ffmpeg(t.Context(), t, "carol", hlsTS, realTime))
		r.shows(t, one, 6)
		download()
		kill()
		r.shuts(t, one, "alice")
		kill = r.runs(t, bob, tuned(liveTS, "sports"), r.commandLine(t.Context(), t, "mpv", bob, tuned(liveTS, "sports")))
		r.shows(t, other, 12)
		kill()
		r.shuts(t, other, "alice")
	}, "auto", "plain")
	return all
}

// page is where a player is in the browser that has not heard of the gate.
func (r *recording) page(player string) string {
	return "http://" + r.addr + "/player/record.html?player=" + player
}

// opens has a user of his own browser play something in it.
func (r *recording) opens(t *testing.T, user, player, media, cmcd string) *tab {
	t.Helper()
	p := openTab(t, r.page(player), user)
	r.begins(user, media)
	p.run(t, "play", media, orNull(cmcd))
	p.plays(t)
	return p
}

// orNull is an argument for a page that has it or has not.
func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// shows waits until a page has shown so much.
func (r *recording) shows(t *testing.T, p *tab, seconds float64) {
	t.Helper()
	eventually(t, "the page has shown enough", func() bool { return p.state(t).Played >= seconds })
}

// shuts closes a browser, and a playback is over with it.
func (r *recording) shuts(t *testing.T, p *tab, user string) {
	t.Helper()
	p.do(t, "quit")
	r.ends(user)
}

// runs starts a player; kill is as kill -9.
func (r *recording) runs(t *testing.T, user, media string, cmd *exec.Cmd) (kill func()) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.begins(user, media)
	kill = sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
		r.ends(user)
	})
	t.Cleanup(kill)
	return kill
}

// lapse is time in which a viewer does nothing, such as while he has paused.
func lapse() { <-time.After(15 * time.Second) }

// remote is mpv with a remote control.
type remote struct {
	socket string
	kill   func()
}

func (r *recording) remote(t *testing.T, user, media string) *remote {
	t.Helper()
	socket := strings.TrimPrefix(socket(t), "unix/")
	cmd := r.commandLine(t.Context(), t, "mpv", user, media)
	cmd.Args = slices.Insert(cmd.Args, 1, "--input-ipc-server="+socket)
	return &remote{socket, r.runs(t, user, media, cmd)}
}

// tell waits until mpv can do as it is told, and has done so.
func (m *remote) tell(t *testing.T, command ...any) {
	t.Helper()
	line, err := json.Marshal(map[string]any{"command": command})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, fmt.Sprintf("mpv has done %s", line), func() bool {
		c, err := net.Dial("unix", m.socket)
		if err != nil {
			return false
		}
		defer c.Close()
		fmt.Fprintf(c, "%s\n", line)
		for said := json.NewDecoder(c); ; { // events, too
			var answer struct{ Error string }
			if err := said.Decode(&answer); err != nil {
				return false
			}
			if answer.Error != "" {
				return answer.Error == "success"
			}
		}
	})
}
