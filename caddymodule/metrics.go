package caddymodule

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamguard/streamguard/caddymodule/storage"
	"github.com/streamguard/streamguard/gate"
	"github.com/streamguard/streamguard/problem"
)

// What is counted is counted for the process: it outlives configs, and every
// handler counts in the same place. No label grows with users.
var (
	verdicts = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "caddy_stream_guard_verdicts_total",
		Help: "Requests for manifests and media, by what the gate said.",
	}, []string{"verdict"})
	starts = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "caddy_stream_guard_starts_total",
		Help: "Playbacks that asked for a slot, by the mode that their user is judged by, and what came of it: admitted, refused, or replaced (admitted, and another ended for it). With observe it is what would have.",
	}, []string{"mode", "outcome"})
	observing = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "caddy_stream_guard_observing",
		Help: "Gates that refuse nobody because an operator has said so, whatever their mode is.",
	})
	apiDuration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "caddy_stream_guard_api_request_duration_seconds",
		Help:    "Time to answer a call to the guards API.",
		Buckets: storage.Durations,
	}, []string{"endpoint", "method", "code"})
	decisionDuration = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "caddy_stream_guard_decision_duration_seconds",
		Help:    "Time to decide about a request whose playback this Caddy did not know. One that it knows takes less than a microsecond.",
		Buckets: storage.Durations,
	})
	brokenCMCD = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "caddy_stream_guard_cmcd_broken_total",
		Help: "Requests with CMCD that cannot be read or names no session.",
	})
	crowdedStreams = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "caddy_stream_guard_crowded_streams_total",
		Help: "Streams of so many different manifests that they are probably several titles.",
	})
	closedGuards = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "caddy_stream_guard_closed_total",
		Help: "Guards that were closed because their client had closed its connections: 5 s later (waited), or at once for the same client's next start (hurried).",
	}, []string{"when"})
	standIns = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "caddy_stream_guard_stand_ins_total",
		Help: "Manifests that took a slot themselves, because none of their media come this way.",
	})
	selfRefusals = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "caddy_stream_guard_suspected_self_refusals_total",
		Help: "Refusals where all that stands in the way began less than a minute before on what may be the same client: probably a viewer refused by himself.",
	})
	alternating = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "caddy_stream_guard_alternating_tokens_total",
		Help: "Tokens under which two clients took turns: probably a URL that was passed on.",
	})

	panics = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "caddy_stream_guard_panics_total",
		Help: "Requests that went on uncounted because the gate itself failed. The log has the fault.",
	})

	modes = map[gate.Mode]string{gate.Enforce: "enforce", gate.Observe: "observe"}

	knownVerdicts = verdicts.WithLabelValues(string(gate.Known))
	closedWaited  = closedGuards.WithLabelValues("waited")
	closedHurried = closedGuards.WithLabelValues("hurried")
)

// registerMetrics shows collectors in a config's /metrics, once for all its handlers.
func registerMetrics(registry *prometheus.Registry, collectors ...prometheus.Collector) error {
	for _, c := range collectors {
		if err := registry.Register(c); err != nil {
			if _, before := errors.AsType[prometheus.AlreadyRegisteredError](err); !before {
				return err
			}
		}
	}
	return nil
}

// countDecision counts a decision about a request of a mode.
func countDecision(d *gate.Decision, mode gate.Mode) {
	if d.Asked > 0 {
		decisionDuration.Observe(d.Asked.Seconds())
	}
	if d.BrokenCMCD {
		brokenCMCD.Inc()
	}
	if d.Alternates {
		alternating.Inc()
	}
	if d.SelfRefused {
		selfRefusals.Inc()
	}
	if d.Word == gate.Known {
		knownVerdicts.Inc()
		return
	}
	verdicts.WithLabelValues(string(d.Word)).Inc()
	if outcome := outcomeOf(d); outcome != "" {
		starts.WithLabelValues(modes[mode], outcome).Inc()
	}
}

// outcomeOf is what came of a start, or what would have where it is only observed; ""
// of what is none, or goes on asking.
func outcomeOf(d *gate.Decision) string {
	p := d.Problem()
	switch {
	case p != nil && !d.Again && (p.ErrorCode == problem.ReachedMaxGuards || p.ErrorCode == problem.ReplacedLately):
		return "refused"
	case p != nil:
		return ""
	case d.Word == gate.WouldReplace || d.Word == gate.Admitted && d.Replaces:
		return "replaced"
	case d.Word == gate.Admitted:
		return "admitted"
	}
	return ""
}

func countAPI(endpoint, method string, status int, took time.Duration) {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodDelete, http.MethodOptions:
	default:
		method = "other"
	}
	apiDuration.WithLabelValues(endpoint, method, strconv.Itoa(status)).Observe(took.Seconds())
}
