package redisstore

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/redisstore/redistest"
)

// works has a store do everything it can.
func works(t *testing.T, s *Store) {
	t.Helper()
	ctx := t.Context()
	ended := make(chan guard.ID, 100)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	go s.Watch(watching, func(n guard.News) { ended <- n.ID })
	var batch []guard.Request
	for _, user := range []string{"a", "b", "c", "d", "e"} {
		if v, err := s.Acquire(ctx, claim(user, "1"), policy); err != nil || v.Outcome != guard.Admitted {
			t.Fatalf("acquire: %v, %v", v.Outcome, err)
		}
		batch = append(batch, guard.Request{Claim: claim(user, "1"), Policy: policy})
	}
	for range 2 {
		for _, a := range s.AcquireAll(ctx, batch) {
			if a.Err != nil || a.Verdict.Outcome != guard.Refreshed {
				t.Fatalf("acquire all: %v, %v", a.Verdict.Outcome, a.Err)
			}
		}
	}
	if v, err := s.Refresh(ctx, "a", claim("a", "1").ID, policy); err != nil || v.Outcome != guard.Refreshed {
		t.Fatalf("refresh: %v, %v", v.Outcome, err)
	}
	if guards, err := s.List(ctx, "b"); err != nil || len(guards) != 1 {
		t.Fatalf("list: %v, %v", guards, err)
	}
	for _, server := range s.Probe(ctx) {
		if server.Err != nil || server.Name == "" {
			t.Errorf("probe: %+v", server)
		}
	}
	if err := s.Tell(ctx, guard.News{ID: claim("a", "1").ID, ClosedIn: time.Second}); err != nil {
		t.Errorf("tell: %v", err)
	}
	deadline := time.After(time.Minute)
	for n, heard := 0, false; !heard; n++ { // each time another: one that was revoked stays so
		c := claim("f", strconv.Itoa(n))
		s.Acquire(ctx, c, policy)
		if found, err := s.Revoke(ctx, "f", c.ID, guard.Policy{TTL: time.Millisecond}); err != nil {
			t.Fatalf("revoke: %v, %v", found, err)
		}
		select {
		case <-ended:
			heard = true
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			t.Fatal("the end of a guard is not heard of")
		}
	}
}

func TestTLSWithOwnAuthorityAndClientCertificate(t *testing.T) {
	dir := t.TempDir()
	ca, caKey := certificate(t, dir, "ca", nil, nil)
	certificate(t, dir, "server", ca, caKey)
	certificate(t, dir, "client", ca, caKey)
	path := func(name string) string { return filepath.Join(dir, name) }
	port := redistest.FreePort(t)
	redistest.Start(t, "--tls-port", port, "--tls-cert-file", path("server.crt"), "--tls-key-file", path("server.key"),
		"--tls-ca-cert-file", path("ca.crt"), "--tls-auth-clients", "yes")
	authority := x509.NewCertPool()
	authority.AddCert(ca)
	client, err := tls.LoadX509KeyPair(path("client.crt"), path("client.key"))
	if err != nil {
		t.Fatal(err)
	}
	addr := net.JoinHostPort("127.0.0.1", port)
	works(t, open(t, Options{Addresses: []string{addr}, TLS: &tls.Config{RootCAs: authority, Certificates: []tls.Certificate{client}}}))
	works(t, open(t, Options{URL: "rediss://" + addr, KeyPrefix: "url:", TLS: &tls.Config{RootCAs: authority, Certificates: []tls.Certificate{client}}}))
	for name, config := range map[string]*tls.Config{
		"no client certificate": {RootCAs: authority},
		"another authority":     {Certificates: []tls.Certificate{client}},
	} {
		if _, err := open(t, Options{Addresses: []string{addr}, TLS: config}).List(t.Context(), "u"); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// certificate writes a certificate and its key as PEM files; without an issuer
// it is an authority.
func certificate(t *testing.T, dir, name string, issuer *x509.Certificate, issuerKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		BasicConstraintsValid: true,
		IsCA:                  issuer == nil,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	if issuer == nil {
		issuer, issuerKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, issuerKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		name + ".crt": {Type: "CERTIFICATE", Bytes: der},
		name + ".key": {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func TestUnixSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "redis.sock")
	redistest.Start(t, "--unixsocket", socket)
	works(t, open(t, Options{Addresses: []string{socket}}))
	works(t, open(t, Options{URL: "unix://" + socket, KeyPrefix: "url:"}))
}

// startCluster runs three masters of a Cluster, one third of the slots each.
func startCluster(t *testing.T) (servers []told, addrs []string) {
	t.Helper()
	for i := range 3 {
		s := tell(t, "+cluster|slots +asking", "--cluster-enabled", "yes")
		servers, addrs = append(servers, s), append(addrs, s.Addr)
		s.do(t, "CLUSTER", "ADDSLOTSRANGE", i*16384/3, (i+1)*16384/3-1)
		host, port, _ := net.SplitHostPort(s.Addr)
		servers[0].do(t, "CLUSTER", "MEET", host, port)
	}
	until(t, "the Cluster has come together", func() bool {
		for _, s := range servers {
			if !strings.Contains(s.ClusterInfo(t.Context()).Val(), "cluster_state:ok") || strings.Count(s.ClusterNodes(t.Context()).Val(), "connected") < 3 {
				return false
			}
		}
		return true
	})
	return servers, addrs
}

func TestCluster(t *testing.T) {
	_, addrs := startCluster(t)
	s := open(t, Options{Addresses: addrs})
	works(t, s)
	walksAllOf(t, s, 2000)
	if servers := s.Probe(t.Context()); len(servers) != 3 {
		t.Errorf("probe: %+v, want the 3 masters", servers)
	}
	works(t, open(t, Options{Addresses: addrs[1:2], Cluster: true, KeyPrefix: "other:"}))
}

func TestLeastRightsSufficeWhileASlotMoves(t *testing.T) {
	servers, addrs := startCluster(t)
	s := open(t, Options{Addresses: addrs, Username: "gate", Password: "secret"})
	ctx, c, key := t.Context(), claim("u", "1"), s.key("u")
	goesOn := func(when string) {
		t.Helper()
		v, err := s.Acquire(ctx, c, policy)
		a := s.AcquireAll(ctx, []guard.Request{{Claim: c, Policy: policy}})[0]
		guards, listed := s.List(ctx, "u")
		if err := errors.Join(err, a.Err, listed); err != nil || v.Outcome != guard.Refreshed || a.Verdict.Outcome != guard.Refreshed || len(guards) != 1 {
			t.Errorf("%s: %v, %v, %v; %v", when, v.Outcome, a.Verdict.Outcome, guards, err)
		}
	}
	acquires(t, s, guard.Admitted, "1", guard.Play)
	slot := servers[0].ClusterKeySlot(ctx, key).Val()
	from := int(slot*3) / 16384
	to := (from + 1) % 3
	fromID, toID := servers[from].ClusterMyID(ctx).Val(), servers[to].ClusterMyID(ctx).Val()
	servers[to].do(t, "CLUSTER", "SETSLOT", slot, "IMPORTING", fromID)
	servers[from].do(t, "CLUSTER", "SETSLOT", slot, "MIGRATING", toID)
	goesOn("before its key has moved")
	host, port, _ := net.SplitHostPort(servers[to].Addr)
	servers[from].do(t, "MIGRATE", host, port, key, 0, 5000)
	goesOn("when its key has moved")
	servers[to].do(t, "SCRIPT", "FLUSH")
	goesOn("when the new server has forgotten the scripts")
	for _, server := range servers {
		server.do(t, "CLUSTER", "SETSLOT", slot, "NODE", toID)
	}
	goesOn("when its slot has moved")
	for _, server := range servers {
		if refused := server.Do(ctx, "ACL", "LOG").Val().([]any); len(refused) > 0 {
			t.Errorf("refused: %v", refused)
		}
	}
}

// A seed has a name of its own, and is called no more once all are known.
func TestOnlyServersOfTheClusterAreAway(t *testing.T) {
	_, addrs := startCluster(t)
	_, port, _ := net.SplitHostPort(addrs[0])
	s := open(t, Options{Addresses: []string{"localhost:" + port}, Cluster: true})
	if _, err := s.List(t.Context(), "u"); err != nil {
		t.Fatal(err)
	}
	if _, called := s.Away()["localhost:"+port]; !called {
		t.Error("the seed was not called")
	}
	s.Nodes(t.Context())
	for server := range s.Away() {
		if !slices.Contains(addrs, server) {
			t.Errorf("%s is none of the Cluster's %v", server, addrs)
		}
	}
}

func TestServerOfAClusterThatHangsConcernsOnlyItsOwnUsers(t *testing.T) {
	servers, addrs := startCluster(t)
	o := Options{Addresses: addrs, Timeout: 2 * time.Second}
	one, all := open(t, o), open(t, o)
	var asking []*Store // some of them first of all the server that hangs, who the others are
	for range 8 {
		s := open(t, o)
		if nodes := s.Nodes(t.Context()); len(nodes) != 3 {
			t.Fatalf("%+v", nodes)
		}
		asking = append(asking, s)
	}
	var batch []guard.Request
	for n := range 30 {
		batch = append(batch, guard.Request{Claim: claim(strconv.Itoa(n), "1"), Policy: policy})
	}
	for _, s := range []*Store{one, all} {
		for _, a := range s.AcquireAll(t.Context(), batch) {
			if a.Err != nil {
				t.Fatal(a.Err)
			}
		}
	}
	servers[0].Pause()
	defer servers[0].Resume()
	concerns := func(how string, r guard.Request, err error) {
		server, unknown := one.master(t.Context(), one.key(r.Claim.User))
		if unknown != nil {
			t.Error(unknown)
			return
		}
		if hangs := server.Options().Addr == servers[0].Addr; hangs != (err != nil) {
			t.Errorf("%s: a user whose server hangs: %t; %v", how, hangs, err)
		}
	}
	var calls sync.WaitGroup
	for _, r := range batch {
		calls.Go(func() {
			_, err := one.Acquire(t.Context(), r.Claim, r.Policy)
			concerns("one by one", r, err)
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	for _, s := range asking {
		calls.Go(func() {
			for _, n := range s.Nodes(ctx) {
				if hangs := n.Server == addrs[0]; hangs != (n.Err != nil) {
					t.Errorf("%s hangs: %t; %v", n.Server, hangs, n.Err)
				}
			}
		})
	}
	for i, a := range all.AcquireAll(t.Context(), batch) {
		concerns("all", batch[i], a.Err)
	}
	calls.Wait()
}

// walksAllOf has a walk meet so many new users, each once.
func walksAllOf(t *testing.T, s *Store, users int) {
	t.Helper()
	var batch []guard.Request
	for n := range users {
		batch = append(batch, guard.Request{Claim: claim("many"+strconv.Itoa(n), "1"), Policy: policy})
	}
	for _, a := range s.AcquireAll(t.Context(), batch) {
		if a.Err != nil {
			t.Fatal(a.Err)
		}
	}
	met := make(map[string]int)
	err := s.Walk(t.Context(), func(user string, guards []guard.Guard) {
		if strings.HasPrefix(user, "many") {
			met[user] += len(guards)
		}
	})
	if err != nil || len(met) != users {
		t.Fatalf("walk met %d of %d users: %v", len(met), users, err)
	}
}

func TestSentinel(t *testing.T) {
	master := redistest.Start(t, "--requirepass", "secret")
	_, port, _ := net.SplitHostPort(master.Addr)
	config := filepath.Join(t.TempDir(), "sentinel.conf")
	text := "sentinel monitor guards 127.0.0.1 " + port + " 1\nsentinel auth-pass guards secret\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel := redistest.StartSentinel(t, config)
	s := open(t, Options{Addresses: []string{sentinel.Addr}, MasterName: "guards", Password: "secret"})
	works(t, s)
	walksAllOf(t, s, 600)
	if servers := s.Probe(t.Context()); len(servers) != 1 || !strings.HasPrefix(servers[0].Name, "guards@") {
		t.Errorf("probe: %+v", servers)
	}
}

// A machine with the master and the Sentinel that the store asks hangs: the
// other Sentinels make the replica the master.
func TestSentinelAndMasterThatHang(t *testing.T) {
	master := redistest.Start(t, "--repl-diskless-sync-delay", "0")
	host, port, _ := net.SplitHostPort(master.Addr)
	replica := redistest.Start(t, "--replicaof", host+" "+port)
	var sentinels []*redistest.Server
	var asked []*redis.SentinelClient
	for range 3 {
		config := filepath.Join(t.TempDir(), "sentinel.conf")
		text := "sentinel monitor guards 127.0.0.1 " + port + " 2\nsentinel down-after-milliseconds guards 1000\nsentinel failover-timeout guards 4000\n"
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		sentinel := redistest.StartSentinel(t, config)
		client := redis.NewSentinelClient(&redis.Options{Addr: sentinel.Addr})
		defer client.Close()
		sentinels, asked = append(sentinels, sentinel), append(asked, client)
	}
	until(t, "the Sentinels know each other and the replica", func() bool {
		for _, s := range asked {
			replicas := s.Replicas(t.Context(), "guards").Val()
			if len(s.Sentinels(t.Context(), "guards").Val()) != 2 || len(replicas) != 1 || replicas[0]["master-link-status"] != "ok" {
				return false
			}
		}
		return true
	})
	s := open(t, Options{Addresses: []string{sentinels[0].Addr}, MasterName: "guards", Timeout: time.Second})
	ended := make(chan guard.ID, 1000)
	go s.Watch(t.Context(), func(n guard.News) { ended <- n.ID })
	hears := func() bool {
		s.Acquire(t.Context(), claim("u", "1"), policy) // fails as long as no master answers
		s.Release(t.Context(), "u", claim("u", "1").ID, policy)
		return len(ended) > 0
	}
	until(t, "the end of a guard is heard of", hears)
	sentinels[0].Pause()
	master.Pause()
	until(t, "there is another master", func() bool {
		addr := asked[1].GetMasterAddrByName(t.Context(), "guards").Val()
		return len(addr) == 2 && net.JoinHostPort(addr[0], addr[1]) == replica.Addr
	})
	for len(ended) > 0 {
		<-ended
	}
	until(t, "the end of a guard of the new master is heard of", hears)
}
