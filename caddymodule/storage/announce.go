package storage

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamguard/streamguard/gate"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/problem"
)

// Events of Caddy's events app, and what their data hold:
//
//	guard_created  user, guard, stream, device, held, limit
//	guard_refused  user, guard, stream, device, held, limit, code
//	guard_revoked  user, guard, why
//	store_lost     store, server
//	store_back     store, server
const (
	guardCreated = "guard_created"
	guardRefused = "guard_refused"
	guardRevoked = "guard_revoked"
	storeLost    = "store_lost"
	storeBack    = "store_back"
)

// maxHandling is how many events are handled at once. More are dropped: nobody
// waits for a handler.
const maxHandling = 256

var (
	handling      = make(chan struct{}, maxHandling)
	droppedEvents = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "caddy_stream_guard_events_dropped_total",
		Help: "Events that were not emitted because the handlers of earlier ones are still at work.",
	})
)

// announce emits an event to the config of the moment; its data are put together
// only if that listens.
func announce(event string, data func() map[string]any) {
	ctx := caddy.ActiveContext()
	if ctx.Context == nil {
		return
	}
	app, err := ctx.AppIfConfigured("events")
	if err != nil {
		return
	}
	events, ok := app.(*caddyevents.App)
	if !ok || !events.ShouldEmit(event) {
		return
	}
	select {
	case handling <- struct{}{}:
		go func() {
			defer func() { <-handling }()
			events.Emit(ctx, event, data())
		}()
	default:
		droppedEvents.Inc()
	}
}

// announceVerdict tells of what a claim has changed, with the user as logs have it.
func announceVerdict(c guard.Claim, v guard.Verdict, logged func(user string) string) {
	if v.Outcome == guard.Admitted {
		c.ID = v.Guard.ID // which for a request without a name may be another
	}
	limit := any(v.Limit)
	if v.Limit == guard.Unlimited {
		limit = "unlimited"
	}
	data := func() map[string]any {
		return map[string]any{
			"user": logged(c.User), "guard": c.ID.String(), "stream": c.Stream, "device": c.Device, "held": v.Held, "limit": limit,
		}
	}
	switch v.Outcome {
	case guard.Admitted:
		announce(guardCreated, data)
	case guard.Rejected, guard.Revoked, guard.Replaced:
		announce(guardRefused, func() map[string]any {
			d := data()
			d["code"] = string(problem.Refused(v).ErrorCode)
			return d
		})
	}
	for i, id := range v.Replaced {
		why := gate.Replaced
		if i < v.Taken {
			why = gate.Taken
		}
		announceRevoked(logged(c.User), id, why)
	}
}

// announceRevoked tells that a playback was ended, and why: it was revoked, replaced
// or taken.
func announceRevoked(user string, id guard.ID, why gate.Word) {
	announce(guardRevoked, func() map[string]any {
		return map[string]any{"user": user, "guard": id.String(), "why": string(why)}
	})
}
