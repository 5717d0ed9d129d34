package caddymodule

import (
	"net/http"

	"github.com/streamguard/streamguard/api"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/playback"
)

// events finds the guards that a body of CMCD events is about: those that media
// requests of the same players arrive at, so an id in the request comes first.
func (h *Handler) events(r *http.Request, c api.Caller, body string) (reports []api.Report, ok bool) {
	_, explicit := playback.ExplicitID(r)
	for _, e := range playback.Reports(body) {
		ok = true
		if e.State.Before() {
			continue // requests for media, once there are any, speak for themselves
		}
		report := api.Report{ID: guard.DeriveID(c.User, c.Device, e.Session), Over: e.State.Over()}
		if explicit {
			report.ID = *c.ID
		}
		reports = append(reports, report)
	}
	return reports, ok
}
