package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"

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

// A start that comes to another node than the one that has seen the closing waits for it
// there, too.
func TestStartOnAnotherNodeWaitsForWhatHasJustBeenLeft(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a, b := pair(t, monitored(inRedis(server), "limit 1"))
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer client.Close()
	news := client.Subscribe(t.Context(), "ended:sg:")
	if _, err := news.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	leave := func(user string) {
		t.Helper()
		a.client = &http.Client{Transport: new(http.Transport)}
		a.want(t, 201, user, "POST", "/guards", `{"playbackId":"p"}`)
		a.want(t, 200, user, "POST", "/guards", `{"playbackId":"p"}`)
		a.client.CloseIdleConnections()
		for {
			m, err := news.ReceiveMessage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(m.Payload) == 21 { // an id, and when it is to be closed
				b.guards(t, user) // and by now the other node has read it as well
				return
			}
		}
	}
	leave("alice")
	b.want(t, 201, "alice", "POST", "/guards", `{"playbackId":"next"}`)

	leave("bob")
	starts := make(chan *answer)
	go func() {
		answer, err := b.send("bob", "POST", "/guards", `{"playbackId":"next"}`)
		if err != nil {
			t.Error(err)
		}
		starts <- answer
	}()
	a.want(t, 200, "bob", "POST", "/guards", `{"playbackId":"p"}`)
	if answer := <-starts; answer != nil && answer.status != 429 {
		t.Errorf("a start beside a playback that is back was answered %d", answer.status)
	}
}
