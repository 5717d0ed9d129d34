package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// commands start players that throw picture and sound away, in real time.
var commands = map[string][]string{
	"mpv": {"mpv", "--no-config", "--vo=null", "--ao=null"},
	"vlc": {"cvlc", "--vout=dummy", "--aout=adummy", "--play-and-exit"},
	"gst": {"gst-launch-1.0", "playbin", "video-sink=fakesink sync=true", "audio-sink=fakesink sync=true"},
}

// commandLine is a player of something of the node's. It needs no options to say
// who is watching: each user asks a loopback address of their own.
func (n *node) commandLine(ctx context.Context, t *testing.T, player, user, path string) *exec.Cmd {
	t.Helper()
	args := commands[player]
	if _, err := exec.LookPath(args[0]); err != nil {
		t.Fatalf("%s is needed (make setup): %v", args[0], err)
	}
	_, port, _ := strings.Cut(n.addr, ":")
	url := "http://" + user + ":" + port + path
	if player == "gst" {
		url = "uri=" + url
	}
	cmd := exec.CommandContext(ctx, args[0], append(args[1:len(args):len(args)], url)...)
	cmd.Env = append(os.Environ(), "HOME=/nonexistent", "XDG_CACHE_HOME="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if player == "vlc" && os.Getuid() == 0 {
		const nobody = 65534 // VLC does not run as root
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	return cmd
}

func TestCommandLinePlayersHoldOneGuardEach(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	n := start(t, s.site(inRedis(redistest.Start(t)), "playback auto"))
	users := make(map[string]string) // what they play
	t.Run("", func(t *testing.T) {
		for player := range commands {
			for _, media := range []string{hlsCMAF, hlsTS, mpd, liveCMAF, liveTS, liveDASH} {
				if player == "gst" && media == mpd {
					continue // to GStreamer "<MPD" in a line of its own is no MPD
				}
				user := fmt.Sprintf("127.0.1.%d", 1+len(users))
				users[user] = player + media
				t.Run(users[user], func(t *testing.T) {
					t.Parallel()
					v := n.watching(t, user, n.commandLine(context.Background(), t, player, user, tuned(media, user)))
					eventually(t, "it has played some segments", func() bool {
						v.playing(t)
						return s.asked(user, ".m4s")+s.asked(user, ".ts") >= 5
					})
					n.holds(t, user, 1)
					v.kill()
				})
			}
		}
	})
	for user := range users {
		n.neverHeldTwo(t, user)
	}
}

func TestFourthCommandLinePlayerIsRefused(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	n := start(t, s.site(inRedis(redistest.Start(t)), "playback auto", "interval 3s", "ttl 90s"))
	for i, player := range []string{"mpv", "vlc", "gst"} {
		t.Run(player, func(t *testing.T) {
			t.Parallel()
			user := fmt.Sprintf("127.0.2.%d", 1+i)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			var three []*viewer
			for range 3 {
				three = append(three, n.watching(t, user, n.commandLine(context.Background(), t, player, user, tuned(liveTS, user))))
			}
			n.holds(t, user, 3)
			out, err := n.commandLine(ctx, t, player, user, hlsCMAF).CombinedOutput()
			if ctx.Err() != nil {
				t.Fatalf("the refused player does not end: %s", out)
			}
			if s.asked(user, "/media/cmaf/s") > 0 {
				t.Errorf("the fourth player was let through: %v\n%s", err, out)
			}
			n.goOn(t, user, three...)
			three[0].kill()
			n.want(t, 204, user, "DELETE", "/guards/"+three[0].guard, "")
			three[0] = n.watching(t, user, n.commandLine(context.Background(), t, player, user, tuned(liveTS, user)))
			n.goOn(t, user, three...)
		})
	}
}
