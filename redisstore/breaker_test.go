package redisstore

import (
	"context"
	"testing"
	"time"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/redisstore/redistest"
)

// lateBehindSentinel is a store whose master, without a replica, is reached by
// a line.
func lateBehindSentinel(t *testing.T, o Options) (*Store, *redistest.Line) {
	t.Helper()
	line := redistest.NewLine(t, redistest.Start(t).Addr)
	o.Addresses, o.MasterName = []string{redistest.StartSentinel(t, sentinelConfig(t, line.Addr)).Addr}, "guards"
	return open(t, o), line
}

// A caller who waits for less than the store's timeout says nothing about the
// server: its breaker stays closed, and the next call is made.
func TestHurriedCallersDoNotOpenTheBreaker(t *testing.T) {
	const timeout = 2 * time.Second
	hurried := func(t *testing.T) context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), timeout/20)
		t.Cleanup(cancel)
		return ctx
	}
	for name, call := range map[string]func(*testing.T, *Store) error{
		"a list for display": func(t *testing.T, s *Store) error {
			_, err := s.List(guard.ForDisplay(t.Context()), "u")
			return err
		},
		"a list": func(t *testing.T, s *Store) error {
			_, err := s.List(hurried(t), "u")
			return err
		},
		"metrics": func(t *testing.T, s *Store) error { return s.Nodes(hurried(t))[0].Err },
		"a probe": func(t *testing.T, s *Store) error { return s.Probe(hurried(t))[0].Err },
		"a walk":  func(t *testing.T, s *Store) error { return s.Walk(hurried(t), func(string, []guard.Guard) {}) },
		"a batch": func(t *testing.T, s *Store) error {
			return s.AcquireAll(hurried(t), []guard.Request{{Claim: claim("u", "1"), Policy: policy}})[0].Err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, line := lateBehindSentinel(t, Options{Timeout: timeout, ReadFrom: ReadFromReplica, OnAway: func(server string, away bool) {
				t.Errorf("%s is away: %t", server, away)
			}})
			if _, err := s.List(t.Context(), "u"); err != nil {
				t.Fatal(err)
			}
			line.Set(redistest.Trouble{Latency: timeout * 7 / 20}) // answers come after more than half of timeout
			for range 3 * tripAfter {
				if err := call(t, s); err == nil && name != "a list for display" { // only its first waits for a replica
					t.Fatal("the call has not been hurried")
				}
			}
			line.Set(redistest.Trouble{})
			acquires(t, s, guard.Admitted, "1", guard.Play)
		})
	}
}

// A replica that hangs costs one list in a second its half of the timeout.
func TestListsDoNotWaitForAReplicaThatIsLate(t *testing.T) {
	const timeout = 4 * time.Second
	s, line := lateBehindSentinel(t, Options{Timeout: timeout, ReadFrom: ReadFromReplica})
	display := guard.ForDisplay(t.Context())
	if _, err := s.List(display, "u"); err != nil {
		t.Fatal(err)
	}
	line.Set(redistest.Trouble{NoAnswers: true})
	if _, err := s.askReplica(t.Context(), "u"); err == nil {
		t.Fatal("the replica has answered")
	}
	if _, err := s.listOfReplica(t.Context(), "u"); err == nil {
		t.Fatal("the replica has answered")
	}
	line.Set(redistest.Trouble{})
	if _, err := s.listOfReplica(t.Context(), "u"); err != errReplicaLate {
		t.Errorf("just after that: %v", err)
	}
	until(t, "the replica is asked again", func() bool {
		_, err := s.listOfReplica(t.Context(), "u")
		return err == nil
	})
}
