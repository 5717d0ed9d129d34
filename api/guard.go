package api

import (
	"maps"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// Guard is a guard in JSON. One without times is of a playback that may go on
// though no store keeps a guard of it (guard.Uncounted).
type Guard struct {
	GuardID      string            `json:"guardId"`
	StreamID     string            `json:"streamId,omitempty"`
	DeviceID     string            `json:"deviceId,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	State        guard.State       `json:"state,omitempty"`
	CreatedAt    time.Time         `json:"createdAt,omitzero"`     // RFC 3339
	ExpiresAt    time.Time         `json:"expiresAt,omitzero"`     // it lapses then, or was closed then,
	RemovedAt    time.Time         `json:"removedAt,omitzero"`     // and is gone then, unless it is refreshed
	RefreshAfter float64           `json:"refreshAfter,omitempty"` // seconds; only its own client is told
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
		State:     g.Listed(),
		CreatedAt: g.CreatedAt,
		ExpiresAt: g.ExpiresAt,
		RemovedAt: g.RemovedAt,
	}
}

// Guards is the answer to GET /guards.
type Guards struct {
	Guards    []Guard `json:"guards"`              // oldest first
	Limit     *int    `json:"limit,omitempty"`     // absent where there is none
	Remaining *int    `json:"remaining,omitempty"` // that may start at once, in the slots that Reclaim takes too; absent likewise
}
