// Package api is /guards: guards by explicit call, for callers who would
// rather say when a playback starts and stops than have it seen from its media.
package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/problem"
)

// MaxBody is how many bytes a request's body may have.
const MaxBody = 4 << 10

// maxReading is how long a body may take to arrive.
const maxReading = 10 * time.Second

// statusGone is for the log and the metrics: the client has gone and reads no answer.
const statusGone = 499

// Caller is who makes a call, as the server knows and not as the body says.
type Caller struct {
	User   string
	Device string // "" where it is not known: then the body may name one
	Labels guard.Labels
	ID     *guard.ID // the playback that the request itself names, if any
	Policy guard.Policy

	// Base is the path of the API as the caller sees it: /guards.
	Base string
}

// API answers below its prefix. It is an http.Handler.
type API struct {
	Store guard.Store

	// Prefix is the path that Store's guards are found at: /guards.
	Prefix string
	// Caller tells who makes a call. Its error is answered as the Problem it
	// is, or else as a 503.
	Caller func(*http.Request) (Caller, error)
	// Events reads and serves what players report.
	Events Events
	// RefreshAfter is what clients are told to wait between two refreshes.
	RefreshAfter time.Duration
	// RevealGuards shows the ids of the guards in the way of a refused playback.
	RevealGuards bool
	// CrossOrigin keeps pages of other sites from changing anything in the name
	// of whoever opens them; nil allows them.
	CrossOrigin *http.CrossOriginProtection
	// RequestID is the id of a request, for problems to name; nil for none.
	RequestID func(*http.Request) string
	// OnError hears of what kept a call from being answered; may be nil.
	OnError func(*http.Request, error)
	// OnAnswer hears of every answer; endpoint is a path such as /guards/{id},
	// or "other". It may be nil.
	OnAnswer func(endpoint, method string, status int, took time.Duration)
}

// Guard is a guard in JSON.
type Guard struct {
	GuardID      string            `json:"guardId"`
	StreamID     string            `json:"streamId,omitempty"`
	DeviceID     string            `json:"deviceId,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	CreatedAt    time.Time         `json:"createdAt"`              // RFC 3339
	ExpiresAt    time.Time         `json:"expiresAt"`              // lapses then,
	RemovedAt    time.Time         `json:"removedAt"`              // is gone then, unless it is refreshed
	RefreshAfter float64           `json:"refreshAfter,omitempty"` // seconds; to the guard's own client
}

// Guards is the answer to GET /guards.
type Guards struct {
	Guards    []Guard `json:"guards"` // oldest first
	Limit     int     `json:"limit"`
	Remaining int     `json:"remaining"`
}

// Start is the body of POST /guards. An empty body is an empty object.
type Start struct {
	StreamID   string `json:"streamId"`
	DeviceID   string `json:"deviceId"`
	PlaybackID string `json:"playbackId"` // makes the call idempotent
	OnLimit    string `json:"onLimit"`    // one of AtLimit, in place of the configured one
}

// AtLimit are the words for what becomes of a playback that starts when a
// limit is reached.
var AtLimit = map[string]guard.AtLimit{
	"reject":         guard.Reject,
	"replace_device": guard.ReplaceDevice,
	"replace_oldest": guard.ReplaceOldest,
}

// route is an endpoint with its calls by method.
type route struct {
	endpoint string
	calls    calls
}

type calls map[string]func(*API, http.ResponseWriter, *http.Request, Caller, guard.ID) error

var (
	nowhere = &route{endpoint: "other"}
	all     = &route{"/guards", calls{http.MethodGet: (*API).list, http.MethodPost: (*API).start}}
	cmcd    = &route{"/guards/cmcd", calls{http.MethodPost: (*API).events}}
	one     = &route{"/guards/{id}", calls{http.MethodGet: (*API).get, http.MethodPatch: (*API).refresh, http.MethodDelete: (*API).release}}
	beacon  = &route{"/guards/{id}/release", calls{http.MethodPost: (*API).release}}
)

// find returns the route of a path, and the guard id in it.
func (a *API) find(path string) (_ *route, id string) {
	rest, ok := strings.CutPrefix(path, a.Prefix)
	if !ok || rest != "" && rest[0] != '/' {
		return nowhere, ""
	}
	id, verb, _ := strings.Cut(strings.Trim(rest, "/"), "/")
	switch {
	case verb == "release":
		return beacon, id
	case verb != "":
		return nowhere, ""
	case id == "":
		return all, ""
	case id == "cmcd":
		return cmcd, ""
	}
	return one, id
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	route, id := a.find(r.URL.Path)
	answer := &answer{ResponseWriter: w}
	if a.OnAnswer != nil {
		start := time.Now()
		defer func() { a.OnAnswer(route.endpoint, r.Method, answer.status, time.Since(start)) }()
	}
	if r.ContentLength != 0 { // read or not: the server waits for it before it answers
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(maxReading)) // what cannot is no connection
	}
	if err := a.serve(answer, r, route, id); err != nil {
		p, ok := errors.AsType[*problem.Problem](err)
		switch {
		case ok:
		case r.Context().Err() != nil:
			answer.WriteHeader(statusGone)
			return
		default:
			if a.OnError != nil {
				a.OnError(r, err)
			}
			p = problem.Unavailable()
		}
		if a.RequestID != nil {
			p.SetInstance(a.RequestID(r))
		}
		p.Write(answer)
	}
}

// answer remembers the status.
type answer struct {
	http.ResponseWriter
	status int
}

func (w *answer) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *answer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// serve makes a call. Its error is a *problem.Problem, or the store's.
func (a *API) serve(w http.ResponseWriter, r *http.Request, route *route, inPath string) error {
	if route == nowhere {
		return notFound(r)
	}
	serve := route.calls[r.Method]
	if r.Method == http.MethodHead {
		serve = route.calls[http.MethodGet]
	}
	if serve == nil {
		return notAllowed(w, r, route.calls)
	}
	// What changes something waits until a replay is ruled out.
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		if p := problem.Early(r); p != nil {
			return p
		}
		if a.CrossOrigin != nil && a.CrossOrigin.Check(r) != nil {
			return problem.New(http.StatusForbidden, problem.CrossOrigin, "pages of the origin %q are not allowed to change guards", clip(r.Header.Get("Origin")))
		}
	}
	w.Header().Set("Cache-Control", "no-store")
	c, err := a.Caller(r)
	if err != nil {
		return err
	}
	var id guard.ID
	if inPath != "" {
		if id, err = guard.ParseID(inPath); err != nil {
			return problem.New(http.StatusBadRequest, problem.InvalidGuardID, "guard id %q is %v", clip(inPath), err)
		}
	}
	return serve(a, w, r, c, id)
}

func notFound(r *http.Request) *problem.Problem {
	return problem.New(http.StatusNotFound, problem.NotFound, "there is nothing at %q", clip(r.URL.Path))
}

func notAllowed(w http.ResponseWriter, r *http.Request, methods calls) error {
	var allow []string
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodDelete, http.MethodOptions} {
		_, ok := methods[m]
		_, get := methods[http.MethodGet]
		if ok || m == http.MethodHead && get || m == http.MethodOptions {
			allow = append(allow, m)
		}
	}
	if r.Method == http.MethodOptions {
		w.Header().Set("Allow", strings.Join(allow, ", "))
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	p := problem.New(http.StatusMethodNotAllowed, problem.MethodNotAllowed, "%s is not one of %s", clip(r.Method), strings.Join(allow, ", "))
	p.Allow = strings.Join(allow, ", ")
	return p
}

func (a *API) start(w http.ResponseWriter, r *http.Request, c Caller, _ guard.ID) error {
	var body Start
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	for _, field := range [][2]string{{"streamId", body.StreamID}, {"deviceId", body.DeviceID}, {"playbackId", body.PlaybackID}} {
		name, value := field[0], field[1]
		if len(value) > guard.MaxLabel {
			return problem.New(http.StatusBadRequest, problem.InvalidBody, "%s has %d bytes, at most %d are allowed", name, len(value), guard.MaxLabel)
		}
		if strings.ContainsFunc(value, unicode.IsControl) {
			return problem.New(http.StatusBadRequest, problem.InvalidBody, "%s has control characters", name)
		}
	}
	if body.OnLimit != "" {
		atLimit, known := AtLimit[body.OnLimit]
		if !known {
			return problem.New(http.StatusBadRequest, problem.InvalidBody, "onLimit %q is not one of %s", clip(body.OnLimit), strings.Join(slices.Sorted(maps.Keys(AtLimit)), ", "))
		}
		c.Policy = c.Policy.With(atLimit)
	}
	claim := guard.Claim{User: c.User, Stream: body.StreamID, Device: c.Device, Labels: c.Labels}
	if claim.Device == "" {
		claim.Device = body.DeviceID
	}
	switch {
	case body.PlaybackID != "":
		claim.ID = guard.DeriveID(c.User, c.Device, body.PlaybackID)
	case c.ID != nil:
		claim.ID = *c.ID
	default:
		claim.ID = guard.NewID(c.User, c.Device)
	}
	v, err := a.Store.Acquire(r.Context(), claim, c.Policy)
	if err != nil {
		return err
	}
	switch v.Outcome {
	case guard.Admitted:
		location := url.URL{Path: c.Base + "/" + v.Guard.ID.String()}
		w.Header().Set("Location", location.EscapedPath())
		problem.WriteJSON(w, http.StatusCreated, "application/json", a.json(v.Guard))
	case guard.Refreshed:
		problem.WriteJSON(w, http.StatusOK, "application/json", a.json(v.Guard))
	case guard.Uncounted:
		w.WriteHeader(http.StatusNoContent) // it passes, and no guard is kept
	case guard.Revoked:
		return revoked()
	default:
		return problem.Refused(v, a.RevealGuards)
	}
	return nil
}

func (a *API) refresh(w http.ResponseWriter, r *http.Request, c Caller, id guard.ID) error {
	if err := readBody(w, r, new(struct{})); err != nil {
		return err
	}
	v, err := a.Store.Refresh(r.Context(), c.User, id, c.Policy)
	if err != nil {
		return err
	}
	switch v.Outcome {
	case guard.Refreshed:
		problem.WriteJSON(w, http.StatusOK, "application/json", a.json(v.Guard))
	case guard.Revoked:
		return revoked()
	default:
		return absent(id)
	}
	return nil
}

// release is DELETE, and POST …/release for navigator.sendBeacon, which can
// send nothing but a POST. Either way the body says nothing, and a page that
// closes need not wait for the answer.
func (a *API) release(w http.ResponseWriter, r *http.Request, c Caller, id guard.ID) error {
	found, err := a.Store.Release(context.WithoutCancel(r.Context()), c.User, id, c.Policy)
	if err != nil {
		return err
	}
	if !found {
		return absent(id)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) list(w http.ResponseWriter, r *http.Request, c Caller, _ guard.ID) error {
	guards, err := a.Store.List(guard.ForDisplay(r.Context()), c.User)
	if err != nil {
		return err
	}
	answer := Guards{Guards: make([]Guard, len(guards)), Limit: c.Policy.Limit, Remaining: max(0, c.Policy.Limit-len(guards))}
	for i, g := range guards {
		answer.Guards[i] = a.json(g)
	}
	problem.WriteJSON(w, http.StatusOK, "application/json", answer)
	return nil
}

func (a *API) get(w http.ResponseWriter, r *http.Request, c Caller, id guard.ID) error {
	guards, err := a.Store.List(r.Context(), c.User)
	if err != nil {
		return err
	}
	for _, g := range guards {
		if g.ID == id {
			problem.WriteJSON(w, http.StatusOK, "application/json", a.json(g))
			return nil
		}
	}
	return absent(id)
}

func (a *API) json(g guard.Guard) Guard {
	j := NewGuard(g)
	j.RefreshAfter = a.RefreshAfter.Round(time.Millisecond).Seconds()
	return j
}

// NewGuard returns a guard for JSON.
func NewGuard(g guard.Guard) Guard {
	var labels map[string]string
	if g.Labels != "" {
		labels = maps.Collect(g.Labels.All())
	}
	return Guard{
		GuardID:   g.ID.String(),
		StreamID:  g.Stream,
		DeviceID:  g.Device,
		Labels:    labels,
		CreatedAt: g.CreatedAt,
		ExpiresAt: g.ExpiresAt,
		RemovedAt: g.RemovedAt,
	}
}

func absent(id guard.ID) *problem.Problem {
	return problem.New(http.StatusNotFound, problem.GuardDoesNotExist, "there is no guard %v", id)
}

func revoked() *problem.Problem {
	return problem.New(http.StatusGone, problem.GuardRevoked, "this playback was ended from elsewhere")
}

// readAll reads a body of at most so many bytes; if there is any, it has to be
// of this type.
func readAll(w http.ResponseWriter, r *http.Request, limit int64, mediaType string) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return nil, problem.New(http.StatusRequestEntityTooLarge, problem.BodyTooLarge, "the body has more than %d bytes", limit)
	}
	if err != nil {
		return nil, problem.New(http.StatusBadRequest, problem.InvalidBody, "reading the body: %v", err)
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); len(body) > 0 && (err != nil || media != mediaType) {
		return nil, problem.New(http.StatusUnsupportedMediaType, problem.UnsupportedMedia, "Content-Type is %q, want %s", clip(r.Header.Get("Content-Type")), mediaType)
	}
	return body, nil
}

// readBody reads a JSON object, strictly; nothing at all is an empty object.
func readBody(w http.ResponseWriter, r *http.Request, into any) error {
	body, err := readAll(w, r, MaxBody, "application/json")
	if err != nil || len(body) == 0 {
		return err
	}
	if !bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")) {
		return problem.New(http.StatusBadRequest, problem.InvalidBody, "the body is not a JSON object")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return problem.New(http.StatusBadRequest, problem.InvalidBody, "%s is a JSON %s, want a %s", clip(wrong.Field), wrong.Value, wrong.Type)
		}
		return problem.New(http.StatusBadRequest, problem.InvalidBody, "the body is not the JSON object wanted: %s", clip(strings.TrimPrefix(err.Error(), "json: ")))
	}
	if _, err := dec.Token(); err != io.EOF {
		return problem.New(http.StatusBadRequest, problem.InvalidBody, "more follows after the body's JSON object")
	}
	return nil
}

// clip keeps what a client sent from filling its own error message.
func clip(s string) string {
	if len(s) <= 80 {
		return s
	}
	return fmt.Sprintf("%s… (%d bytes)", s[:80], len(s))
}

var _ http.Handler = (*API)(nil)
