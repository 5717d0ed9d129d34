package redisstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/guard/guardtest"
	"github.com/streamguard/streamguard/lease"
	"github.com/streamguard/streamguard/memstore"
	"github.com/streamguard/streamguard/redisstore/redistest"
)

// What a later version might do: beside each guard it keeps records of a kind
// of its own, more of them than there may be marks, some of which outlive it.
const laterWrite = `local function write(over)
  local at, guards, noted = 2, {}, {}
  while at <= #value do
    local kind, id, _, _, _, _, stream, device, labels, rest = struct.unpack('>c1c16I6I6I4I4BBI2', value, at)
    if kind == 'G' then guards[#guards + 1] = id end
    if kind == 'X' then noted[id] = true end
    at = rest + stream + device + labels
  end
  for _, id in ipairs(guards) do
    for n = 1, noted[id] and 0 or 12 do
      value = value .. struct.pack('>c1c16I6I6I4I4BBI2', 'X', id, now, now, n, n * 10000, 3, 0, 5) .. 'abc' .. '\31x=1\31'
    end
  end
  redis.call('SET', KEYS[1], value, 'PX', math.max(over - now, 120000))
end`

const (
	laterLabel = "later=1\x1f"
	later      = "later" // its name
)

// versions is a store whose calls are made by this version or by a later one,
// at random as their arguments are, on the same values.
type versions struct {
	*testing.T
	this, later *Store
	most        int // records of the later version's that a call of this version met
}

func newVersions(t *testing.T, addr string) *versions {
	t.Helper()
	ours := valueLua[strings.Index(valueLua, "local function write(over)"):]
	ours, _, _ = strings.Cut(ours, "\n\n")
	v := &versions{t, open(t, Options{Addresses: []string{addr}}), open(t, Options{Addresses: []string{addr}}), 0}
	v.later.scripts = newScripts(strings.Replace(valueLua, ours, laterWrite, 1))
	return v
}

// by chooses who makes a call. Afterwards all is there that the later version
// had added and whose time is not over.
func (v *versions) by(user string, p guard.Policy, call func(*Store)) {
	if p.Interval/time.Second%2 == 0 {
		call(v.later)
		return
	}
	before := v.added(user)
	v.most = max(v.most, len(before))
	call(v.this)
	after := v.added(user)
	for _, record := range before {
		if !slices.Contains(after, record) {
			v.Errorf("%q is gone, there are\n%q", record, after)
		}
	}
}

// added are the live records of the later version under a user. Where the clock
// has gone back their times are not told.
func (v *versions) added(user string) (records []string) {
	now := v.this.client.(*redis.Client).Time(context.Background()).Val().UnixMilli()
	value := v.this.client.Get(context.Background(), v.this.key(user)).Val()
	if value == "" {
		return nil
	}
	for r := (reader{rest: value[1:]}); len(r.rest) > 0; {
		kind, id := r.take(1), r.take(16)
		created, refreshed := min(r.number(6), now), min(r.number(6), now)
		interval, ttl := r.number(4), r.number(4)
		stream, device, labels := int(r.number(1)), int(r.number(1)), int(r.number(2))
		names := r.take(stream + device + labels)
		if r.short {
			v.Fatalf("%q is broken", value)
		}
		if kind == "X" && refreshed+ttl > now {
			records = append(records, fmt.Sprint(id, created, refreshed, interval, ttl, names))
		}
	}
	return records
}

// without takes the later version's label out of guards.
func without(guards ...*guard.Guard) {
	for _, g := range guards {
		g.Labels = guard.Labels(strings.Replace(string(g.Labels), laterLabel, "", 1))
		if g.Labels == "\x1f" {
			g.Labels = ""
		}
	}
}

func (v *versions) Acquire(ctx context.Context, c guard.Claim, p guard.Policy) (verdict guard.Verdict, err error) {
	labelled := v.labelled(c.User)
	v.by(c.User, p, func(s *Store) {
		if s == v.later {
			c.Labels = c.Labels.With(later, "1")
		}
		verdict, err = s.Acquire(ctx, c, p)
	})
	g := &verdict.Guard
	if verdict.Outcome == guard.Refreshed && labelled[g.ID] && g.Labels.Get(later) == "" {
		v.Errorf("the later version's label is gone: %+v", g)
	}
	without(g)
	for i := range verdict.InTheWay {
		without(&verdict.InTheWay[i])
	}
	return verdict, err
}

// labelled are the guards that have the later version's label.
func (v *versions) labelled(user string) map[guard.ID]bool {
	guards, err := v.this.List(context.Background(), user)
	if err != nil {
		v.Fatal(err)
	}
	ids := make(map[guard.ID]bool)
	for _, g := range guards {
		ids[g.ID] = g.Labels.Get(later) != ""
	}
	return ids
}

func (v *versions) Refresh(ctx context.Context, user string, id guard.ID, p guard.Policy) (verdict guard.Verdict, err error) {
	v.by(user, p, func(s *Store) { verdict, err = s.Refresh(ctx, user, id, p) })
	without(&verdict.Guard)
	return verdict, err
}

func (v *versions) Release(ctx context.Context, user string, id guard.ID, p guard.Policy) (found bool, err error) {
	v.by(user, p, func(s *Store) { found, err = s.Release(ctx, user, id, p) })
	return found, err
}

func (v *versions) Revoke(ctx context.Context, user string, id guard.ID, p guard.Policy) (found bool, err error) {
	v.by(user, p, func(s *Store) { found, err = s.Revoke(ctx, user, id, p) })
	return found, err
}

func (v *versions) List(ctx context.Context, user string) ([]guard.Guard, error) {
	guards, err := v.this.List(ctx, user)
	for i := range guards {
		without(&guards[i])
	}
	return guards, err
}

// Nodes of this version and of one that adds kinds of records and labels share
// a Redis: all answers are by the rules, and neither loses what is the other's.
func TestLaterVersionMayAddRecordsAndLabels(t *testing.T) {
	fewerChecks(t)
	server := redistest.StartWithClock(t)
	v := newVersions(t, server.Addr)
	guardtest.Model(t, guardtest.Harness{Store: v, Advance: func(d time.Duration) { server.Advance(t, d) }})
	if v.most <= guard.MaxMarks {
		t.Errorf("the later version has never added more than %d records", v.most)
	}
}

// Records of a later version are no marks, and are forgotten like all others.
func TestRecordsOfALaterVersionAreNoMarks(t *testing.T) {
	server := redistest.StartWithClock(t)
	v := newVersions(t, server.Addr)
	even, odd := policy, policy
	odd.Interval += time.Second
	for n := range 3 {
		c := claim("u", fmt.Sprint("later", n))
		if _, err := v.Acquire(t.Context(), c, even); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(v.added("u")); got != 36 {
		t.Fatalf("the later version has added %d records", got)
	}
	// More records than marks may be, and no mark to forget.
	server.Advance(t, guard.Settle)
	c := claim("u", "later0")
	if found, err := v.Release(t.Context(), "u", c.ID, odd); err != nil || !found {
		t.Fatal(found, err)
	}
	c.Intent = guard.Continue
	if verdict, err := v.Acquire(t.Context(), c, odd); err != nil || verdict.Outcome != guard.Released {
		t.Errorf("a straggler: %v, %v", verdict.Outcome, err)
	}
	server.Advance(t, 120*time.Second)
	if _, err := v.Acquire(t.Context(), claim("u", "now"), odd); err != nil {
		t.Fatal(err)
	}
	if n := v.this.client.StrLen(t.Context(), v.this.key("u")).Val(); n > 60 {
		t.Errorf("what is over is kept: the value has %d bytes", n)
	}
}

// A value of another layout is an error, be it a newer version's, and stays as
// it is. Nobody is refused for it.
func TestUnknownLayoutIsTheStoreAwayForItsUser(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, Options{Addresses: []string{server.Addr}})
	local := memstore.New()
	t.Cleanup(func() { local.Close() })
	errs := make(chan error, 100)
	k := lease.New(s, local, func(err error) {
		select {
		case errs <- err:
		default:
		}
	})
	defer k.Close()
	p := guard.Policy{Limit: 1, Interval: time.Second, TTL: time.Minute, CountLocally: true}
	ctx := t.Context()
	check := func(want guard.Outcome, user, playback string) {
		t.Helper()
		c := claim(user, playback)
		c.Intent = guard.Continue
		if v, err := k.Check(ctx, c, p); err != nil || v.Outcome != want {
			t.Fatalf("%s of %s: %v, %v, want %v", playback, user, v.Outcome, err, want)
		}
	}
	check(guard.Admitted, "u", "plays")

	const newer = "2tomorrow"
	s.client.Set(ctx, s.key("u"), newer, 0)
	_, acquired := s.Acquire(ctx, claim("u", "1"), policy)
	_, refreshed := s.Refresh(ctx, "u", claim("u", "plays").ID, policy)
	_, released := s.Release(ctx, "u", claim("u", "plays").ID, policy)
	_, revoked := s.Revoke(ctx, "u", claim("u", "plays").ID, policy)
	_, listed := s.List(ctx, "u")
	batch := s.AcquireAll(ctx, []guard.Request{{Claim: claim("u", "1"), Policy: policy}, {Claim: claim("other", "1"), Policy: policy}})
	for verb, err := range map[string]error{"acquire": acquired, "refresh": refreshed, "release": released, "revoke": revoked, "list": listed, "batch": batch[0].Err} {
		if !errors.Is(err, ErrLayout) {
			t.Errorf("%s: %v", verb, err)
		}
	}
	if batch[1].Err != nil || batch[1].Verdict.Outcome != guard.Admitted {
		t.Errorf("another user in the batch: %+v", batch[1])
	}

	// Who plays is known, and stays so when the refresh fails.
	until(t, "a refresh has failed", func() bool {
		check(guard.Known, "u", "plays")
		select {
		case err := <-errs:
			if !errors.Is(err, ErrLayout) {
				t.Fatal(err)
			}
			return true
		default:
			return false
		}
	})
	check(guard.Known, "u", "plays")
	// on_store_error local: this node counts by itself. deny: the error.
	check(guard.Rejected, "u", "new")
	deny := p
	deny.CountLocally = false
	if v, err := k.Check(ctx, claim("u", "newer"), deny); !errors.Is(err, ErrLayout) {
		t.Errorf("deny: %v, %v", v.Outcome, err)
	}
	check(guard.Admitted, "another", "plays") // the breaker is closed
	if got := s.client.Get(ctx, s.key("u")).Val(); got != newer {
		t.Errorf("the value is now %q", got)
	}

	// Afterwards the guard is there again.
	s.client.Del(ctx, s.key("u"))
	until(t, "the guard is back", func() bool {
		check(guard.Known, "u", "plays")
		guards, err := s.List(ctx, "u")
		if err != nil {
			t.Fatal(err)
		}
		return len(guards) == 1
	})
}
