package api

import (
	"context"
	"net/http"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/problem"
)

// MaxEvents is how many bytes a body of events may have: some hundred reports,
// what a player has kept of an hour without a network.
const MaxEvents = 64 << 10

// Events is what POST /guards/cmcd goes by: the events that players report in
// CMCD's event mode (CTA-5004, version 2) are a playback's signs of life.
type Events struct {
	// Read returns what a body reports, and whether there is a report in it at
	// all: one of a playback that has not begun says nothing about guards.
	Read func(r *http.Request, c Caller, body string) (reports []Report, ok bool)

	// Keep is the Store's Refresh, or what spares it most calls: a player may
	// report each segment.
	Keep func(context.Context, guard.Claim, guard.Policy) (guard.Verdict, error)
}

// Report is the last that is known of a playback: it goes on, or it is over.
type Report struct {
	ID   guard.ID // the one that its media requests arrive at
	Over bool
}

// events answers 204, or 410 where a playback was revoked: then its player
// reports no more. An event never takes a slot, so it is never refused one:
// players repeat what gets a 429, and their media requests hear of it anyway.
func (a *API) events(w http.ResponseWriter, r *http.Request, c Caller, _ guard.ID) error {
	// No player sends them as anything else; of another site's page this type
	// needs a preflight, so that it cannot take slots in a viewer's name.
	body, err := readAll(w, r, MaxEvents, "application/cmcd")
	if err != nil {
		return err
	}
	reports, ok := a.Events.Read(r, c, string(body))
	if !ok {
		return problem.New(http.StatusBadRequest, problem.InvalidBody, "no line of the body is a CMCD report with a sid")
	}
	ctx := context.WithoutCancel(r.Context()) // a page's last report need not wait for the answer
	var gone error
	for _, report := range reports {
		var v guard.Verdict
		if report.Over {
			_, err = a.Store.Release(ctx, c.User, report.ID, c.Policy)
		} else {
			claim := guard.Claim{User: c.User, ID: report.ID, Device: c.Device, Labels: c.Labels}
			v, err = a.Events.Keep(ctx, claim, c.Policy)
		}
		if err != nil {
			return err
		}
		if v.Outcome == guard.Revoked {
			gone = revoked()
		}
	}
	if gone == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return gone
}
