package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// The slot of a player that was killed, or ended as a viewer ends it, can be taken
// seconds later, since its connections are closed. Another one of the same user, with
// the same program and address, plays on.
func TestSlotOfAPlayerThatIsGoneCanBeTaken(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	n := start(t, s.site(inRedis(redistest.Start(t)), "playback auto", "limit 2", "interval 3s", "ttl 90s"))
	users := 0
	for _, player := range []string{"ffmpeg", "mpv", "vlc"} {
		for _, end := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
			users++
			user := fmt.Sprintf("127.0.4.%d", users)
			t.Run(fmt.Sprint(player, " ", end), func(t *testing.T) {
				t.Parallel()
				command := func() *exec.Cmd {
					if player == "ffmpeg" {
						cmd := n.ffmpeg(context.Background(), t, "", tuned(liveTS, user), realTime)
						for i := range cmd.Args {
							cmd.Args[i] = strings.Replace(cmd.Args[i], "//127.0.0.1:", "//"+user+":", 1)
						}
						return cmd
					}
					return n.commandLine(context.Background(), t, player, user, tuned(liveTS, user))
				}
				stays := n.watching(t, user, command())
				cmd := command()
				gone := n.watching(t, user, cmd)
				eventually(t, "it has played some segments", func() bool { return s.asked(user, ".ts") >= 10 })
				if err := cmd.Process.Signal(end); err != nil {
					t.Fatal(err)
				}
				<-gone.exited
				eventually(t, "its guard is closed", func() bool {
					held, _ := n.listed(t, user)
					g, _ := held.find(gone.guard)
					return g.State == "closed"
				})
				n.want(t, 201, user, "POST", "/guards", `{"streamId":"next"}`)
				if _, there := n.guards(t, user).find(gone.guard); there {
					t.Error("the slot of the player that is gone was not taken")
				}
				n.goOn(t, user, stays)
				n.holds(t, user, 2)
			})
		}
	}
}
