package e2e

import (
	"strings"
	"testing"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// The password of Redis is another one, and Caddy hears of it by a reload: in
// time, or when it has been locked out already. Viewers notice neither.
func TestPasswordOfRedisChanges(t *testing.T) {
	t.Parallel()
	for name, lockedOut := range map[string]bool{"new one first": false, "old one taken away first": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t)
			acl := func(changes ...string) {
				t.Helper()
				command(t, s, append([]string{"ACL", "SETUSER", "gate"}, changes...)...)
			}
			least := "on >old ~sg:* &ended:sg: -@all +evalsha +eval +get +set +time +publish +subscribe +unsubscribe +ping +hello"
			acl(strings.Fields(least)...)
			config := func(password string) string {
				store := "store redis {\n\t\t\taddress " + s.Addr + "\n\t\t\tusername gate\n\t\t\tpassword " + password + "\n\t\t\ttimeout 10s\n\t\t}"
				return site(files, store, "on_store_error deny", "playback auto", "limit 3", "interval 3s", "ttl 60s")
			}
			n := start(t, config("old"))
			viewers := []*viewer{n.watch(t, "alice", mpd, endless), n.watch(t, "alice", mpd, endless)}
			begin := func(session string) *answer {
				t.Helper()
				return n.ask(t, "alice", "GET", target+"?"+session, "", "CMCD-Session", `sid="`+session+`"`, "User-Agent", session)
			}
			answers := func(status int) {
				t.Helper()
				eventually(t, "the API answers", func() bool { return n.ask(t, "alice", "GET", "/guards", "").status == status })
			}

			acl(">new")
			if !lockedOut {
				n.reloadWell(t, config("new"))
				n.goOn(t, "alice", viewers...)
			}
			acl("<old")
			if got := say(s, "CLIENT", "KILL", "USER", "gate"); got == "0" || strings.Contains(got, "ERR") {
				t.Fatalf("connections of the gate's that were closed: %s", got)
			}
			if lockedOut {
				answers(503)
				n.playOn(t, 0, viewers...)
				if a := begin("denied"); a.status != 503 {
					t.Errorf("a newcomer was answered %d while nobody can be asked", a.status)
				}
				n.reloadWell(t, config("new"))
			}
			answers(200)
			n.goOn(t, "alice", viewers...)

			if held := n.guards(t, "alice"); len(held.Guards) != 2 {
				t.Errorf("alice holds %+v, want the guards of her two viewers", held.Guards)
			}
			if a := begin("third"); a.status != 200 {
				t.Errorf("a third was answered %d: %s", a.status, a.body)
			}
			refused(t, begin("fourth"), 3)
			for _, a := range n.accesses(t, "alice") {
				for _, v := range viewers {
					if strings.Contains(a.Request.URI, v.guard) && a.Status >= 400 && a.Status != 499 {
						t.Errorf("%s of a viewer was answered %d", a.Request.URI, a.Status)
					}
				}
			}
		})
	}
}
