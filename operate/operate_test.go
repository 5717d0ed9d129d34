package operate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/memstore"
)

func TestTopIsThoseWhoHoldTheMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memstore.New()
		defer m.Close()
		s := Store{Name: "memory", Guards: m}
		users := rand.Perm(50)
		policy := guard.Policy{Limit: 100, Interval: guard.DefaultInterval, TTL: guard.DefaultTTL}
		for _, n := range users {
			for range n + 1 {
				user := fmt.Sprint("user", n)
				if _, err := m.Acquire(context.Background(), guard.Claim{User: user, ID: guard.NewID(user, "")}, policy); err != nil {
					t.Fatal(err)
				}
			}
		}
		top := s.top(context.Background(), 7)
		if top.Users != 50 || top.Guards != 50*51/2 || len(top.Top) != 7 || top.Error != "" {
			t.Errorf("%+v", top)
		}
		for i, u := range top.Top {
			if u.User != fmt.Sprint("user", 49-i) || u.Guards != 50-i || u.Path != "/stream_guard/users/"+u.User {
				t.Errorf("place %d: %+v", i, u)
			}
		}
		// A store may show somebody twice.
		top.rank(top.Top[3], 7)
		if len(top.Top) != 7 || top.Top[3].User == top.Top[4].User {
			t.Errorf("%+v", top.Top)
		}
		if all := s.top(context.Background(), 1000); len(all.Top) != 50 {
			t.Errorf("%d of 50 users", len(all.Top))
		}
	})
}
