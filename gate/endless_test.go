package gate

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamguard/streamguard/audience"
	"github.com/streamguard/streamguard/connection"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/lease"
	"github.com/streamguard/streamguard/memstore"
)

// goesAway is a store that cannot answer while it is away.
type goesAway struct {
	guard.Store
	away atomic.Bool
}

var errAway = errors.New("the store is away")

func (s *goesAway) Acquire(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	if s.away.Load() {
		return guard.Verdict{}, errAway
	}
	return s.Store.Acquire(ctx, c, p)
}

func (s *goesAway) Refresh(ctx context.Context, user string, id guard.ID, p guard.Policy) (guard.Verdict, error) {
	if s.away.Load() {
		return guard.Verdict{}, errAway
	}
	return s.Store.Refresh(ctx, user, id, p)
}

func (s *goesAway) CloseGuard(ctx context.Context, user string, id guard.ID) (bool, error) {
	if s.away.Load() {
		return false, errAway
	}
	return s.Store.CloseGuard(ctx, user, id)
}

// channel is an endless answer of a gate, at limit 1.
func channel(g *Gate, url string) *Passage {
	r := ask("u", url, 1)
	r.Client = 7
	p := g.Begin(context.Background(), r)
	p.Answers(unsent{})
	p.SendsOn()
	return p
}

type unsent struct{}

func (unsent) Unsend() {}
func (unsent) Met()    {}

// withChannels is for a test of endless answers, in virtual time.
func withChannels(t *testing.T, test func(t *testing.T, g *Gate, s *goesAway)) {
	synctest.Test(t, func(t *testing.T) {
		s, local := &goesAway{Store: memstore.New()}, memstore.New()
		k := lease.New(s, local, nil)
		g := New(k, local, audience.New(), NewMemory())
		g.Connections = connection.New(connection.After, nil)
		test(t, g, s)
		time.Sleep(cutEvery) // until what was cut is left alone
		k.Close()
		local.Close()
		s.Store.(*memstore.Store).Close()
		synctest.Wait()
	})
}

func (s *goesAway) holds(t *testing.T, want int) guard.Guard {
	t.Helper()
	held, err := s.Store.List(t.Context(), "u")
	if err != nil || len(held) != want {
		t.Fatalf("%+v are held, want %d: %v", held, want, err)
	}
	if want == 0 {
		return guard.Guard{}
	}
	return held[0]
}

func TestAnEndlessAnswerGoesOnWhileTheStoreIsAway(t *testing.T) {
	for name, revoked := range map[string]bool{"": false, "its guard is revoked meanwhile": true} {
		t.Run(name, func(t *testing.T) {
			withChannels(t, func(t *testing.T, g *Gate, s *goesAway) {
				p := channel(g, "/live/1.ts")
				time.Sleep(5 * time.Second)
				is := s.holds(t, 1)
				s.away.Store(true)
				time.Sleep(time.Minute)
				if p.IsCut() {
					t.Fatal("it is cut while the store is away")
				}
				if revoked {
					s.Store.Revoke(t.Context(), "u", is.ID, p.request.Policy)
				}
				s.away.Store(false)
				time.Sleep(guard.DefaultInterval)
				if p.IsCut() != revoked {
					t.Fatalf("when the store is back it is cut: %v", p.IsCut())
				}
				if p.Answered(false, true); revoked {
					return
				}
				time.Sleep(connection.After - time.Millisecond)
				if s.holds(t, 1).Closed {
					t.Error("it is closed too soon")
				}
				time.Sleep(2 * time.Millisecond)
				if now := s.holds(t, 1); now.ID != is.ID || !now.Closed {
					t.Errorf("it holds %+v, want %v closed", now, is.ID)
				}
			})
		})
	}
}

// An answer that ends while the store is away keeps its slot until ttl, and no longer.
func TestAnEndlessAnswerEndsWhileTheStoreIsAway(t *testing.T) {
	withChannels(t, func(t *testing.T, g *Gate, s *goesAway) {
		p := channel(g, "/live/1.ts")
		time.Sleep(5 * time.Second)
		s.away.Store(true)
		p.Answered(false, true)
		time.Sleep(time.Minute)
		s.away.Store(false)
		if s.holds(t, 1).Closed {
			t.Error("it is closed")
		}
		time.Sleep(guard.DefaultTTL)
		s.holds(t, 0)
	})
}

// A second box of the same address and program asks for another channel.
func TestASecondChannelWaitsUntilTheFirstIsKnown(t *testing.T) {
	for name, row := range map[string]struct {
		first func(g *Gate, p *Passage) // what becomes of the first answer after half a second
		want  Word
		after time.Duration // at most
	}{
		"it goes on":          {func(*Gate, *Passage) {}, Rejected, 2 * time.Second},
		"its client hangs up": {func(_ *Gate, p *Passage) { p.Answered(false, true) }, Known, 600 * time.Millisecond},
		"it was a segment":    {func(_ *Gate, p *Passage) { p.Answered(true, false) }, Known, 600 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			withChannels(t, func(t *testing.T, g *Gate, s *goesAway) {
				first := channel(g, "/live/1.ts")
				time.AfterFunc(time.Second/2, func() { row.first(g, first) })
				began := time.Now()
				second := channel(g, "/live/2.ts")
				if took := time.Since(began); second.Word != row.want || took > row.after {
					t.Errorf("%s after %v, want %s", second.Word, took, row.want)
				}
			})
		})
	}
}
