package api

import (
	"context"
	"net/http"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/playback"
	"github.com/streamguard/streamguard/problem"
)

// events is POST /guards/cmcd: the events that players report in CMCD's event
// mode (CTA-5004, version 2) are a playback's signs of life.
//
// It answers 204, or 410 where a playback was revoked: then its player
// reports no more. An event never takes a slot, so it is never refused one:
// players repeat what gets a 429, and their media requests hear of it anyway.
func (a *API) events(w http.ResponseWriter, r *http.Request, c Caller, _ guard.ID) error {
	// No player sends them as anything else; of another site's page this type
	// needs a preflight, so that it cannot take slots in a viewer's name.
	body, err := readBody(w, r, MaxEvents, "application/cmcd")
	if err != nil {
		return err
	}
	reports := playback.Reports(string(body))
	if len(reports) == 0 {
		return problem.New(problem.InvalidBody, "no line of the body is a CMCD report with a sid")
	}
	ctx := context.WithoutCancel(r.Context()) // a page's last report need not wait for the answer
	_, explicit := playback.ExplicitID(r)
	var gone error
	for _, report := range reports {
		if report.State.Before() {
			continue // requests for media, once there are any, speak for themselves
		}
		claim := guard.Claim{User: c.User, ID: guard.DeriveID(c.User, c.Device, report.Session), Device: c.Device, Labels: c.Labels}
		if explicit {
			claim.ID = *c.ID // which its requests for media carry, too
		}
		var v guard.Verdict
		if report.State.Over() {
			_, err = a.Store.Release(ctx, c.User, claim.ID, c.Policy)
		} else {
			v, err = a.Store.Keep(ctx, claim, c.Policy)
		}
		if err != nil {
			return err
		}
		if v.Outcome.Ended() {
			gone = problem.Ended(v.Outcome)
		}
	}
	if gone == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return gone
}
