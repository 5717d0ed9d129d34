// Package operate is what operators ask of the stores in use, and do to them:
// how the stores do, who watches what, who holds the most, what a limit would
// have refused, the end of somebody's playbacks, and of all refusals.
package operate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/streamguard/streamguard/api"
	"github.com/streamguard/streamguard/audience"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/lease"
)

// Store is a store in use.
type Store struct {
	Name      string
	Keeper    *lease.Keeper
	Guards    guard.Store   // behind the Keeper
	TTL       time.Duration // the longest that a guard is kept
	Audience  *audience.Audience
	LastError *LastError
	Gates     []Gate // that use it
}

// Error is why a call is not answered, and the HTTP status that says so.
type Error struct {
	Status int
	Err    error
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func fail(status int, format string, args ...any) error {
	return &Error{status, fmt.Errorf(format, args...)}
}

// Health is how a store does.
type Health struct {
	Store   string  `json:"store"`
	Answers bool    `json:"answers"`         // all its servers do
	Took    float64 `json:"took"`            // seconds
	Error   string  `json:"error,omitempty"` // why it does not answer

	// Of a store that is none of its own. The error of one that has not
	// answered for a while is that it is not asked (circuit breaker).
	Servers []ServerHealth `json:"servers,omitempty"`

	// When it last could not answer, and why.
	LastError *LastError `json:"lastError,omitempty"`

	Leases int `json:"leases"` // playbacks that this Caddy knows

	// The gates that observe because an operator has said so.
	Observing []Gate `json:"observing,omitempty"`
}

// ServerHealth is how a server of a store does.
type ServerHealth struct {
	Server  string  `json:"server"`
	Answers bool    `json:"answers"`
	Took    float64 `json:"took"` // seconds
	Error   string  `json:"error,omitempty"`
}

// LastError is a moment when a store could not answer.
type LastError struct {
	At    time.Time `json:"at"`
	Error string    `json:"error"`
}

// Stores says how each store does.
func Stores(ctx context.Context, stores []Store) []Health {
	health := make([]Health, len(stores))
	var all sync.WaitGroup
	for i, s := range stores {
		all.Go(func() { health[i] = s.health(ctx) })
	}
	all.Wait()
	return health
}

func (s Store) health(ctx context.Context) Health {
	leases, _ := s.Keeper.Size()
	h := Health{Store: s.Name, Answers: true, LastError: s.LastError, Leases: leases, Observing: s.observing()}
	start := time.Now()
	if prober, ok := s.Guards.(guard.Prober); ok {
		for _, server := range prober.Probe(ctx) {
			part := ServerHealth{Server: server.Name, Answers: server.Err == nil, Took: server.Took.Seconds()}
			if server.Err != nil {
				part.Error, h.Answers = server.Err.Error(), false
				h.Error = "not all of its servers answer"
			}
			h.Servers = append(h.Servers, part)
		}
		slices.SortFunc(h.Servers, func(a, b ServerHealth) int { return cmp.Compare(a.Server, b.Server) })
	} else if _, err := s.Guards.List(ctx, ""); err != nil { // nobody: it is about the answer
		h.Answers, h.Error = false, err.Error()
	}
	h.Took = time.Since(start).Seconds()
	return h
}

// Reports says what limits would have done in each store whose users are only observed.
func Reports(stores []Store) []audience.Report {
	reports := []audience.Report{}
	for _, s := range stores {
		if r, ok := s.Audience.Report(); ok {
			r.Store = s.Name
			reports = append(reports, r)
		}
	}
	return reports
}

// Top is who holds the most guards in a store.
type Top struct {
	Store  string    `json:"store"`
	Users  int       `json:"users"`  // who hold guards
	Guards int       `json:"guards"` // that they hold
	Active int       `json:"active"` // of these: the others are closed or lapsed
	Top    []UserTop `json:"top"`    // most guards first
	Error  string    `json:"error,omitempty"`
}

// UserTop is a user among others.
type UserTop struct {
	User   string    `json:"user"`
	Path   string    `json:"path"` // of the user on the admin API: it keeps what is not UTF-8
	Guards int       `json:"guards"`
	Active int       `json:"active"` // of these: the others are closed or lapsed
	Since  time.Time `json:"since"`  // of the oldest guard
}

// Tops says who holds the most guards in each store, and how many there are. It
// goes through all users.
func Tops(ctx context.Context, stores []Store, n int) []Top {
	tops := make([]Top, len(stores))
	for i, s := range stores {
		tops[i] = s.top(ctx, n)
	}
	return tops
}

func (s Store) top(ctx context.Context, n int) Top {
	t := Top{Store: s.Name, Top: []UserTop{}}
	walker, ok := s.Guards.(guard.Walker)
	if !ok {
		t.Error = "this kind of store cannot go through its users"
		return t
	}
	err := walker.Walk(ctx, func(user string, guards []guard.Guard) {
		t.Users++
		t.Guards += len(guards)
		u := UserTop{User: user, Path: UserPath(user), Guards: len(guards), Since: guards[0].CreatedAt}
		for _, g := range guards {
			if g.Listed() == guard.Active {
				u.Active++
			}
		}
		t.Active += u.Active
		t.rank(u, n)
	})
	if err != nil {
		t.Error = err.Error()
	}
	return t
}

// rank adds a user to the n who hold the most.
func (t *Top) rank(u UserTop, n int) {
	i, _ := slices.BinarySearchFunc(t.Top, u, func(a, b UserTop) int {
		return cmp.Or(cmp.Compare(b.Guards, a.Guards), a.Since.Compare(b.Since), cmp.Compare(a.User, b.User))
	})
	if i == n || slices.ContainsFunc(t.Top, func(o UserTop) bool { return o.Path == u.Path }) {
		return
	}
	t.Top = slices.Insert(t.Top, i, u)
	t.Top = t.Top[:min(len(t.Top), n)]
}

// Guards are a user's guards in a store.
type Guards struct {
	Store  string      `json:"store"`
	Guards []api.Guard `json:"guards"` // oldest first
	Error  string      `json:"error,omitempty"`
}

// List lists a user's guards in each store that has any. Its error is an *Error.
func List(ctx context.Context, stores []Store, user string) ([]Guards, error) {
	return inEach(stores, func(s Store) ([]guard.Guard, error) { return s.Guards.List(guard.ForDisplay(ctx), user) },
		fmt.Errorf("user %q holds no guards", user))
}

// Revoke ends a user's guards, or only the one with an id, in each store, and
// says which these were. Its error is an *Error.
func Revoke(ctx context.Context, stores []Store, user string, only *guard.ID) ([]Guards, error) {
	absent := fmt.Errorf("user %q holds no guards", user)
	if only != nil {
		absent = fmt.Errorf("user %q holds no guard %v", user, only)
	}
	return inEach(stores, func(s Store) (revoked []guard.Guard, err error) {
		guards, err := s.Guards.List(ctx, user)
		if err != nil {
			return nil, err
		}
		policy := guard.Policy{TTL: s.TTL}
		for _, g := range guards {
			if only != nil && g.ID != *only {
				continue
			}
			found, err := s.Keeper.Revoke(ctx, user, g.ID, policy)
			if err != nil {
				return revoked, err
			}
			if found {
				revoked = append(revoked, g)
			}
		}
		return revoked, nil
	}, absent)
}

// inEach does something in each store and answers with the guards it was about.
// Without any the error is the stores', or else absent.
func inEach(stores []Store, do func(Store) ([]guard.Guard, error), absent error) ([]Guards, error) {
	var answer []Guards
	var failed []error
	found := false
	for _, s := range stores {
		guards, err := do(s)
		part := Guards{Store: s.Name, Guards: make([]api.Guard, len(guards))}
		for i, g := range guards {
			part.Guards[i] = api.NewGuard(g)
			found = true
		}
		if err != nil {
			part.Error = err.Error()
			failed = append(failed, fmt.Errorf("store %s: %w", s.Name, err))
		}
		if len(guards) > 0 || err != nil {
			answer = append(answer, part)
		}
	}
	switch {
	case !found && failed != nil:
		return nil, &Error{http.StatusServiceUnavailable, errors.Join(failed...)}
	case !found:
		return nil, &Error{http.StatusNotFound, absent}
	}
	return answer, nil
}

// UserPath is where the admin API has a user. One who is all dots would not be
// a place of its own.
func UserPath(user string) string {
	const users = Path + "users/"
	if strings.Trim(user, ".") == "" {
		return users + strings.ReplaceAll(user, ".", "%2E")
	}
	return users + url.PathEscape(user)
}
