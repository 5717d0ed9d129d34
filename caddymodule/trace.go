package caddymodule

import (
	"context"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// trace says on the request's span, if Caddy's tracing records one, what the
// gate thought of it.
func (d *decision) trace(r *http.Request) {
	span := trace.SpanFromContext(r.Context())
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(
		attribute.String("http.request.id", requestID(r)),
		attribute.String("stream_guard.verdict", d.verdict),
		attribute.String("stream_guard.guard", d.guardID()),
		attribute.String("stream_guard.stream", strings.ToValidUTF8(d.claim.Stream, "\ufffd")), // or no span of the batch is exported
	)
	if d.held != unknown {
		span.SetAttributes(attribute.Int("stream_guard.held", d.held))
	}
	if d.limit != unknown {
		span.SetAttributes(attribute.Int("stream_guard.limit", d.limit))
	}
}

// childSpan starts the span of a store's operation below that of the request
// that waits for it. Calls share round trips to Redis, so a span of the
// client's own could belong to only one of them.
func childSpan(ctx context.Context, verb string) (context.Context, trace.Span) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return ctx, nil
	}
	return span.TracerProvider().Tracer("github.com/streamguard/streamguard").Start(ctx, "stream_guard "+verb, trace.WithSpanKind(trace.SpanKindClient))
}

func endSpan(span trace.Span, err error) {
	if span == nil {
		return
	}
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}
