package lease

import (
	"hash/maphash"
	"reflect"
	"strings"

	"github.com/puzpuzpuz/xsync/v4"

	"github.com/streamguard/streamguard/guard"
)

// maxLooks is how many playbacks' manifests are remembered. They are bounded apart
// from denials, so that no number of free slots makes a refusal forgotten.
const maxLooks = 1 << 17 // at most 500 bytes each

// look is what was said to a playback's last manifest. That there is a slot for
// the playback is remembered as denials are, so that the next manifests of a
// start cost nothing; which stream it was for, until its media have come.
type look struct {
	at      moment
	stream  string
	vacant  bool
	claim   uint64 // hash of all that was judged,
	policy  guard.Policy
	verdict guard.Verdict
}

// remember keeps in mind what was said to a manifest.
func (k *Keeper) rememberLook(at moment, c *guard.Claim, p *guard.Policy, v *guard.Verdict) {
	if _, there := k.looks.Load(c.ID); !there && k.looks.Size() >= maxLooks {
		return
	}
	k.looks.Store(c.ID, look{at, strings.Clone(c.Stream), true, k.hashOf(*c), *p, *v})
}

// vacant is the verdict of a manifest for which there was a slot a moment ago.
func (k *Keeper) vacant(c *guard.Claim, p *guard.Policy) (v guard.Verdict, ok bool) {
	l, ok := k.looks.Load(c.ID)
	if !ok || c.Intent != guard.Look || !l.vacant || k.now().since(l.at) >= denialTime || l.claim != k.hashOf(*c) || !reflect.DeepEqual(&l.policy, p) {
		return v, false
	}
	v = l.verdict
	v.Repeated = true
	return v, true
}

// LookedAt is the stream that a playback's last manifest was for, as far as this
// node knows.
func (k *Keeper) LookedAt(id guard.ID) (stream string, ok bool) {
	l, ok := k.looks.Load(id)
	return l.stream, ok
}

// forgetVacancy has the next manifest of a playback ask the store.
func (k *Keeper) forgetVacancy(id guard.ID) {
	k.looks.Compute(id, func(l look, there bool) (look, xsync.ComputeOp) {
		if !there || !l.vacant {
			return l, xsync.CancelOp
		}
		l.vacant = false
		return l, xsync.UpdateOp
	})
}

func (k *Keeper) sweepLooks(now moment) {
	k.looks.Range(func(id guard.ID, l look) bool {
		if now.since(l.at) >= l.policy.TTL {
			k.looks.Delete(id)
		}
		return true
	})
}

// hashOf is of all that a claim is judged by: who asks for what.
func (k *Keeper) hashOf(c guard.Claim) uint64 {
	return maphash.Comparable(k.seed, guard.Claim{User: c.User, ID: c.ID, Stream: c.Stream, Device: c.Device, Labels: c.Labels, Client: c.Client})
}
