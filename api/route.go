package api

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/problem"
)

// routes are all endpoints. Of two that match a path the first has it.
var routes = []*route{
	{"/guards", []method{{http.MethodGet, (*API).list}, {http.MethodPost, (*API).start}}},
	{"/guards/cmcd", []method{{http.MethodPost, (*API).events}}},
	{"/guards/{id}", []method{{http.MethodGet, (*API).get}, {http.MethodPatch, (*API).refresh}, {http.MethodDelete, (*API).release}}},
	{"/guards/{id}/release", []method{{http.MethodPost, (*API).release}}},
}

// nowhere is the route of every other path.
var nowhere = &route{pattern: "other"}

// route is an endpoint. Its pattern has /guards where a path has the API's prefix.
type route struct {
	pattern string
	methods []method
}

type method struct {
	name string
	call call
}

// call makes a call that is of this caller, and of this guard if the path has {id}.
type call func(*API, http.ResponseWriter, *http.Request, Caller, guard.ID) error

// find returns the route of a path, and what stands in it for {id}.
func (a *API) find(path string) (_ *route, id string) {
	rest, ok := strings.CutPrefix(path, a.Prefix)
	if !ok || rest != "" && rest[0] != '/' {
		return nowhere, ""
	}
	parts := strings.Split(strings.TrimRight("/guards/"+strings.Trim(rest, "/"), "/"), "/")
	for _, r := range routes {
		if slices.EqualFunc(strings.Split(r.pattern, "/"), parts, func(want, got string) bool {
			if want == "{id}" {
				id = got
				return got != ""
			}
			return want == got
		}) {
			return r, id
		}
	}
	return nowhere, ""
}

// call returns what a method calls, or nil. HEAD calls what GET does: the server
// leaves out the body.
func (r *route) call(name string) call {
	if name == http.MethodHead {
		name = http.MethodGet
	}
	for _, m := range r.methods {
		if m.name == name {
			return m.call
		}
	}
	return nil
}

// allow lists the methods as the header fields do that are about them.
func (r *route) allow() string {
	var names []string
	for _, m := range r.methods {
		names = append(names, m.name)
		if m.name == http.MethodGet {
			names = append(names, http.MethodHead)
		}
	}
	return strings.Join(append(names, http.MethodOptions), ", ")
}

// options answers OPTIONS, which may be a preflight (Fetch standard, CORS
// protocol): whoever serves the API has allowed the origin by then, or not.
func (r *route) options(w http.ResponseWriter, asked http.Header) {
	header := w.Header()
	header.Set("Allow", r.allow())
	if asked.Get("Access-Control-Request-Method") != "" && header.Get("Access-Control-Allow-Origin") != "" {
		header.Set("Access-Control-Allow-Methods", r.allow())
		if fields := asked.Get("Access-Control-Request-Headers"); fields != "" {
			header.Set("Access-Control-Allow-Headers", fields)
		}
		header.Set("Access-Control-Max-Age", "600")
	}
	w.WriteHeader(http.StatusNoContent)
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	route, id := a.find(r.URL.Path)
	w.Header().Set("Cache-Control", "no-store")
	answer := &answer{ResponseWriter: w}
	start := time.Now()
	defer func() { a.Server.Answered(route.pattern, r.Method, answer.status, time.Since(start)) }()
	if r.ContentLength != 0 { // read or not: the server waits for it before it answers
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(maxReading)) // what cannot is no connection
	}
	err := a.serve(answer, r, route, id)
	if err == nil {
		return
	}
	p, ok := errors.AsType[*problem.Problem](err)
	switch {
	case ok:
	case r.Context().Err() != nil:
		answer.WriteHeader(statusGone)
		return
	default:
		a.Server.Failed(r, err)
		p = problem.Unavailable()
	}
	p.SetInstance(a.Server.RequestID(r))
	p.Write(answer)
}

// serve makes a call. Its error is a *problem.Problem, or the store's.
func (a *API) serve(w http.ResponseWriter, r *http.Request, route *route, inPath string) error {
	if route == nowhere {
		return problem.New(problem.NotFound, "there is nothing at %q", clip(r.URL.Path))
	}
	if r.Method == http.MethodOptions {
		route.options(w, r.Header)
		return nil
	}
	call := route.call(r.Method)
	if call == nil {
		p := problem.New(problem.MethodNotAllowed, "%s is not one of %s", clip(r.Method), route.allow())
		p.Allow = route.allow()
		return p
	}
	// What changes something waits until a replay is ruled out.
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		if p := problem.Early(r); p != nil {
			return p
		}
		if a.CrossOrigin != nil && a.CrossOrigin.Check(r) != nil {
			return problem.New(problem.CrossOrigin, "pages of the origin %q are not allowed to change guards", clip(r.Header.Get("Origin")))
		}
	}
	c, err := a.Server.Caller(r)
	if err != nil {
		return err
	}
	var id guard.ID
	if inPath != "" {
		if id, err = guard.ParseID(inPath); err != nil {
			return problem.New(problem.InvalidGuardID, "guard id %q is %v", clip(inPath), err)
		}
	}
	return call(a, w, r, c, id)
}

// answer remembers the status.
type answer struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *answer) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *answer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
