package operate

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/streamguard/streamguard/guard"
)

// Path is where the calls are.
const Path = "/stream_guard/"

// The bounds on an answer of top.
const (
	DefaultTop = 10
	MaxTop     = 1000
)

// call answers a call about the stores that it chose; in are the parts of its
// path that the pattern leaves open.
type call func(r *http.Request, chosen []Store, in []string) (any, error)

// routes are the calls, by pattern and method.
var routes = []struct {
	pattern string
	calls   map[string]call
}{
	{"stores", map[string]call{
		"GET": func(r *http.Request, chosen []Store, _ []string) (any, error) {
			return Stores(r.Context(), chosen), nil
		},
	}},
	{"top", map[string]call{"GET": top}},
	{"report", map[string]call{
		"GET": func(_ *http.Request, chosen []Store, _ []string) (any, error) { return Reports(chosen), nil },
	}},
	{"mode", map[string]call{"GET": gates, "PUT": setMode, "DELETE": resetMode}},
	{"users/*", map[string]call{"GET": list, "DELETE": revoke}},
	{"users/*/guards/*", map[string]call{"DELETE": revoke}},
}

// Answer answers a call below Path, which is about all the stores or the one
// that the query names: where there is none, nobody is to think that nobody
// watches. Its error is an *Error; allow is the Allow header of a 405. A slash in a user is %2F, so the path is read as it is escaped.
func Answer(r *http.Request, stores []Store) (answer any, allow string, err error) {
	calls, in := find(strings.TrimPrefix(r.URL.EscapedPath(), Path))
	if calls == nil {
		return nil, "", fail(http.StatusNotFound, "there is nothing at %q", r.URL.Path)
	}
	do := calls[r.Method]
	if do == nil {
		allow = strings.Join(slices.Sorted(maps.Keys(calls)), ", ")
		return nil, allow, fail(http.StatusMethodNotAllowed, "%s is not one of %s", r.Method, allow)
	}
	if r.Method != http.MethodPut {
		if n, _ := io.ReadFull(r.Body, make([]byte, 1)); n > 0 {
			return nil, "", fail(http.StatusBadRequest, "the call takes no body")
		}
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, "", fail(http.StatusBadRequest, "query: %v", err)
	}
	if len(stores) == 0 {
		return nil, "", fail(http.StatusNotFound, "the running config has no stream_guard")
	}
	chosen, err := choose(stores, query)
	if err != nil {
		return nil, "", err
	}
	answer, err = do(r, chosen, in)
	return answer, "", err
}

// find is the route of a path, and what the path has for each * of its pattern.
func find(path string) (calls map[string]call, in []string) {
	parts := strings.Split(path, "/")
	for _, route := range routes {
		in = nil
		pattern := strings.Split(route.pattern, "/")
		if len(pattern) != len(parts) {
			continue
		}
		fits := true
		for i, p := range pattern {
			if p == "*" {
				in = append(in, parts[i])
			} else if p != parts[i] {
				fits = false
			}
		}
		if fits {
			return route.calls, in
		}
	}
	return nil, nil
}

// choose returns the stores, or the one that a query names.
func choose(all []Store, query url.Values) ([]Store, error) {
	if !query.Has("store") {
		return all, nil
	}
	var names []string
	var chosen []Store
	for _, s := range all {
		if s.Name == query.Get("store") {
			chosen = append(chosen, s)
		}
		names = append(names, strconv.Quote(s.Name))
	}
	if chosen == nil {
		return nil, fail(http.StatusNotFound, "there is no store %q; in use: %s", query.Get("store"), strings.Join(names, ", "))
	}
	return chosen, nil
}

func top(r *http.Request, chosen []Store, _ []string) (any, error) {
	n := DefaultTop
	if query := r.URL.Query(); query.Has("n") {
		var err error
		if n, err = strconv.Atoi(query.Get("n")); err != nil || n < 1 || n > MaxTop {
			return nil, fail(http.StatusBadRequest, "n: %q is not a whole number from 1 to %d", query.Get("n"), MaxTop)
		}
	}
	return Tops(r.Context(), chosen, n), nil
}

func list(r *http.Request, chosen []Store, in []string) (any, error) {
	user, err := userOf(in[0])
	if err != nil {
		return nil, err
	}
	return answerOf(List(r.Context(), chosen, user))
}

func revoke(r *http.Request, chosen []Store, in []string) (any, error) {
	user, err := userOf(in[0])
	if err != nil {
		return nil, err
	}
	var only *guard.ID
	if len(in) > 1 {
		text, _ := url.PathUnescape(in[1])
		id, err := guard.ParseID(text)
		if err != nil {
			return nil, fail(http.StatusBadRequest, "guard id %q is %v", text, err)
		}
		only = &id
	}
	return answerOf(Revoke(r.Context(), chosen, user, only))
}

// answerOf has no answer beside an error.
func answerOf(answer []Guards, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return answer, nil
}

func userOf(escaped string) (string, error) {
	user, err := url.PathUnescape(escaped)
	if err == nil && (user == "" || len(user) > guard.MaxUser) {
		err = fmt.Errorf("has %d bytes, from 1 to %d are allowed", len(user), guard.MaxUser)
	}
	if err != nil {
		return "", fail(http.StatusBadRequest, "user: %v", err)
	}
	return user, nil
}
