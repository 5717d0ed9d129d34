package redisstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/redisstore/redistest"
)

// A firewall forgets every connection there is, and tells nobody: the next call
// of each kind is answered within the timeout, and endings are heard again.
func TestForgottenConnectionsAreReplacedWithinTheCall(t *testing.T) {
	const timeout = 2 * time.Second
	for name, through := range map[string]func(t *testing.T) (Options, []*redistest.Line){
		"one server": func(t *testing.T) (Options, []*redistest.Line) {
			line := redistest.NewLine(t, redistest.Start(t).Addr)
			return Options{Addresses: []string{line.Addr}}, []*redistest.Line{line}
		},
		"TLS": func(t *testing.T) (Options, []*redistest.Line) {
			dir, port := t.TempDir(), redistest.FreePort(t)
			ca, key := certificate(t, dir, "ca", nil, nil)
			certificate(t, dir, "server", ca, key)
			path := func(name string) string { return filepath.Join(dir, name) }
			redistest.Start(t, "--tls-port", port, "--tls-cert-file", path("server.crt"), "--tls-key-file", path("server.key"),
				"--tls-ca-cert-file", path("ca.crt"), "--tls-auth-clients", "no")
			authority := x509.NewCertPool()
			authority.AddCert(ca)
			line := redistest.NewLine(t, "127.0.0.1:"+port)
			return Options{Addresses: []string{line.Addr}, TLS: &tls.Config{RootCAs: authority}}, []*redistest.Line{line}
		},
		"Sentinel": func(t *testing.T) (Options, []*redistest.Line) {
			toMaster := redistest.NewLine(t, redistest.Start(t).Addr)
			toSentinel := redistest.NewLine(t, redistest.StartSentinel(t, sentinelConfig(t, toMaster.Addr)).Addr)
			return Options{Addresses: []string{toSentinel.Addr}, MasterName: "guards"}, []*redistest.Line{toMaster, toSentinel}
		},
		"Cluster": func(t *testing.T) (Options, []*redistest.Line) {
			server := tell(t, "", "--cluster-enabled", "yes")
			server.do(t, "CLUSTER", "ADDSLOTSRANGE", 0, 16383)
			line := redistest.NewLine(t, server.Addr)
			_, port, _ := net.SplitHostPort(line.Addr)
			server.do(t, "CONFIG", "SET", "cluster-announce-port", port)
			until(t, "the Cluster serves", func() bool { return server.Do(t.Context(), "GET", "x").Err().Error() == "redis: nil" })
			return Options{Addresses: []string{line.Addr}, Cluster: true}, []*redistest.Line{line}
		},
	} {
		t.Run(name, func(t *testing.T) {
			o, lines := through(t)
			o.Timeout = timeout
			o.OnAway = func(server string, away bool) { t.Errorf("%s is away: %t", server, away) }
			s := open(t, o)
			ended := make(chan guard.ID, 1000)
			go s.Watch(t.Context(), func(n guard.News) { ended <- n.ID })
			one := guard.Policy{Limit: 1, Interval: policy.Interval, TTL: policy.TTL}
			if v, err := s.Acquire(t.Context(), claim("full", "1"), one); err != nil || v.Outcome != guard.Admitted {
				t.Fatal(v.Outcome, err)
			}
			hears := func() bool {
				c := claim("u", "1")
				_, acquired := s.Acquire(t.Context(), c, one)
				_, released := s.Release(t.Context(), "u", c.ID, one)
				if acquired != nil || released != nil {
					t.Fatal(acquired, released)
				}
				return len(ended) > 0
			}
			until(t, "the end of a guard is heard of", hears)
			var many sync.WaitGroup // so that there is more than one connection
			for n := range 10 {
				many.Go(func() { s.AcquireAll(t.Context(), []guard.Request{{Claim: claim(strconv.Itoa(n), "1"), Policy: one}}) })
			}
			many.Wait()
			refused := func(by string, v guard.Verdict, err error) {
				t.Helper()
				if err != nil || v.Outcome != guard.Rejected {
					t.Errorf("%s: %v, %v; want it to be refused", by, v.Outcome, err)
				}
			}
			forget := func() {
				for _, line := range lines {
					line.Set(redistest.Trouble{NoRequests: true, NoAnswers: true, Before: time.Now()})
				}
			}
			for range 3 {
				forget()
				v, err := s.Acquire(t.Context(), claim("full", "2"), one)
				refused("acquire", v, err)
				forget()
				a := s.AcquireAll(t.Context(), []guard.Request{{Claim: claim("full", "2"), Policy: one}})[0]
				refused("acquire all", a.Verdict, a.Err)
			}
			forget()
			for _, server := range s.Probe(t.Context()) {
				if server.Err != nil {
					t.Errorf("probe: %v", server.Err)
				}
			}
			forget()
			if err := s.Walk(t.Context(), func(string, []guard.Guard) {}); err != nil {
				t.Error(err)
			}
			for len(ended) > 0 {
				<-ended
			}
			until(t, "the end of a guard is heard of again", hears)
		})
	}
}

// Where a server is slow a new connection is no faster: none is given up.
func TestSlowServerKeepsItsConnections(t *testing.T) {
	server := redistest.Start(t)
	line := redistest.NewLine(t, server.Addr)
	s := open(t, Options{Addresses: []string{line.Addr}, Timeout: 2 * time.Second, PoolSize: 1})
	if _, err := s.List(t.Context(), "u"); err != nil {
		t.Fatal(err)
	}
	line.Set(redistest.Trouble{Latency: 300 * time.Millisecond}) // more than doubtAfter
	for range 3 {
		if _, err := s.List(context.Background(), "u"); err != nil {
			t.Fatal(err)
		}
	}
	if stats := s.client.PoolStats(); stats.Misses != 1 {
		t.Errorf("%d connections were made for calls, want 1", stats.Misses)
	}
}
