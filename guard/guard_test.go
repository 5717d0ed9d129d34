package guard

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestIDBelongsToItsUserAndDevice(t *testing.T) {
	for _, id := range []ID{NewID("u", "tv"), DeriveID("u", "tv", "key")} {
		if !id.Of("u", "tv") {
			t.Errorf("%v is not of its own user and device", id)
		}
		for _, other := range [][2]string{{"v", "tv"}, {"u", "phone"}, {"u", ""}, {"utv", ""}, {"", "utv"}} {
			if id.Of(other[0], other[1]) {
				t.Errorf("%v is of %q too", id, other)
			}
		}
	}
	if first, second := NewID("u", ""), NewID("u", ""); first == second {
		t.Errorf("two new ids are %v", first)
	}
}

func TestDerivedIDsAreTheSameOnEveryNode(t *testing.T) {
	if got := DeriveID("user", "device", "key").String(); got != "3dc94a19-365b-80ec-b830-afb6605f1715" {
		t.Errorf("derived %s: nodes of another version derive another", got)
	}
	seen := map[ID][]string{}
	for _, parts := range [][]string{{"a", "", "b"}, {"a", "b", "b"}, {"ab", "", "b"}, {"", "ab", "b"}, {"a", "", "c"}, {"a", "", ""}} {
		id := DeriveID(parts[0], parts[1], parts[2])
		if other, dup := seen[id]; dup {
			t.Errorf("%q and %q derive the same id", parts, other)
		}
		seen[id] = parts
	}
}

func TestIDIsAUUIDOfVersion8(t *testing.T) {
	s := NewID("u", "").String()
	if s[14] != '8' || !strings.ContainsRune("89ab", rune(s[19])) {
		t.Errorf("%s is not of version 8, variant 10 (RFC 9562)", s)
	}
}

func TestParseID(t *testing.T) {
	id := NewID("u", "")
	for _, s := range []string{id.String(), strings.ToUpper(id.String())} {
		if got, err := ParseID(s); err != nil || got != id {
			t.Errorf("ParseID(%q) = %v, %v", s, got, err)
		}
	}
	if _, err := ParseID("6e2fb550-c457-11e9-bb97-0800200c9a66"); err != nil {
		t.Errorf("a UUID of another version: %v", err)
	}
	s := id.String()
	for _, bad := range []string{"", s[1:], s + "0", "{" + s + "}", strings.ReplaceAll(s, "-", ""), strings.Replace(s, "-", "0", 1), "g" + s[1:], "-" + s[1:], "é" + s[2:]} {
		if got, err := ParseID(bad); err == nil || got != (ID{}) {
			t.Errorf("ParseID(%q) = %v, %v", bad, got, err)
		}
	}
}

func FuzzParseID(f *testing.F) {
	f.Add("6e2fb550-c457-11e9-bb97-0800200c9a66")
	f.Add("6e2fb550-c457-11e9-bb97-0800200c9a6-")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseID(s)
		if err == nil && id.String() != strings.ToLower(s) {
			t.Errorf("ParseID(%q) = %v", s, id)
		}
	})
}

func TestOutcomes(t *testing.T) {
	pass := map[Outcome]bool{Admitted: true, Refreshed: true, Vacant: true, Released: true, Known: true, Uncounted: true}
	for o := Outcome(0); o <= Doubted; o++ {
		if o.String() == "" || o.Pass() != pass[o] {
			t.Errorf("%d %v: pass %v", o, o, o.Pass())
		}
	}
}

func TestWithChangesThePolicysOwnAtLimitOnly(t *testing.T) {
	p := Policy{Limit: 5, AtLimit: ReplaceOldest, Rules: []Rule{{"device", 1, ReplaceOldest}, {"stream", 2, Reject}}}
	for _, a := range []AtLimit{Reject, ReplaceDevice, ReplaceOldest} {
		want := []Rule{p.Rules[0], p.Rules[1], {"", 5, a}}
		with := p.With(a)
		if got := with.AllRules(); !slices.Equal(got, want) {
			t.Errorf("with %v: %v, want %v", a, got, want)
		}
	}
}

func TestFreeIn(t *testing.T) {
	now := time.UnixMilli(0)
	guards := []Guard{
		{ExpiresAt: now.Add(3 * time.Second), RemovedAt: now.Add(30 * time.Second)},
		{ExpiresAt: now.Add(1 * time.Second), RemovedAt: now.Add(10 * time.Second)},
		{ExpiresAt: now.Add(2 * time.Second), RemovedAt: now.Add(20 * time.Second)},
	}
	for _, c := range []struct {
		p    Policy
		want time.Duration
	}{
		{Policy{Limit: 3}, 10 * time.Second},
		{Policy{Limit: 1}, 30 * time.Second},
		{Policy{Limit: 2, Reclaim: ReclaimLapsed}, 2 * time.Second},
		{Policy{Limit: 0, TTL: time.Minute}, time.Minute},
	} {
		if got := freeIn(now, guards, c.p.Limit, c.p); got != c.want {
			t.Errorf("%+v: %v, want %v", c.p, got, c.want)
		}
	}
}

func BenchmarkDeriveID(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		DeriveID("user-123456", "", "6e2fb550-c457-11e9-bb97-0800200c9a66")
	}
}
