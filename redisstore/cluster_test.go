package redisstore

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/redisstore/redistest"
)

// Two Caddys know one server each: the users are counted once.
func TestOneAddressOfAClusterIsTheCluster(t *testing.T) {
	servers, addrs := startCluster(t)
	for _, s := range servers {
		s.do(t, "ACL", "SETUSER", "old", "on", ">secret", "~sg:*", "&*", "+@all", "-hello", "-ping")
	}
	for name, o := range map[string]Options{
		"it says so":         {},
		"by URL":             {URL: "redis://" + addrs[0]},
		"it has only MOVED":  {Username: "old", Password: "secret"},
		"with a prefix":      {KeyPrefix: "other:"},
		"as a Cluster given": {Cluster: true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, s := range servers {
				s.do(t, "FLUSHALL")
			}
			var stores []*Store
			for i := range 2 {
				o := o
				if o.URL == "" {
					o.Addresses = addrs[i : i+1]
				}
				stores = append(stores, open(t, o))
			}
			one := guard.Policy{Limit: 1, Interval: policy.Interval, TTL: policy.TTL}
			for n := range 30 {
				user := strconv.Itoa(n)
				for i, want := range []guard.Outcome{guard.Admitted, guard.Rejected} {
					if v, err := stores[i].Acquire(t.Context(), claim(user, strconv.Itoa(i)), one); err != nil || v.Outcome != want {
						t.Fatalf("user %s at Caddy %d: %v, %v, want %v", user, i, v.Outcome, err, want)
					}
				}
				a := stores[0].AcquireAll(t.Context(), []guard.Request{{Claim: claim(user, "0"), Policy: one}})[0]
				if a.Err != nil || a.Verdict.Outcome != guard.Refreshed {
					t.Fatalf("user %s in a batch: %v, %v", user, a.Verdict.Outcome, a.Err)
				}
			}
			for _, s := range stores {
				met := 0
				if err := s.Walk(t.Context(), func(string, []guard.Guard) { met++ }); err != nil || met != 30 {
					t.Errorf("a walk meets %d users, %v; want 30", met, err)
				}
				if probed := s.Probe(t.Context()); len(probed) != 3 {
					t.Errorf("probe: %+v, want the 3 masters", probed)
				}
			}
		})
	}
}

// It is found before anything was asked.
func TestWalkAndProbeKnowTheWholeCluster(t *testing.T) {
	_, addrs := startCluster(t)
	all := open(t, Options{Addresses: addrs})
	for n := range 30 {
		if _, err := all.Acquire(t.Context(), claim(strconv.Itoa(n), "1"), policy); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, Options{Addresses: addrs[:1]})
	if probed := s.Probe(t.Context()); len(probed) != 3 {
		t.Errorf("probe: %+v, want the 3 masters", probed)
	}
	met := 0
	s = open(t, Options{Addresses: addrs[:1]})
	if err := s.Walk(t.Context(), func(string, []guard.Guard) { met++ }); err != nil || met != 30 {
		t.Errorf("a walk meets %d users, %v; want 30", met, err)
	}
	ended := make(chan guard.ID, 1000)
	go s.Watch(t.Context(), func(n guard.News) { ended <- n.ID })
	until(t, "an end at another server is heard of", func() bool {
		acquires(t, all, guard.Admitted, "1", guard.Play)
		_, err := all.Release(t.Context(), "u", claim("u", "1").ID, guard.Policy{TTL: time.Millisecond})
		return err == nil && len(ended) > 0
	})
	s.Close()
	s.join() // a late MOVED
	if c := s.cluster.Load(); c.Ping(t.Context()).Err() == nil {
		t.Error("a closed store has connections")
	}
}

func TestOneServerThatIsNoServerForThis(t *testing.T) {
	servers, addrs := startCluster(t)
	_ = servers
	sentinel := redistest.StartSentinel(t, sentinelConfig(t, redistest.Start(t).Addr))
	for name, c := range map[string]struct {
		options Options
		want    string
	}{
		"a Sentinel":                {Options{Addresses: []string{sentinel.Addr}}, "is a Sentinel: name the master"},
		"a database of a Cluster's": {Options{Addresses: addrs[:1], DB: 2}, "db: 2, but"},
	} {
		s := open(t, c.options)
		_, err := s.List(t.Context(), "u")
		probed := s.Probe(t.Context())
		nodes := s.Nodes(t.Context())
		for by, err := range map[string]error{"list": err, "probe": probed[0].Err, "metrics": nodes[0].Err} {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s, %s: %v, want %q", name, by, err, c.want)
			}
		}
	}
}
