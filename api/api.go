// Package api is /guards: guards by explicit call, for callers who would
// rather say when a playback starts and stops than have it seen from its media.
package api

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/problem"
)

// statusGone is for the log and the metrics: the client has gone and reads no answer.
const statusGone = 499

// API answers below its prefix. It is an http.Handler.
type API struct {
	Store  Store
	Server Server
	// Prefix is the path that the API is mounted at, as requests have it when
	// they arrive: /guards.
	Prefix string
	// RefreshAfter is what clients are told to wait between two refreshes.
	RefreshAfter time.Duration
	// CrossOrigin keeps pages of other sites from changing anything in the name
	// of whoever opens them; nil allows them.
	CrossOrigin *http.CrossOriginProtection
}

// Store keeps the guards.
type Store interface {
	guard.Store
	// Keep is Refresh, or what spares it most calls: a player may report each
	// segment.
	Keep(context.Context, guard.Claim, guard.Policy) (guard.Verdict, error)
}

// Server is what the API is a part of.
type Server interface {
	// Caller tells who makes a call. Its error is answered as the Problem it
	// is, or else as a 503.
	Caller(*http.Request) (Caller, error)
	// RequestID is the id of a request, for problems to name; "" for none.
	RequestID(*http.Request) string
	// Failed hears of what kept a call from being answered.
	Failed(*http.Request, error)
	// Answered hears of every answer; endpoint is a path such as /guards/{id},
	// or "other".
	Answered(endpoint, method string, status int, took time.Duration)
}

// Caller is who makes a call, as the server knows and not as the body says.
type Caller struct {
	User   string
	Device string // "" where it is not known: then the body may name one
	Client guard.Client
	Labels guard.Labels
	ID     *guard.ID // the playback that the request itself names, if any
	Policy guard.Policy
	// Base is the path of the API as the caller sees it: /guards.
	Base string
}

// Start is the body of POST /guards. An empty body is an empty object.
type Start struct {
	StreamID   string `json:"streamId"`
	DeviceID   string `json:"deviceId"`
	PlaybackID string `json:"playbackId"` // makes the call idempotent
	OnLimit    string `json:"onLimit"`    // one of onLimits, in place of what the policy says at its limit
}

// onLimits are the words for what becomes of a playback that starts when the
// limit is reached.
var onLimits = map[string]guard.AtLimit{
	"reject":         guard.Reject,
	"replace_device": guard.ReplaceDevice,
	"replace_oldest": guard.ReplaceOldest,
}

func (a *API) start(w http.ResponseWriter, r *http.Request, c Caller, _ guard.ID) error {
	var body Start
	if err := readObject(w, r, &body); err != nil {
		return err
	}
	for _, field := range [][2]string{{"streamId", body.StreamID}, {"deviceId", body.DeviceID}, {"playbackId", body.PlaybackID}} {
		name, value := field[0], field[1]
		if len(value) > guard.MaxLabel {
			return problem.New(problem.InvalidBody, "%s has %d bytes, at most %d are allowed", name, len(value), guard.MaxLabel)
		}
		if strings.ContainsFunc(value, unicode.IsControl) {
			return problem.New(problem.InvalidBody, "%s has control characters", name)
		}
	}
	if body.OnLimit != "" {
		atLimit, known := onLimits[body.OnLimit]
		if !known {
			return problem.New(problem.InvalidBody, "onLimit %q is not one of %s", clip(body.OnLimit), strings.Join(slices.Sorted(maps.Keys(onLimits)), ", "))
		}
		c.Policy = c.Policy.With(atLimit)
	}
	claim := guard.Claim{User: c.User, Stream: body.StreamID, Device: c.Device, Labels: c.Labels, Client: c.Client, Anew: true}
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
		unkept := a.json(guard.Guard{ID: claim.ID, Stream: claim.Stream, Device: claim.Device, Labels: claim.Labels})
		unkept.State = ""
		problem.WriteJSON(w, http.StatusOK, "application/json", unkept)
	case guard.Revoked:
		return problem.Ended(v.Outcome)
	default:
		return problem.Refused(v)
	}
	return nil
}

func (a *API) refresh(w http.ResponseWriter, r *http.Request, c Caller, id guard.ID) error {
	if err := readObject(w, r, new(struct{})); err != nil {
		return err
	}
	v, err := a.Store.Refresh(r.Context(), c.User, id, c.Policy)
	if err != nil {
		return err
	}
	switch {
	case v.Outcome == guard.Refreshed:
		problem.WriteJSON(w, http.StatusOK, "application/json", a.json(v.Guard))
	case v.Outcome.Ended():
		return problem.Ended(v.Outcome)
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
	answer := Guards{Guards: make([]Guard, len(guards))}
	kept := 0
	for i, g := range guards {
		answer.Guards[i] = a.json(g)
		if !c.Policy.Reclaim.Takes(g.Listed()) {
			kept++
		}
	}
	if limit := c.Policy.Limit; limit != guard.Unlimited {
		answer.Limit, answer.Remaining = &limit, new(max(0, limit-kept))
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

func absent(id guard.ID) *problem.Problem {
	return problem.New(problem.GuardDoesNotExist, "there is no guard %v", id)
}

var _ http.Handler = (*API)(nil)
