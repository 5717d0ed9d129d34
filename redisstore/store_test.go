package redisstore

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sony/gobreaker/v2"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/guard/guardtest"
	"github.com/streamguard/streamguard/redisstore/redistest"
)

func open(tb testing.TB, o Options) *Store {
	tb.Helper()
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second // a busy machine is no fault
	}
	s, err := Open(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	return s
}

func TestStore(t *testing.T) {
	server := redistest.StartWithClock(t)
	s := open(t, Options{Addresses: []string{server.Addr}})
	run := func(t *testing.T, test func(*testing.T, guardtest.Harness)) {
		if err := s.client.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		h := harness(t, s, server)
		h.Size = func(user string) int {
			value, err := s.client.Get(t.Context(), s.key(user)).Result()
			if errors.Is(err, redis.Nil) {
				return 0
			}
			l, err := parse([]any{int64(0), value}, user)
			if err != nil {
				t.Fatal(err)
			}
			return l.records
		}
		test(t, h)
	}
	guardtest.Run(t, run)
	guardtest.RunShared(t, run)
}

// harness has the nodes of a store be told apart.
func harness(t *testing.T, s *Store, server *redistest.Server) guardtest.Harness {
	return guardtest.Harness{
		Store:   s,
		Advance: func(d time.Duration) { server.Advance(t, d) },
		As:      func(node uint8) { s.node = node },
	}
}

// fewerChecks has a test make fewer of rapid's checks than its default: each is
// hundreds of calls to a real Redis. make soak has thousands.
func fewerChecks(t *testing.T, n int) {
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		checks.Value.Set(strconv.Itoa(n))
		t.Cleanup(func() { checks.Value.Set(checks.DefValue) })
	}
}

// The scripts say in Lua what guard.Ledger says in Go.
func TestScriptsAreTheRules(t *testing.T) {
	fewerChecks(t, 20)
	server := redistest.StartWithClock(t)
	s := open(t, Options{Addresses: []string{server.Addr}})
	guardtest.Model(t, harness(t, s, server))
}

var policy = guard.Policy{Limit: 3, Interval: 60 * time.Second, TTL: 90 * time.Second}

func claim(user, playback string) guard.Claim {
	return guard.Claim{User: user, ID: guard.DeriveID(user, "", playback), Stream: "movie"}
}

func TestKeyExpiresWithItsLastRecord(t *testing.T) {
	server := redistest.StartWithClock(t)
	s := open(t, Options{Addresses: []string{server.Addr}, KeyPrefix: "test:"})
	if _, err := s.Acquire(t.Context(), claim("u", "1"), policy); err != nil {
		t.Fatal(err)
	}
	if ttl := s.client.PTTL(t.Context(), "test:u").Val(); ttl != policy.TTL {
		t.Errorf("the key lives for %v, want %v", ttl, policy.TTL)
	}
}

// Who starts many playbacks and ends none leaves nothing behind either.
func TestValueDoesNotGrow(t *testing.T) {
	server := redistest.StartWithClock(t)
	s := open(t, Options{Addresses: []string{server.Addr}})
	for n := range 100 {
		if v, err := s.Acquire(t.Context(), claim("u", fmt.Sprint(n)), policy); err != nil || v.Outcome != guard.Admitted {
			t.Fatal(v.Outcome, err)
		}
		server.Advance(t, 40*time.Second)
	}
	if n := s.client.StrLen(t.Context(), s.key("u")).Val(); n > 400 {
		t.Errorf("the value has %d bytes", n)
	}
}

// What a user holds is neither sent with each answer nor written once for each
// guard that is replaced: everybody else waits meanwhile.
func TestAnswersAndWritesAreSmall(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, Options{Addresses: []string{server.Addr}})
	const guards = 400
	many, few := policy, policy
	many.Limit = guards
	few.Limit, few.AtLimit = 1, guard.ReplaceOldest
	long := func(n int) guard.Claim {
		c := claim("u", strconv.Itoa(n))
		c.Stream, c.Device = strings.Repeat("s", guard.MaxLabel), strings.Repeat("d", guard.MaxLabel)
		return c
	}
	for n := range guards {
		if _, err := s.Acquire(t.Context(), long(n), many); err != nil {
			t.Fatal(err)
		}
	}
	stat := func(section, name string) int {
		_, rest, _ := strings.Cut(s.client.(*redis.Client).Info(t.Context(), section).Val(), name)
		n := 0
		fmt.Sscan(rest, &n)
		return n
	}
	one := 55 + 2*guard.MaxLabel
	for verb, c := range map[string]struct {
		most int
		call func() error
	}{
		"refresh":   {one, func() error { _, err := s.Refresh(t.Context(), "u", long(0).ID, many); return err }},
		"acquire":   {one, func() error { _, err := s.Acquire(t.Context(), long(1), many); return err }},
		"a refusal": {guard.MaxInTheWay * one, func() error { _, err := s.Acquire(t.Context(), long(guards), many); return err }},
		"no guard":  {0, func() error { _, err := s.Refresh(t.Context(), "u", long(guards).ID, many); return err }},
		"a look": {guard.MaxInTheWay * one, func() error {
			c := long(guards)
			c.Intent = guard.Look
			_, err := s.Acquire(t.Context(), c, many)
			return err
		}},
	} {
		const calls = 10
		before := stat("stats", "total_net_output_bytes:")
		for range calls {
			if err := c.call(); err != nil {
				t.Fatal(err)
			}
		}
		// What Redis says of itself is in it, and what the protocol adds.
		if got := (stat("stats", "total_net_output_bytes:") - before) / calls; got > c.most+1000 {
			t.Errorf("%s is answered with %d bytes, want %d", verb, got, c.most)
		}
	}
	s.client.ConfigResetStat(t.Context())
	v, err := s.Acquire(t.Context(), long(guards), few)
	if err != nil || len(v.Replaced) != guards {
		t.Fatalf("%d are replaced, %v", len(v.Replaced), err)
	}
	if sets, told := stat("commandstats", "cmdstat_set:calls="), stat("commandstats", "cmdstat_publish:calls="); sets != 1 || told != guards {
		t.Errorf("%d writes, want one; %d ends are told, want %d", sets, told, guards)
	}
}

// The scripts must survive a server that has forgotten them.
func TestScriptsComeBackAfterAFlush(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, Options{Addresses: []string{server.Addr}})
	for range 2 {
		if _, err := s.Acquire(t.Context(), claim("u", "1"), policy); err != nil {
			t.Fatal(err)
		}
		s.client.ScriptFlush(t.Context())
	}
}

func TestRedisAwayIsAnErrorNeverARefusal(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, Options{Addresses: []string{server.Addr}})
	server.Kill()
	ctx := t.Context()
	if _, err := s.Acquire(ctx, claim("u", "1"), policy); err == nil {
		t.Error("acquire: no error")
	}
	if _, err := s.Refresh(ctx, "u", guard.ID{}, policy); err == nil {
		t.Error("refresh: no error")
	}
	if _, err := s.Release(ctx, "u", guard.ID{}, policy); err == nil {
		t.Error("release: no error")
	}
	if _, err := s.Revoke(ctx, "u", guard.ID{}, policy); err == nil {
		t.Error("revoke: no error")
	}
	if _, err := s.Undo(ctx, "u", guard.ID{}, nil); err == nil {
		t.Error("undo: no error")
	}
	if _, err := s.List(ctx, "u"); err == nil {
		t.Error("list: no error")
	}
}

func TestAnswersThatAreNotOursAreErrors(t *testing.T) {
	for _, reply := range []any{
		nil, "OK", []any{}, []any{int64(1)}, []any{int64(1), "x"}, []any{"1", "1"},
		[]any{int64(1), "2G"}, []any{int64(1), "2" + strings.Repeat("G", 54)},
		[]any{int64(1), ""}, []any{int64(1), "1"}, []any{int64(1), "2", int64(0)},
	} {
		if _, err := parse(reply, "u"); err == nil {
			t.Errorf("parse(%q): no error", reply)
		}
	}
	for _, answer := range []any{
		nil,
		[]any{int64(0), int64(1), int64(0), ""},
		[]any{int64(guard.Known), int64(1), int64(0), ""},
		[]any{int64(guard.Doubted) + 1, int64(1), int64(0), ""},
		[]any{int64(guard.Admitted) + 256, int64(1), int64(0), ""},
		[]any{int64(1), int64(1), int64(-1), ""},
		[]any{int64(1), int64(1), "1", ""},
		[]any{int64(1), int64(1), int64(1), int64(1)},
		[]any{int64(1), int64(1), int64(1), "G"},
		[]any{int64(1), int64(1), int64(1), "", "0"},
		[]any{int64(1), int64(1), int64(1), "", int64(0), int64(0), int64(0), int64(0), "short", ""},
		[]any{int64(1), int64(1), int64(1), "", int64(0), int64(0), int64(0), int64(0), "", "short"},
	} {
		if _, err := readReply(answer, "u"); err == nil {
			t.Errorf("readReply(%q): no error", answer)
		}
	}
	for _, r := range []reply{{outcome: guard.Admitted}, {outcome: guard.Rejected, rule: 2}, {outcome: guard.Doubted}} {
		if _, err := r.verdict(&policy); err == nil {
			t.Errorf("%+v is a verdict", r)
		}
	}
}

func TestOptionsSayWhereRedisIs(t *testing.T) {
	for _, c := range []struct {
		options Options
		want    string
	}{
		{Options{}, "127.0.0.1:6379"},
		{Options{URL: "rediss://u:secret@h:1/2"}, "h:1/2"},
		{Options{URL: "unix:///run/redis"}, "/run/redis"},
		{Options{Addresses: []string{"a:1", "b:2"}, Password: "secret", KeyPrefix: "x:"}, "a:1,b:2 x:"},
		{Options{Addresses: []string{"s:1"}, MasterName: "m", DB: 3}, "m@s:1/3"},
	} {
		if got := c.options.String(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.options, got, c.want)
		}
	}
}

func TestOpenNamesTheOptionAtFault(t *testing.T) {
	for _, c := range []struct {
		options Options
		want    string
	}{
		{Options{URL: "http://h"}, "url: does not begin with redis://"},
		{Options{URL: "redis://u:secret@h:1/x"}, "url: the path is no number of a database"},
		{Options{URL: "redis://h?db=1"}, "options are lines of their own"},
		{Options{URL: "redis://u:se%ZZcret@h"}, "url: not a URL"},
		{Options{URL: "redis://h", Addresses: []string{"h:1"}}, "url and address exclude"},
		{Options{URL: "redis://h/1", DB: 2}, "db: 2, but the url says 1"},
		{Options{Addresses: []string{"localhost"}}, `address: "localhost" is neither`},
		{Options{Addresses: []string{"h:"}}, `address: "h:" is neither`},
		{Options{Addresses: []string{"h:65536"}}, `address: "h:65536" is neither`},
		{Options{Addresses: []string{"h:redis"}}, `address: "h:redis" is neither`},
		{Options{Addresses: []string{"h 1:1"}}, `address: "h 1:1" is neither`},
		{Options{Addresses: []string{"redis://h:1"}}, `address: is neither host:port`},
		{Options{Addresses: []string{":6379"}}, `address: ":6379" has no host`},
		{Options{Addresses: []string{"a:1", "[]:6379"}}, `address: "[]:6379" has no host`},
		{Options{Addresses: []string{":26379"}, MasterName: "m"}, `address: ":26379" has no host`},
		{Options{Addresses: []string{"h:1:2"}}, `address: "h:1:2" is neither`},
		{Options{Addresses: []string{"::1:6379"}}, `address: "::1:6379" is neither`},
		{Options{Addresses: []string{"h\n:1"}}, `address: "h\n:1" is neither`},
		{Options{Addresses: []string{"/run/a b"}}, `address: "/run/a b" is neither`},
		{Options{Addresses: []string{"redis://u:secret@h:1"}}, "address: has an @"},
		{Options{Addresses: []string{"secret@h:1"}}, "address: has an @"},
		{Options{URL: "redis://h:6379?password=secret"}, "url: has something after a ?"},
		{Options{URL: "redis://h:6379#secret"}, "url: has something after a ? or a #"},
		{Options{URL: "redis://:7/secret@h:6379"}, "url: has no host"},
		{Options{URL: "redis://u:7/secret@h:6379"}, "url: has an @ behind the host"},
		{Options{URL: "redis://u:se/cretsecret@h:6379"}, "url: not a URL"},
		{Options{URL: "redis://secret@h:6379"}, "url: has a user without a password"},
		{Options{URL: "unix:///run/redis?password=secret"}, "url: has something after a ?"},
		{Options{URL: "unix://run/redis"}, "url: unix:// takes the path"},
		{Options{URL: "unix://"}, "url: unix:// takes the path"},
		{Options{URL: "secret:secret@h:6379"}, "url: does not begin with"},
		{Options{URL: "redis://"}, "url: has no host"},
		{Options{URL: "redis:h:6379"}, "url: has no host"},
		{Options{URL: "redis://:6379"}, "url: has no host"},
		{Options{URL: "redis://:secret@/1"}, "url: has no host"},
		{Options{URL: "redis://h/-1"}, "url: the number of the database is negative"},
		{Options{Username: "u"}, `username: "u" comes without a password`},
		{Options{Addresses: []string{"h:1"}, MasterName: "m", SentinelUsername: "u"}, `sentinel_username: "u" comes without a sentinel_password`},
		{Options{SentinelPassword: "x"}, "need master_name"},
		{Options{MasterName: "m"}, `master_name: "m" needs the Sentinels as addresses`},
		{Options{MasterName: "m", URL: "redis://u:secret@h:1"}, `master_name: "m" needs the Sentinels as addresses`},
		{Options{MasterName: "m", Cluster: true}, "master_name and cluster exclude"},
		{Options{DB: -1}, "db: -1 is negative"},
		{Options{DB: 1, Addresses: []string{"a:1", "b:1"}}, "db: 1, but a Cluster"},
		{Options{PoolSize: -1}, "pool_size: -1 is negative"},
		{Options{Timeout: -time.Second}, "timeout: -1s is negative"},
		{Options{DialTimeout: -time.Second}, "dial_timeout: -1s is negative"},
		{Options{ReadFrom: "slave"}, `read_from: "slave" is neither master nor replica`},
		{Options{ReadFrom: ReadFromReplica}, "read_from: replica, but a single server has none"},
		{Options{ReadFrom: ReadFromReplica, URL: "redis://h"}, "read_from: replica, but a single server has none"},
	} {
		_, err := Open(c.options)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Open(%+v): %v, want %q", c.options, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error shows the password: %v", err)
		}
		if where := c.options.String(); c.options.URL != "" && strings.Contains(where, "secret") {
			t.Errorf("the store's name shows the password: %v", where)
		}
	}
}

func TestURLSaysEverythingASingleServerNeeds(t *testing.T) {
	server := redistest.Start(t, "--requirepass", "p@ss")
	s := open(t, Options{URL: "redis://:p%40ss@" + server.Addr + "/2"})
	if _, err := s.Acquire(t.Context(), claim("u", "1"), policy); err != nil {
		t.Fatal(err)
	}
	if got := s.client.(*redis.Client).Options().DB; got != 2 {
		t.Errorf("database %d, want 2", got)
	}
}

func BenchmarkAcquire(b *testing.B) {
	server := redistest.Start(b)
	s := open(b, Options{Addresses: []string{server.Addr}})
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Acquire(context.Background(), claim("u", "1"), policy); err != nil {
				b.Error(err)
			}
		}
	})
}

func TestWatchHearsOfEndingsAndOutlivesTheServer(t *testing.T) {
	server := redistest.Start(t)
	line := redistest.NewLine(t, server.Addr)
	s := open(t, Options{Addresses: []string{line.Addr}, Timeout: 2 * time.Second})
	ended := make(chan guard.ID, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Watch(ctx, func(n guard.News) { ended <- n.ID })
	}()
	// A message before the subscription is lost: end guards until one is heard of.
	hear := func(end func(context.Context, string, guard.ID, guard.Policy) (bool, error)) {
		t.Helper()
		deadline := time.After(time.Minute)
		for n := 0; ; n++ {
			c := claim("u", fmt.Sprint(time.Now(), n))
			s.Acquire(t.Context(), c, policy) // fails while the server is away
			end(t.Context(), "u", c.ID, policy)
			select {
			case <-ended:
				return
			case <-deadline:
				t.Fatal("nothing is heard")
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	hear(s.Release)
	hear(s.Revoke)
	hear(func(ctx context.Context, user string, id guard.ID, _ guard.Policy) (bool, error) {
		return s.CloseGuard(ctx, user, id)
	})
	for _, breaks := range []func(){
		func() {
			server.Kill()
			redistest.StartOn(t, server.Addr)
		},
		func() { line.Set(redistest.Trouble{NoRequests: true, NoAnswers: true, Before: time.Now()}) }, // nobody hangs up
	} {
		breaks()
		for len(ended) > 0 {
			<-ended
		}
		hear(s.Release)
	}
	cancel()
	<-done
}

// A node that hears of a guard asks the store about it: what it remembers of that
// guard may be over, and a start that waits for an answer has one.
func TestNewsIsOfEndingsDoubtsAndAnswers(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, Options{Addresses: []string{server.Addr}})
	news := make(chan guard.ID, 1000)
	go s.Watch(t.Context(), func(n guard.News) { news <- n.ID })
	until(t, "it hears", func() bool { return !s.Deaf() })
	of := func(playback string) guard.Claim {
		c := claim("u", playback)
		c.Client, c.Patience = 1, 10*time.Second
		return c
	}
	one, replace := policy, policy
	one.Limit, replace.Limit, replace.AtLimit = 1, 1, guard.ReplaceOldest
	acquire := func(p guard.Policy, c guard.Claim) func() error {
		return func() error { _, err := s.Acquire(t.Context(), c, p); return err }
	}
	named, nameless := of("named"), of("nameless")
	named.Named, nameless.Nameless = true, true
	for _, c := range []struct {
		what string
		call func() error
		want []string
	}{
		{"a guard", acquire(one, of("1")), nil},
		{"a doubt", acquire(one, of("2")), []string{"1"}},
		{"the same doubt", acquire(one, of("3")), nil},
		{"an answer by a claim", acquire(one, of("1")), []string{"1"}},
		{"no answer, for no doubt", acquire(one, of("1")), nil},
		{"a doubt", acquire(one, of("2")), []string{"1"}},
		{"an answer by a refresh", func() error { _, err := s.Refresh(t.Context(), "u", claim("u", "1").ID, one); return err }, []string{"1"}},
		{"a doubt", acquire(one, of("2")), []string{"1"}},
		{"an answer by a request without a name", acquire(one, nameless), []string{"1"}},
		{"a replacement", acquire(replace, named), []string{"1"}},
		{"a claim taken back", func() error {
			_, err := s.Undo(t.Context(), "u", named.ID, []guard.ID{claim("u", "1").ID})
			return err
		}, []string{"named"}},
		{"a guard", acquire(one, of("1")), nil},
		{"a release", func() error { _, err := s.Release(t.Context(), "u", claim("u", "1").ID, one); return err }, []string{"1"}},
		{"a guard", acquire(one, of("4")), nil},
		{"a revocation", func() error { _, err := s.Revoke(t.Context(), "u", claim("u", "4").ID, one); return err }, []string{"4"}},
	} {
		if err := c.call(); err != nil {
			t.Fatal(err)
		}
		// What comes before this is all that was told.
		s.client.Publish(t.Context(), s.channel, string(make([]byte, 16)))
		for _, playback := range append(c.want, "") {
			want := claim("u", playback).ID
			if playback == "" {
				want = guard.ID{}
			}
			if got := <-news; got != want {
				t.Fatalf("after %s it hears of %v, want %q, %v", c.what, got, playback, want)
			}
		}
	}
}

func TestWatchHearsFromThenOnThatItMay(t *testing.T) {
	server := tell(t, "-subscribe")
	deaf := make(chan error, 1000)
	s := open(t, Options{Addresses: []string{server.Addr}, Username: "gate", Password: "secret", OnDeaf: func(err error) { deaf <- err }})
	ended := make(chan guard.ID, 1000)
	go s.Watch(t.Context(), func(n guard.News) { ended <- n.ID })
	until(t, "the subscription is refused again and again", func() bool {
		_, stats, _ := strings.Cut(server.Info(t.Context(), "commandstats").Val(), "cmdstat_subscribe:")
		refused, _ := strconv.Atoi(part(strings.SplitN(stats, "\r\n", 2)[0], "rejected_calls"))
		return refused > 2
	})
	if err := <-deaf; !strings.Contains(err.Error(), "subscribe") || len(deaf) > 0 {
		t.Errorf("heard %v, and that %d times more", err, len(deaf))
	}
	server.do(t, "ACL", "SETUSER", "gate", "+subscribe")
	until(t, "the end of a guard is heard of", func() bool {
		acquires(t, s, guard.Admitted, "1", guard.Play)
		if found, err := s.Release(t.Context(), "u", claim("u", "1").ID, policy); err != nil || !found {
			t.Fatal(found, err)
		}
		return len(ended) > 0
	})
}

// The rights that docs/operations.md names are enough; without those to publish, all
// but the news of endings works.
func TestLeastRights(t *testing.T) {
	rights := strings.Fields("~sg:* &ended:sg: -@all +evalsha +eval +get +set +time +publish +subscribe +unsubscribe +ping +hello")
	silent := strings.Fields("~sg:* -@all +evalsha +eval +get +set +time +ping +hello")
	args := append([]string{"--user", "gate", "on", ">secret"}, rights...)
	args = append(append(args, "--user", "silent", "on", ">secret"), silent...)
	server := redistest.Start(t, append(args, "--user", "default", "off")...)
	works(t, open(t, Options{Addresses: []string{server.Addr}, Username: "gate", Password: "secret"}))
	s := open(t, Options{Addresses: []string{server.Addr}, Username: "silent", Password: "secret"})
	c := claim("u", "1")
	if v, err := s.Acquire(t.Context(), c, policy); err != nil || v.Outcome != guard.Admitted {
		t.Fatalf("%v, %v", v.Outcome, err)
	}
	if found, err := s.Release(t.Context(), "u", c.ID, policy); err != nil || !found {
		t.Errorf("%v, %v", found, err)
	}
	if guards, err := s.List(t.Context(), "u"); err != nil || len(guards) != 0 {
		t.Errorf("%v, %v", guards, err)
	}
}

// Walking needs a right beyond the least, and says so.
func TestWalkNamesTheRightItLacks(t *testing.T) {
	least := strings.Fields("~sg:* -@all +evalsha +eval +get +set +time +ping +hello")
	args := append([]string{"--user", "least", "on", ">secret"}, least...)
	args = append(append(append(args, "--user", "walker", "on", ">secret"), least...), "+scan")
	server := redistest.Start(t, args...)
	s := open(t, Options{Addresses: []string{server.Addr}, Username: "least", Password: "secret"})
	err := s.Walk(t.Context(), func(string, []guard.Guard) {})
	if err == nil || !strings.Contains(err.Error(), "NOPERM") || !strings.Contains(err.Error(), "scan") {
		t.Errorf("walk: %v", err)
	}
	if v, err := s.Acquire(t.Context(), claim("u", "1"), policy); err != nil || v.Outcome != guard.Admitted {
		t.Errorf("acquire after that: %v, %v", v.Outcome, err)
	}
	walksAllOf(t, open(t, Options{Addresses: []string{server.Addr}, Username: "walker", Password: "secret"}), 600)
}

func TestWalkKeepsToItsPrefixAndPassesOverWhatIsNoGuard(t *testing.T) {
	server := redistest.Start(t)
	for _, prefix := range []string{"a[b]*?\\:", "ab:"} {
		s := open(t, Options{Addresses: []string{server.Addr}, KeyPrefix: prefix})
		walksAllOf(t, s, 600)
		if err := s.Walk(t.Context(), func(user string, _ []guard.Guard) {
			if !strings.HasPrefix(user, "many") {
				t.Errorf("prefix %q: met %q", prefix, user)
			}
		}); err != nil {
			t.Error(err)
		}
	}
	s := open(t, Options{Addresses: []string{server.Addr}, KeyPrefix: "ab:"})
	s.client.Set(t.Context(), "ab:layout", "3tomorrow", 0)
	s.client.LPush(t.Context(), "ab:list", "x")
	met := 0
	err := s.Walk(t.Context(), func(string, []guard.Guard) { met++ })
	if met != 600 || err == nil || !strings.Contains(err.Error(), "2 keys") {
		t.Errorf("met %d users, %v; want 600 and the 2 keys that are something else", met, err)
	}
}

// One prefix begins another, with and without a colon at its end, and users have
// colons in their names: nobody is somebody else.
func TestKeysOfStoresDoNotCollide(t *testing.T) {
	server := redistest.Start(t)
	users := []string{"alice", "eu:alice", ":alice", "a:", "%3Aalice", "eu%3Aalice", "%253A", "100%", ""}
	keys := make(map[string]string)
	for _, prefix := range []string{"sg:", "sg:eu:", "sg", "sg:e", "sg::", "sg%3Aeu"} {
		s := open(t, Options{Addresses: []string{server.Addr}, KeyPrefix: prefix})
		held := 1
		if prefix == "sg" { // the same store as sg:
			held = 2
		}
		want := make(map[string]int)
		for _, user := range users {
			v, err := s.Acquire(t.Context(), claim(user, prefix), policy)
			if err != nil || v.Held != held {
				t.Errorf("%q of %q holds %d guards, %v", user, prefix, v.Held, err)
			}
			want[user] = held
			owner := strings.TrimSuffix(prefix, ":") + " " + user
			if prefix == "sg::" {
				owner = prefix + user
			}
			if other, taken := keys[s.key(user)]; taken && other != owner {
				t.Errorf("%q and %q have the same key", other, owner)
			}
			keys[s.key(user)] = owner
		}
		met := make(map[string]int)
		if err := s.Walk(t.Context(), func(user string, guards []guard.Guard) { met[user] = len(guards) }); err != nil || !maps.Equal(met, want) {
			t.Errorf("the walk of %q met %v, %v", prefix, met, err)
		}
	}
	if s := open(t, Options{Addresses: []string{server.Addr}}); s.key("alice") != "sg:alice" {
		t.Errorf("by default the key is %q", s.key("alice"))
	}
}

func TestWalkAndProbeOfAServerThatIsAway(t *testing.T) {
	server := redistest.Start(t)
	if got := open(t, Options{Addresses: []string{server.Addr}}).Probe(t.Context()); len(got) != 1 || got[0].Err != nil || got[0].Name != server.Addr {
		t.Errorf("probe: %+v", got)
	}
	server.Pause()
	defer server.Resume()
	s := open(t, Options{Addresses: []string{server.Addr}, Timeout: 200 * time.Millisecond})
	if err := s.Walk(t.Context(), func(string, []guard.Guard) {}); err == nil {
		t.Error("walk: no error")
	}
	if got := s.Probe(t.Context()); len(got) != 1 || got[0].Err == nil {
		t.Errorf("probe: %+v", got)
	}
}

func TestPoolSizeBoundsConnections(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, Options{Addresses: []string{server.Addr}, PoolSize: 2})
	var calls sync.WaitGroup
	for n := range 100 {
		c := claim(strconv.Itoa(n), "1")
		calls.Go(func() { s.Acquire(t.Context(), c, policy) })
		calls.Go(func() { s.AcquireAll(t.Context(), []guard.Request{{Claim: c, Policy: policy}}) })
	}
	calls.Wait()
	node, pool := s.Nodes(t.Context())[0], s.Pool()
	if node.Clients > 2 || pool.Idle+pool.Used != int(node.Clients) || pool.Timeouts > 0 {
		t.Errorf("%v connections, %+v, want 2 at most", node.Clients, pool)
	}
}

// A server that hangs costs a call its timeout and no more.
func TestAHungServerCostsTheTimeout(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, Options{Addresses: []string{server.Addr}, Timeout: 200 * time.Millisecond})
	s.List(t.Context(), "u")
	server.Pause()
	defer server.Resume()
	for _, call := range []func() error{
		func() error { _, err := s.Acquire(t.Context(), claim("u", "1"), policy); return err },
		func() error {
			return s.AcquireAll(t.Context(), []guard.Request{{Claim: claim("u", "1"), Policy: policy}})[0].Err
		},
	} {
		if err := call(); err == nil {
			t.Error("no error")
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.List(ctx, "u"); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled call: %v", err)
	}
}

// A start that waits for a connection is none when it is sent, if whoever asked for it
// has gone meanwhile.
func TestWhoGoesBeforeTheCallIsSentTakesNothing(t *testing.T) {
	server := redistest.Start(t)
	line := redistest.NewLine(t, server.Addr)
	line.Set(redistest.Trouble{NoAnswers: true}) // to the connection's first words
	late, other := open(t, Options{Addresses: []string{line.Addr}, Timeout: time.Minute}), open(t, Options{Addresses: []string{server.Addr}})
	last := guard.Policy{Limit: 1, AtLimit: guard.ReplaceOldest, Interval: policy.Interval, TTL: policy.TTL}
	ctx, leave := context.WithCancel(t.Context())
	outcome := make(chan guard.Outcome, 1)
	go func() {
		v, err := late.Acquire(guard.Abandonable(ctx), claim("u", "left"), last)
		if err != nil {
			t.Error(err)
		}
		outcome <- v.Outcome
	}()
	direct := client(t, server.Addr)
	until(t, "the call waits for its connection", func() bool {
		clients, err := direct.ClientList(t.Context()).Result()
		return err == nil && strings.Contains(clients, "cmd=hello")
	})
	leave()
	now, err := other.Acquire(t.Context(), claim("u", "now"), last)
	if err != nil || now.Outcome != guard.Admitted {
		t.Fatal(now.Outcome, err)
	}
	line.Set(redistest.Trouble{})
	if got := <-outcome; got != guard.Vacant {
		t.Errorf("the start that was left: %v, want vacant", got)
	}
	if guards, err := other.List(t.Context(), "u"); err != nil || len(guards) != 1 || guards[0].ID != now.Guard.ID {
		t.Errorf("the user holds %+v, %v; want %v", guards, err, now.Guard)
	}
}

// A server that does not answer is not asked, but for one call a second.
func TestBreaker(t *testing.T) {
	server := redistest.Start(t)
	changes := make(chan bool, 100)
	s := open(t, Options{
		Addresses: []string{server.Addr},
		Timeout:   200 * time.Millisecond,
		OnAway: func(which string, away bool) {
			if which != server.Addr {
				t.Errorf("%q is away, want %q", which, server.Addr)
			}
			changes <- away
		},
	})
	until(t, "it answers", func() bool { _, err := s.List(t.Context(), "u"); return err == nil })
	server.Pause()
	waited := 0
	for away := false; !away; {
		switch _, err := s.List(t.Context(), "u"); {
		case err == nil:
			t.Fatal("a server that hangs has answered")
		case !errors.Is(err, gobreaker.ErrOpenState):
			waited++
		}
		select {
		case away = <-changes:
		default:
		}
	}
	if waited > 2*tripAfter { // twice as many: a busy machine
		t.Errorf("%d calls in a row have waited for a server that hangs, want %d", waited, tripAfter)
	}
	asked := 0
	for range 1000 {
		_, err := s.List(t.Context(), "u")
		switch {
		case !errors.Is(err, gobreaker.ErrOpenState):
			asked++
		case !strings.Contains(err.Error(), "no answer within 200ms") && !strings.Contains(err.Error(), "i/o timeout"):
			t.Fatalf("the breaker is open, and says %q: not why", err)
		}
	}
	if asked > 100 {
		t.Errorf("a server that hangs is asked %d times of 1000", asked)
	}
	server.Resume()
	for away := true; away; {
		s.List(t.Context(), "u")
		select {
		case away = <-changes:
		default:
		}
	}
}

// A node that is about to close a guard says so, and the others hear it.
func TestOneTellsTheOthersWhatItIsAboutToClose(t *testing.T) {
	t.Parallel()
	addr := redistest.Start(t).Addr
	heard := make(chan string, 10)
	nodes := make([]*Store, 3)
	for i := range nodes {
		s := open(t, Options{Addresses: []string{addr}, Node: uint8(i + 1)})
		nodes[i] = s
		go s.Watch(t.Context(), func(n guard.News) { heard <- fmt.Sprint(i, " ", string(n.ID[:1]), " ", n.ClosedIn) })
		until(t, "it hears", func() bool { return !s.Deaf() })
	}
	for _, nonsense := range []string{"", "short", strings.Repeat("x", 20), strings.Repeat("x", 22)} {
		if err := nodes[1].redis().Publish(t.Context(), nodes[1].channel, nonsense).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := nodes[1].Tell(t.Context(), guard.News{ID: guard.ID{'a'}, ClosedIn: 5 * time.Second}); err != nil {
		t.Fatal(err)
	}
	if _, err := nodes[1].Acquire(t.Context(), guard.Claim{User: "u", ID: guard.ID{'b'}}, guard.Policy{Limit: 1, Interval: time.Minute, TTL: 90 * time.Second}); err != nil {
		t.Fatal(err)
	}
	if _, err := nodes[1].Release(t.Context(), "u", guard.ID{'b'}, guard.Policy{TTL: time.Minute}); err != nil {
		t.Fatal(err)
	}
	var all []string
	for range 5 {
		all = append(all, <-heard)
	}
	slices.Sort(all)
	if want := []string{"0 a 5s", "0 b 0s", "1 b 0s", "2 a 5s", "2 b 0s"}; !slices.Equal(all, want) {
		t.Errorf("heard %q, want %q", all, want)
	}
}
