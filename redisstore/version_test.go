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

// What a later version might do after its calls: beside each guard it keeps records
// of a kind of its own, more of them than there may be marks, some of which outlive
// it; on the guard a flag and a text; and on marks a reason.
var laterScript = redis.NewScript(constants + valueLua + `
local parts, more, changed, at, noted = { '2' }, {}, false, 2, {}
while at <= #value do
  local kind, id, length, refreshed, ttl, doubted, interval, flags, stream, device, labels, created, returns, reason, client, names = struct.unpack(RECORD, value, at)
  local start = at
  at = names + length
  if kind == 'X' then noted[id] = true end
  if kind == 'G' and length == stream + device + labels then
    local text = 'since ' .. created
    parts[#parts + 1] = struct.pack(RECORD, kind, id, length + #text, refreshed, ttl, doubted, interval, bit.bor(flags, 0x8000), stream, device, labels,
      created, returns, reason, client) .. value:sub(names, at - 1) .. text
    for n = 1, noted[id] and 0 or 12 do
      more[#more + 1] = struct.pack(RECORD, 'X', id, 10, now, n * 10000, 1, n, n, 3, 0, 5, now, n, n, n) .. 'abc' .. '\31x=1\31' .. '++'
    end
    changed = true
  elseif reason == 0 and (kind == 'R' or kind == 'P' or kind == 'L') then
    parts[#parts + 1] = value:sub(start, start + 49) .. '\7' .. value:sub(start + 51, at - 1)
    changed = true
  else
    parts[#parts + 1] = value:sub(start, at - 1)
  end
end
if changed then
  redis.call('SET', KEYS[1], table.concat(parts) .. table.concat(more), 'PX', math.max(redis.call('PTTL', KEYS[1]), 120000))
end
return 1`)

const (
	laterLabel = "later=1\x1f"
	later      = "later" // its name
)

// versions is a store whose calls are made by this version or by a later one,
// at random as their arguments are, on the same values.
type versions struct {
	*testing.T
	*Store
	most   int // records of the later version's that a call of this version met
	marked int // marks that this version made of guards which the later one had noted something on
}

// by chooses who makes a call. Afterwards all is there that the later version
// had added and whose time is not over.
func (v *versions) by(user string, p guard.Policy, call func(isLater bool)) {
	if p.Interval/time.Second%2 == 0 {
		call(true)
		if err := laterScript.Run(context.Background(), v.client, []string{v.key(user)}).Err(); err != nil {
			v.Fatal(err)
		}
		return
	}
	before, notes := v.added(user)
	v.most = max(v.most, len(before))
	call(false)
	after, now := v.added(user)
	for _, record := range before {
		if !slices.Contains(after, record) {
			v.Errorf("%q is gone, there are\n%q", record, after)
		}
	}
	for _, n := range now {
		var same, guards []string // what was noted on the same record, or on the guard that it was
		var why []int64           // what marks of the playback had for a reason
		for _, was := range notes {
			if was.id == n.id && !was.isGuard {
				why = append(why, was.why)
			}
			switch {
			case was.id != n.id:
			case was.isGuard == n.isGuard:
				same = append(same, was.note)
			case was.isGuard:
				guards = append(guards, was.note)
			}
		}
		if !n.isGuard && !slices.Contains(why, n.why) && (guards == nil || n.why != 0) {
			v.Errorf("%+v is why, of reasons %v", n, why)
		}
		switch {
		case n.isGuard && same == nil && n.note == "0 ": // a new one
		case slices.Contains(same, n.note):
		case slices.Contains(guards, n.note):
			v.marked++
		default:
			v.Errorf("%+v was noted on %q, %q", n, same, guards)
		}
	}
}

// noted is what the later version noted on a record.
type noted struct {
	id      string
	isGuard bool
	note    string
	why     int64 // a mark is there
}

// added are the live records of the later version under a user, and its notes on
// others. Where the clock has gone back their times are not told.
func (v *versions) added(user string) (records []string, notes []noted) {
	now := v.client.(*redis.Client).Time(context.Background()).Val().UnixMilli()
	value := v.client.Get(context.Background(), v.key(user)).Val()
	if value == "" {
		return nil, nil
	}
	for r := (reader{rest: value[1:]}); len(r.rest) > 0; {
		kind, id, length := r.take(1), r.take(16), int(r.number(2))
		refreshed, ttl, doubted, interval, flags := min(r.number(6), now), r.number(4), r.number(4), r.number(4), r.number(2)
		named := int(r.number(1) + r.number(1) + r.number(2))
		created, returns, reason, client := min(r.number(6), now), r.number(1), r.number(1), r.number(4)
		names, more := r.take(named), r.take(length-named)
		switch {
		case r.short:
			v.Fatalf("%q is broken", value)
		case refreshed+ttl <= now || kind == "F":
		case kind == "X":
			records = append(records, fmt.Sprint(id, created, refreshed, interval, ttl, doubted, flags, returns, reason, client, names, more))
		default:
			n := noted{id: id, isGuard: kind == "G", note: fmt.Sprintf("%x %s", flags&0x8000, more)}
			if !n.isGuard {
				n.why = reason
			}
			notes = append(notes, n)
		}
	}
	return records, notes
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
	v.by(c.User, p, func(isLater bool) {
		if isLater {
			c.Labels = c.Labels.With(later, "1")
		}
		verdict, err = v.Store.Acquire(ctx, c, p)
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
	guards, err := v.Store.List(context.Background(), user)
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
	v.by(user, p, func(bool) { verdict, err = v.Store.Refresh(ctx, user, id, p) })
	without(&verdict.Guard)
	return verdict, err
}

func (v *versions) Release(ctx context.Context, user string, id guard.ID, p guard.Policy) (found bool, err error) {
	v.by(user, p, func(bool) { found, err = v.Store.Release(ctx, user, id, p) })
	return found, err
}

func (v *versions) Revoke(ctx context.Context, user string, id guard.ID, p guard.Policy) (found bool, err error) {
	v.by(user, p, func(bool) { found, err = v.Store.Revoke(ctx, user, id, p) })
	return found, err
}

func (v *versions) CloseGuard(ctx context.Context, user string, id guard.ID) (closed bool, err error) {
	v.by(user, guard.Policy{Interval: time.Duration(id[0]) * time.Second}, func(bool) { closed, err = v.Store.CloseGuard(ctx, user, id) })
	return closed, err
}

func (v *versions) Undo(ctx context.Context, user string, id guard.ID, replaced []guard.ID) (undone bool, err error) {
	v.by(user, guard.Policy{Interval: time.Duration(id[0]) * time.Second}, func(bool) { undone, err = v.Store.Undo(ctx, user, id, replaced) })
	return undone, err
}

func (v *versions) List(ctx context.Context, user string) ([]guard.Guard, error) {
	guards, err := v.Store.List(ctx, user)
	for i := range guards {
		without(&guards[i])
	}
	return guards, err
}

// Nodes of this version and of one that adds kinds of records and labels share
// a Redis: all answers are by the rules, and neither loses what is the other's.
func TestLaterVersionMayAddRecordsAndLabels(t *testing.T) {
	fewerChecks(t, 6) // with two more calls for each
	server := redistest.StartWithClock(t)
	v := &versions{T: t, Store: open(t, Options{Addresses: []string{server.Addr}})}
	h := harness(t, v.Store, server)
	h.Store = v
	guardtest.Model(t, h)
	if v.most <= guard.MaxMarks || v.marked == 0 {
		t.Errorf("the later version has never added more than %d records; %d marks were made of its guards", v.most, v.marked)
	}
}

// Records of a later version are no marks, and are forgotten like all others.
func TestRecordsOfALaterVersionAreNoMarks(t *testing.T) {
	server := redistest.StartWithClock(t)
	v := &versions{T: t, Store: open(t, Options{Addresses: []string{server.Addr}})}
	even, odd := policy, policy
	odd.Interval += time.Second
	for n := range 3 {
		c := claim("u", fmt.Sprint("later", n))
		if _, err := v.Acquire(t.Context(), c, even); err != nil {
			t.Fatal(err)
		}
	}
	if added, _ := v.added("u"); len(added) != 36 {
		t.Fatalf("the later version has added %d records", len(added))
	}
	// More records than marks may be, and no mark to forget.
	server.Advance(t, guard.Settle)
	c := claim("u", "later0")
	if found, err := v.Release(t.Context(), "u", c.ID, odd); err != nil || !found {
		t.Fatal(found, err)
	}
	if verdict, err := v.Acquire(t.Context(), c, odd); err != nil || verdict.Outcome != guard.Released {
		t.Errorf("a straggler: %v, %v", verdict.Outcome, err)
	}
	server.Advance(t, 120*time.Second)
	if _, err := v.Acquire(t.Context(), claim("u", "now"), odd); err != nil {
		t.Fatal(err)
	}
	if n := v.client.StrLen(t.Context(), v.key("u")).Val(); n > 80 {
		t.Errorf("what is over is kept: the value has %d bytes", n)
	}
}

// A value of another layout is an error, be it an earlier checkout's or a newer
// version's, and stays as it is. Nobody is refused for it.
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
		if v, _, err := k.Check(ctx, claim(user, playback), p); err != nil || v.Outcome != want {
			t.Fatalf("%s of %s: %v, %v, want %v", playback, user, v.Outcome, err, want)
		}
	}
	check(guard.Admitted, "u", "plays")

	const newer = "3tomorrow"
	for _, value := range []string{"1of an earlier checkout", newer} {
		s.client.Set(ctx, s.key("u"), value, 0)
		_, acquired := s.Acquire(ctx, claim("u", "1"), policy)
		_, refreshed := s.Refresh(ctx, "u", claim("u", "plays").ID, policy)
		_, released := s.Release(ctx, "u", claim("u", "plays").ID, policy)
		_, revoked := s.Revoke(ctx, "u", claim("u", "plays").ID, policy)
		_, closed := s.CloseGuard(ctx, "u", claim("u", "plays").ID)
		_, undone := s.Undo(ctx, "u", claim("u", "plays").ID, nil)
		_, listed := s.List(ctx, "u")
		_, parsed := parse([]any{int64(1), value}, "u")
		batch := s.AcquireAll(ctx, []guard.Request{{Claim: claim("u", "1"), Policy: policy}, {Claim: claim("other", "1"), Policy: policy}})
		for verb, err := range map[string]error{
			"acquire": acquired, "refresh": refreshed, "release": released, "revoke": revoked, "close": closed, "undo": undone, "list": listed, "parse": parsed, "batch": batch[0].Err,
		} {
			if !errors.Is(err, ErrLayout) || strings.Contains(err.Error(), "an earlier checkout's") != (value != newer) {
				t.Errorf("%s of %q: %v", verb, value, err)
			}
		}
		if batch[1].Err != nil || !batch[1].Verdict.Outcome.Pass() {
			t.Errorf("another user in the batch: %+v", batch[1])
		}
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
	if v, _, err := k.Check(ctx, claim("u", "newer"), deny); !errors.Is(err, ErrLayout) {
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
