package guard

import (
	"testing"
	"time"
)

func TestNothingOutlivesItsTTLBecauseOfAClock(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	short := Policy{Limit: 9, Interval: 60 * time.Second, TTL: 90 * time.Second}
	long := Policy{Limit: 9, Interval: 10 * time.Minute, TTL: 15 * time.Minute}
	ids := []ID{DeriveID("u", "", "short"), DeriveID("u", "", "long"), DeriveID("u", "", "revoked")}
	var l Ledger
	for i, p := range []Policy{short, long, short} {
		if v := l.Acquire(now, Claim{User: "u", ID: ids[i]}, p); v.Outcome != Admitted {
			t.Fatal(v.Outcome)
		}
	}
	l.Revoke(now, ids[2], short)

	now = now.Add(-time.Hour)
	for i, g := range l.List(now) {
		if p := []Policy{short, long}[i]; g.CreatedAt != now || g.ExpiresAt != now.Add(p.Interval) || g.RemovedAt != now.Add(p.TTL) {
			t.Errorf("as if refreshed now: %+v, at %v", g, now)
		}
	}
	// A call, of whatever policy, starts the count-down; those after it do not.
	for range 2 {
		if v := l.Acquire(now, Claim{ID: ids[2]}, long); v.Outcome != Revoked || v.FreeIn <= short.TTL-2*time.Second {
			t.Fatalf("%+v", v)
		}
		now = now.Add(time.Second)
	}
	now = now.Add(short.TTL - 2*time.Second - 1)
	if got := l.Refresh(now, ids[2], short).Outcome; got != Revoked {
		t.Errorf("just before ttl: %v", got)
	}
	if got := len(l.List(now)); got != 2 {
		t.Errorf("just before ttl: %d guards", got)
	}
	now = now.Add(1)
	if got := l.Refresh(now, ids[2], short).Outcome; got != Absent {
		t.Errorf("after ttl: %v", got)
	}
	if got := l.List(now); len(got) != 1 || got[0].ID != ids[1] {
		t.Errorf("after the shorter ttl: %+v", got)
	}

	// Of whom no ttl is known, nobody can say so.
	given := []Guard{{ID: ids[0], RemovedAt: now}, {ID: ids[1], RemovedAt: now.Add(1000 * time.Hour)}}
	if got := NewLedger(given).List(now.Add(time.Hour)); len(got) != 1 || got[0].ID != ids[1] || !got[0].RemovedAt.Equal(given[1].RemovedAt) || got[0].Listed() != Lapsed {
		t.Errorf("given guards: %+v", got)
	}

	// Forward, all is over at once, and who plays comes back.
	now = now.Add(time.Hour)
	if got := l.List(now); len(got) != 0 {
		t.Errorf("an hour later: %+v", got)
	}
	if got := l.Acquire(now, Claim{ID: ids[1], Intent: Resume}, Policy{TTL: long.TTL}).Outcome; got != Admitted {
		t.Errorf("who plays: %v", got)
	}
}
