package caddymodule

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/streamguard/streamguard/api"
	"github.com/streamguard/streamguard/guard"
)

func init() { caddy.RegisterModule(Admin{}) }

// Admin is /stream_guard/ on Caddy's admin endpoint, for operators:
//
//	GET    /stream_guard/stores                    the stores and how they do
//	GET    /stream_guard/top?n=10                  totals, and who holds the most guards
//	GET    /stream_guard/users/{user}              a user's guards
//	DELETE /stream_guard/users/{user}              revokes them all
//	DELETE /stream_guard/users/{user}/guards/{id}  revokes one
//	GET    /stream_guard/report                    what mode observe has seen
//
// It answers for the stores that the running config's handlers use; the
// parameter store picks one by its name. A user's "/" is %2F, and "." and ".."
// are %2E and %2E%2E.
//
// Where a store cannot answer, the others do, and its part says why.
type Admin struct{}

// CaddyModule returns the Caddy module information.
func (Admin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.stream_guard",
		New: func() caddy.Module { return new(Admin) },
	}
}

// Routes implements caddy.AdminRouter.
func (a *Admin) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: "/stream_guard/", Handler: caddy.AdminHandlerFunc(a.serve)}}
}

// Bounds on an answer of top.
const (
	defaultTop = 10
	maxTop     = 1000
)

// StoreHealth is how a store does.
type StoreHealth struct {
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

// StoreTop is who holds the most guards in a store.
type StoreTop struct {
	Store  string    `json:"store"`
	Users  int       `json:"users"`  // who hold guards
	Guards int       `json:"guards"` // that they hold
	Top    []UserTop `json:"top"`    // most guards first
	Error  string    `json:"error,omitempty"`
}

// UserTop is a user among others.
type UserTop struct {
	User   string    `json:"user"`
	Path   string    `json:"path"` // of the user on this API: it keeps what is not UTF-8
	Guards int       `json:"guards"`
	Since  time.Time `json:"since"` // of the oldest guard
}

// StoreGuards are a user's guards in a store.
type StoreGuards struct {
	Store  string      `json:"store"`
	Guards []api.Guard `json:"guards"` // oldest first
	Error  string      `json:"error,omitempty"`
}

// serve routes a call. Its error is a caddy.APIError.
func (a *Admin) serve(w http.ResponseWriter, r *http.Request) error {
	// Escaped, for a user may have slashes.
	parts := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/stream_guard/"), "/")
	type call = func(*http.Request, []*pooled, []string) (any, error)
	var methods map[string]call
	switch {
	case len(parts) == 1 && parts[0] == "stores":
		methods = map[string]call{http.MethodGet: a.stores}
	case len(parts) == 1 && parts[0] == "top":
		methods = map[string]call{http.MethodGet: a.top}
	case len(parts) == 1 && parts[0] == "report":
		methods = map[string]call{http.MethodGet: a.report}
	case len(parts) == 2 && parts[0] == "users":
		methods = map[string]call{http.MethodGet: a.guards, http.MethodDelete: a.revoke}
	case len(parts) == 4 && parts[0] == "users" && parts[2] == "guards":
		methods = map[string]call{http.MethodDelete: a.revoke}
	default:
		return adminError(http.StatusNotFound, "there is nothing at %q", r.URL.Path)
	}
	serve := methods[r.Method]
	if serve == nil {
		allow := strings.Join(slices.Sorted(maps.Keys(methods)), ", ")
		w.Header().Set("Allow", allow)
		return adminError(http.StatusMethodNotAllowed, "%s is not one of %s", r.Method, allow)
	}
	if n, _ := io.ReadFull(r.Body, make([]byte, 1)); n > 0 {
		return adminError(http.StatusBadRequest, "the call takes no body")
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return adminError(http.StatusBadRequest, "query: %v", err)
	}
	chosen, err := chooseStores(query)
	if err != nil {
		return err
	}
	answer, err := serve(r, chosen, parts)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(answer)
}

func adminError(status int, format string, args ...any) error {
	return caddy.APIError{HTTPStatus: status, Err: fmt.Errorf(format, args...)}
}

// inUse are the stores of the running config, by name.
func inUse() (all []*pooled) {
	stores.Range(func(_, v any) bool {
		all = append(all, v.(*pooled))
		return true
	})
	slices.SortFunc(all, func(a, b *pooled) int { return cmp.Compare(a.name, b.name) })
	return all
}

// chooseStores are the stores in use, or the one that a query names.
func chooseStores(query url.Values) ([]*pooled, error) {
	all := inUse()
	if !query.Has("store") {
		return all, nil
	}
	var names []string
	var chosen []*pooled
	for _, p := range all {
		if p.name == query.Get("store") {
			chosen = append(chosen, p)
		}
		names = append(names, strconv.Quote(p.name))
	}
	if chosen == nil {
		return nil, adminError(http.StatusNotFound, "there is no store %q; in use: %s", query.Get("store"), cmp.Or(strings.Join(names, ", "), "none"))
	}
	return chosen, nil
}

func (a *Admin) stores(r *http.Request, chosen []*pooled, _ []string) (any, error) {
	health := make([]StoreHealth, len(chosen))
	var all sync.WaitGroup
	for i, p := range chosen {
		all.Go(func() { health[i] = p.health(r.Context()) })
	}
	all.Wait()
	return health, nil
}

func (p *pooled) health(ctx context.Context) StoreHealth {
	leases, _ := p.keeper.Size()
	h := StoreHealth{Store: p.name, Answers: true, LastError: p.lastError.Load(), Leases: leases}
	start := time.Now()
	if prober, ok := p.store.(guard.Prober); ok {
		for _, s := range prober.Probe(ctx) {
			server := ServerHealth{Server: s.Name, Answers: s.Err == nil, Took: s.Took.Seconds()}
			if s.Err != nil {
				server.Error, h.Answers = s.Err.Error(), false
				h.Error = "not all of its servers answer"
			}
			h.Servers = append(h.Servers, server)
		}
		slices.SortFunc(h.Servers, func(a, b ServerHealth) int { return cmp.Compare(a.Server, b.Server) })
	} else if _, err := p.store.List(ctx, ""); err != nil { // nobody: it is about the answer
		h.Answers, h.Error = false, err.Error()
	}
	h.Took = time.Since(start).Seconds()
	return h
}

func (a *Admin) top(r *http.Request, chosen []*pooled, _ []string) (any, error) {
	n := defaultTop
	if r.URL.Query().Has("n") {
		var err error
		if n, err = strconv.Atoi(r.URL.Query().Get("n")); err != nil || n < 1 || n > maxTop {
			return nil, adminError(http.StatusBadRequest, "n: %q is not a whole number from 1 to %d", r.URL.Query().Get("n"), maxTop)
		}
	}
	answer := make([]StoreTop, len(chosen))
	for i, p := range chosen {
		answer[i] = p.top(r.Context(), n)
	}
	return answer, nil
}

func (p *pooled) top(ctx context.Context, n int) StoreTop {
	t := StoreTop{Store: p.name, Top: []UserTop{}}
	walker, ok := p.store.(guard.Walker)
	if !ok {
		t.Error = "this kind of store cannot go through its users"
		return t
	}
	err := walker.Walk(ctx, func(user string, guards []guard.Guard) {
		t.Users++
		t.Guards += len(guards)
		t.rank(UserTop{User: user, Path: userPath(user), Guards: len(guards), Since: guards[0].CreatedAt}, n)
	})
	if err != nil {
		t.Error = err.Error()
	}
	return t
}

// rank adds a user to the n who hold the most.
func (t *StoreTop) rank(u UserTop, n int) {
	i, _ := slices.BinarySearchFunc(t.Top, u, func(a, b UserTop) int {
		return cmp.Or(cmp.Compare(b.Guards, a.Guards), a.Since.Compare(b.Since), cmp.Compare(a.User, b.User))
	})
	if i == n || slices.ContainsFunc(t.Top, func(o UserTop) bool { return o.Path == u.Path }) {
		return
	}
	t.Top = slices.Insert(t.Top, i, u)
	t.Top = t.Top[:min(len(t.Top), n)]
}

// guards lists a user's guards.
func (a *Admin) guards(r *http.Request, chosen []*pooled, parts []string) (any, error) {
	user, err := userOf(parts[1])
	if err != nil {
		return nil, err
	}
	return inEach(chosen, func(p *pooled) ([]guard.Guard, error) { return p.store.List(guard.ForDisplay(r.Context()), user) },
		fmt.Errorf("user %q holds no guards", user))
}

// revoke ends a user's guards, or one of them, and answers which these were.
func (a *Admin) revoke(r *http.Request, chosen []*pooled, parts []string) (any, error) {
	user, err := userOf(parts[1])
	if err != nil {
		return nil, err
	}
	var only *guard.ID
	absent := fmt.Errorf("user %q holds no guards", user)
	if len(parts) > 2 {
		text, _ := url.PathUnescape(parts[3])
		id, err := guard.ParseID(text)
		if err != nil {
			return nil, adminError(http.StatusBadRequest, "guard id %q is %v", text, err)
		}
		only, absent = &id, fmt.Errorf("user %q holds no guard %v", user, id)
	}
	return inEach(chosen, func(p *pooled) (revoked []guard.Guard, err error) {
		guards, err := p.store.List(r.Context(), user)
		if err != nil {
			return nil, err
		}
		policy := guard.Policy{TTL: time.Duration(p.ttl.Load())}
		for _, g := range guards {
			if only != nil && g.ID != *only {
				continue
			}
			found, err := p.keeper.Revoke(r.Context(), user, g.ID, policy)
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
// Without any the error is the stores', or else absent as a 404.
func inEach(chosen []*pooled, do func(*pooled) ([]guard.Guard, error), absent error) (any, error) {
	var answer []StoreGuards
	var failed []error
	found := false
	for _, p := range chosen {
		guards, err := do(p)
		part := StoreGuards{Store: p.name, Guards: make([]api.Guard, len(guards))}
		for i, g := range guards {
			part.Guards[i] = api.NewGuard(g)
			found = true
		}
		if err != nil {
			part.Error = err.Error()
			failed = append(failed, fmt.Errorf("store %s: %w", p.name, err))
		}
		if len(guards) > 0 || err != nil {
			answer = append(answer, part)
		}
	}
	switch {
	case !found && failed != nil:
		return nil, caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: errors.Join(failed...)}
	case !found:
		return nil, caddy.APIError{HTTPStatus: http.StatusNotFound, Err: absent}
	}
	return answer, nil
}

const usersPath = "/stream_guard/users/"

// userPath is where a user is found. A user who is all dots would not be a
// place of its own.
func userPath(user string) string {
	if strings.Trim(user, ".") == "" {
		return usersPath + strings.ReplaceAll(user, ".", "%2E")
	}
	return usersPath + url.PathEscape(user)
}

func userOf(escaped string) (string, error) {
	user, err := url.PathUnescape(escaped)
	if err != nil || user == "" || len(user) > guard.MaxUser {
		return "", adminError(http.StatusBadRequest, "user: has %d bytes, from 1 to %d are allowed", len(user), guard.MaxUser)
	}
	return user, nil
}

func (a *Admin) report(_ *http.Request, chosen []*pooled, _ []string) (any, error) {
	reports := []Report{}
	for _, p := range chosen {
		if o := p.tally.Load(); o != nil {
			reports = append(reports, o.report(p.name))
		}
	}
	return reports, nil
}

var _ caddy.AdminRouter = (*Admin)(nil)
