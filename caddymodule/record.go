package caddymodule

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/streamguard/streamguard/gate"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/problem"
)

// logUsers is how users stand in logs: hash, plain or off.
type logUsers string

// attach makes the decision visible to the rest of the request, and to its
// access log if it has one.
func (v *visit) attach(r *http.Request, repl *caddy.Replacer, logged bool) {
	repl.Map(v.placeholder)
	if logged {
		r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields).Add(zap.Object("stream_guard", v))
	}
}

// decision is what the gate thought of the request; before that, nothing.
func (v *visit) decision() gate.Decision {
	if v.passage == nil {
		return gate.Decision{Held: gate.Unknown, Limit: gate.Unknown}
	}
	return v.passage.Decision
}

func (v *visit) problem() *problem.Problem {
	d := v.decision()
	return d.Problem()
}

func (v *visit) placeholder(key string) (any, bool) {
	const prefix = "http.stream_guard."
	if len(key) <= len(prefix) || key[:len(prefix)] != prefix {
		return nil, false
	}
	d, p := v.decision(), v.problem()
	switch key[len(prefix):] {
	case "verdict":
		return string(d.Word), true
	case "user":
		return v.request.User, true
	case "bucket":
		return bucket(v.request.User), true
	case "stream":
		return v.request.Stream, true
	case "device":
		return v.request.Device, true
	case "guard":
		return v.guardID(), true
	case "held":
		return orEmpty(d.Held), true
	case "limit":
		return orEmpty(d.Limit), true
	case "retry_after":
		if p == nil || p.RetryIn == 0 {
			return "", true
		}
		return p.RetryIn.String(), true
	case "problem":
		if p == nil {
			return "", true
		}
		b, err := json.Marshal(p)
		return string(b), err == nil
	}
	return nil, false
}

// orEmpty is a number of guards as a placeholder has it.
func orEmpty(n int) any {
	switch n {
	case gate.Unknown:
		return ""
	case guard.Unlimited:
		return unlimited
	}
	return n
}

func (v *visit) guardID() string {
	if d := v.decision(); d.ID != (guard.ID{}) {
		return d.ID.String()
	}
	return ""
}

func (v *visit) loggedUser() string {
	if v.users == "plain" {
		return v.request.User
	}
	sum := sha256.Sum256([]byte(v.request.User))
	return hex.EncodeToString(sum[:8])
}

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (v *visit) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	d := v.decision()
	enc.AddString("verdict", string(d.Word))
	if v.request.User == "" {
		return nil
	}
	if v.users != "off" {
		enc.AddString("user", v.loggedUser())
	}
	enc.AddString("guard", v.guardID())
	enc.AddString("stream", v.request.Stream)
	if d.Held != gate.Unknown {
		enc.AddInt("held", d.Held)
	}
	if d.Limit != gate.Unknown && d.Limit != guard.Unlimited {
		enc.AddInt("limit", d.Limit)
	}
	return nil
}

// trace says on the request's span, if Caddy's tracing records one, what the
// gate thought of it.
func (v *visit) trace(r *http.Request) {
	span := trace.SpanFromContext(r.Context())
	if !span.IsRecording() {
		return
	}
	d := v.decision()
	span.SetAttributes(
		attribute.String("http.request.id", requestID(r)),
		attribute.String("stream_guard.verdict", string(d.Word)),
		attribute.String("stream_guard.guard", v.guardID()),
		attribute.String("stream_guard.stream", strings.ToValidUTF8(v.request.Stream, "\ufffd")), // or no span of the batch is exported
	)
	if d.Held != gate.Unknown {
		span.SetAttributes(attribute.Int("stream_guard.held", d.Held))
	}
	if d.Limit != gate.Unknown && d.Limit != guard.Unlimited {
		span.SetAttributes(attribute.Int("stream_guard.limit", d.Limit))
	}
}
