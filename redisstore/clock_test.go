package redisstore

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/redisstore/redistest"
)

// acquires expects an outcome.
func acquires(t *testing.T, s *Store, want guard.Outcome, playback string, intent guard.Intent) guard.Verdict {
	t.Helper()
	c := claim("u", playback)
	c.Intent = intent
	v, err := s.Acquire(t.Context(), c, policy)
	if err != nil || v.Outcome != want {
		t.Fatalf("acquire %s: %v, %v, want %v", playback, v.Outcome, err, want)
	}
	return v
}

func holds(t *testing.T, s *Store, want int) {
	t.Helper()
	if guards, err := s.List(t.Context(), "u"); err != nil || len(guards) != want {
		t.Fatalf("list: %v, %v, want %d guards", guards, err, want)
	}
}

func TestClockThatJumpsForwardCostsAPlayingViewerNothing(t *testing.T) {
	server := redistest.StartWithClock(t)
	s := open(t, Options{Addresses: []string{server.Addr}})
	for _, playback := range []string{"1", "2", "3"} {
		acquires(t, s, guard.Admitted, playback, guard.Play)
	}
	server.Advance(t, time.Hour)
	holds(t, s, 0)
	// Somebody is faster than two of those who play: these come back all the same.
	acquires(t, s, guard.Admitted, "new", guard.Play)
	acquires(t, s, guard.Admitted, "1", guard.Resume)
	acquires(t, s, guard.Admitted, "2", guard.Resume)
	acquires(t, s, guard.Admitted, "3", guard.Resume)
	holds(t, s, 4)
	acquires(t, s, guard.Rejected, "newer", guard.Play)
}

// Who has left before the clock goes back keeps the slot for ttl, and not until
// the clock is where it was.
func TestClockThatJumpsBackKeepsNobodyBeyondTTL(t *testing.T) {
	server := redistest.StartWithClock(t)
	s := open(t, Options{Addresses: []string{server.Addr}})
	for _, playback := range []string{"plays", "left", "released", "revoked"} {
		acquires(t, s, guard.Admitted, playback, guard.Resume)
	}
	server.Advance(t, guard.Settle)
	for playback, end := range map[string]func() (bool, error){
		"released": func() (bool, error) { return s.Release(t.Context(), "u", claim("u", "released").ID, policy) },
		"revoked":  func() (bool, error) { return s.Revoke(t.Context(), "u", claim("u", "revoked").ID, policy) },
	} {
		if found, err := end(); err != nil || !found {
			t.Fatalf("%s: %v, %v", playback, found, err)
		}
	}
	acquires(t, s, guard.Admitted, "left too", guard.Play)
	server.Advance(t, -time.Hour)

	// Even a call that is refused starts the count-down.
	if v := acquires(t, s, guard.Rejected, "new", guard.Play); v.FreeIn != policy.TTL {
		t.Errorf("free in %v, want %v", v.FreeIn, policy.TTL)
	}
	if left := s.client.PTTL(t.Context(), s.key("u")).Val(); left != policy.TTL {
		t.Errorf("the key lives for %v, want %v", left, policy.TTL)
	}
	acquires(t, s, guard.Released, "released", guard.Play)
	server.Advance(t, guard.Settle)
	acquires(t, s, guard.Rejected, "released", guard.Play)
	acquires(t, s, guard.Refreshed, "plays", guard.Resume)
	server.Advance(t, policy.TTL-guard.Settle-time.Second)
	if v := acquires(t, s, guard.Revoked, "revoked", guard.Resume); v.FreeIn != time.Second {
		t.Errorf("revoked for another %v, want 1s", v.FreeIn)
	}
	if v := acquires(t, s, guard.Rejected, "new", guard.Play); v.FreeIn != time.Second {
		t.Errorf("free in %v, want 1s", v.FreeIn)
	}
	server.Advance(t, time.Second)
	holds(t, s, 1)
	acquires(t, s, guard.Admitted, "new", guard.Play)
	acquires(t, s, guard.Admitted, "revoked", guard.Play)
}

// The replica that takes over has another idea of the time than its master had.
func TestFailoverToAClockThatIsOff(t *testing.T) {
	for name, off := range map[string]time.Duration{"an hour ahead": time.Hour, "an hour behind": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			master := redistest.StartWithClock(t, "--repl-diskless-sync-delay", "0")
			s := open(t, Options{Addresses: []string{master.Addr}})
			for _, playback := range []string{"plays", "left", "left too"} {
				acquires(t, s, guard.Admitted, playback, guard.Play)
			}
			host, port, _ := net.SplitHostPort(master.Addr)
			replica := redistest.StartWithClock(t, "--replicaof", host+" "+port)
			replica.Advance(t, off)
			s = open(t, Options{Addresses: []string{replica.Addr}})
			until(t, "the replica has the key", func() bool { return s.client.DBSize(t.Context()).Val() == 1 })
			master.Kill()
			if err := s.client.Do(t.Context(), "REPLICAOF", "NO", "ONE").Err(); err != nil {
				t.Fatal(err)
			}

			if v := acquires(t, s, map[bool]guard.Outcome{true: guard.Admitted, false: guard.Refreshed}[off > 0], "plays", guard.Resume); v.Guard.RemovedAt.Sub(v.Guard.ExpiresAt) != policy.TTL-policy.Interval {
				t.Errorf("guard %+v", v.Guard)
			}
			replica.Advance(t, policy.TTL-time.Second)
			acquires(t, s, guard.Refreshed, "plays", guard.Resume)
			replica.Advance(t, time.Second)
			holds(t, s, 1)
		})
	}
}

// Redis answers nobody else meanwhile.
func TestPuttingAValueRightIsLinear(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, Options{Addresses: []string{server.Addr}})
	const guards = 1000
	ahead := "\xff\xff\xff\xff\xff\xff"
	name := strings.Repeat("s", 255)
	for what, refreshed := range map[string]string{"over": "\x00\x00\x00\x00\x00\x01", "ahead of the clock": ahead} {
		record := func(refreshed string) string {
			return "G0123456789abcdef" + "\x00\xff" + refreshed + "\x00\x00\xff\xff" + "\x00\x00\x00\x09" + "\x00\x00\x00\x01" +
				"\x00\x00" + "\xff\x00\x00\x00" + refreshed + "\x00\x00" + "\x00\x00\x00\x00" + name
		}
		text := "2" + strings.Repeat(record(refreshed), guards-1) + record(ahead)
		if err := s.client.Set(t.Context(), s.key("u"), text, time.Minute).Err(); err != nil {
			t.Fatal(err)
		}
		made, err := redis.NewScript(`
			collectgarbage('stop')
			local before = collectgarbage('count')
			`+valueLua+`
			locate('')
			local after = collectgarbage('count')
			collectgarbage('restart')
			return (after - before) * 1024`).Run(t.Context(), s.client, []string{s.key("u")}).Int()
		if err != nil {
			t.Fatal(err)
		}
		if made > 20*len(text) {
			t.Errorf("of %d guards that are %s, in %d bytes, it makes %d bytes of strings", guards, what, len(text), made)
		}
	}
}
