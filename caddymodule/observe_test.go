package caddymodule

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/streamguard/streamguard/operate"
	"github.com/streamguard/streamguard/redisstore/redistest"
)

// The span of a recorded request has the verdict; what it asks of the store is
// a span below it.
func TestTraces(t *testing.T) {
	for _, recorded := range []bool{true, false} {
		spans := tracetest.NewSpanRecorder()
		sampler := sdktrace.NeverSample()
		if recorded {
			sampler = sdktrace.AlwaysSample()
		}
		tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans), sdktrace.WithSampler(sampler)).Tracer("test")
		withGate(t, Handler{Limits: []Limit{{Limit: "1"}}}, func(g *site) {
			for _, c := range [][2]string{{"x", "a"}, {"x", "a"}, {"y", "b"}} {
				r := ask("GET", "/vod/"+c[0]+"%ff/1.ts", sid, `sid="`+c[1]+`"`)
				ctx, span := tracer.Start(r.Context(), "request")
				g.do(r.WithContext(ctx))
				span.End()
			}
		})
		var got []string
		for _, s := range spans.Ended() {
			line := s.Name()
			for _, a := range s.Attributes() {
				switch a.Key {
				case "stream_guard.verdict", "stream_guard.stream":
					line += " " + a.Value.AsString()
				}
			}
			if s.SpanKind() == trace.SpanKindClient && !s.Parent().IsValid() {
				t.Errorf("%s has no parent", line)
			}
			got = append(got, line)
		}
		var want []string
		if recorded {
			want = []string{
				"stream_guard acquire", "request admitted vod/x\ufffd",
				"request known vod/x\ufffd",
				"stream_guard acquire", "request rejected vod/y\ufffd",
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("recorded %v: got %q, want %q", recorded, got, want)
		}
	}
}

func init() { caddy.RegisterModule(listener{}) }

// listener is a handler of Caddy's events that remembers them.
type listener struct{}

var heard struct {
	sync.Mutex
	events []string
}

func (listener) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.test_listener", New: func() caddy.Module { return new(listener) }}
}

func (listener) UnmarshalCaddyfile(*caddyfile.Dispenser) error { return nil }

func (listener) Handle(_ context.Context, e caddy.Event) error {
	heard.Lock()
	defer heard.Unlock()
	text := e.Name()
	for _, key := range []string{"user", "stream", "code", "why"} {
		if v, ok := e.Data[key].(string); ok {
			text += " " + v
		}
	}
	if limit, ok := e.Data["limit"]; ok {
		text += fmt.Sprint(" of ", limit)
	}
	heard.events = append(heard.events, text)
	return nil
}

func TestEventsAreAnnounced(t *testing.T) {
	redis := redistest.Start(t)
	config := "{\nevents {\n"
	rest := "log_users plain\nstore redis redis://" + redis.Addr + " {\ntimeout 2s\n}\n}\n"
	for _, event := range []string{"guard_created", "guard_refused", "guard_revoked", "store_lost", "store_back"} {
		config += "on " + event + " test_listener\n"
	}
	s := serve(t, config+"}\n}\nSITE {\nroute {\nstream_guard /full/* {\n"+user+"limit 1\n"+rest+"stream_guard /v/* {\n"+user+"limit 1 replace\n"+rest+"}\nrespond ok\n}")
	// Asks for the guards meanwhile, whatever the answer.
	wait := func(want string) {
		t.Helper()
		eventually(t, want, func() bool {
			r, _ := http.NewRequest("GET", "http://"+s.addr+"/guards", nil)
			r.Header.Set("X-User-Id", "u")
			if resp, err := http.DefaultClient.Do(r); err == nil {
				resp.Body.Close()
			}
			heard.Lock()
			defer heard.Unlock()
			return slices.Contains(heard.events, want)
		})
	}
	s.call(200, "GET", "/v/x/1.ts", sid, `sid="a"`)
	wait("guard_created u v/x of 1")
	s.call(200, "GET", "/v/z/1.ts", sid, `sid="c"`)
	wait("guard_created u v/z of 1")
	wait("guard_revoked u replaced")
	s.call(429, "GET", "/v/x/2.ts", sid, `sid="a"`)
	wait("guard_refused u v/x GUARD_REPLACED of 1")
	s.call(429, "GET", "/full/x/1.ts", sid, `sid="d"`)
	wait("guard_refused u full/x REACHED_MAX_GUARDS_COUNT of 1")
	administer[[]operate.Guards](t, 200, "DELETE", operate.UserPath("u"), "")
	wait("guard_revoked u revoked")
	redis.Pause()
	wait("store_lost")
	redis.Resume()
	wait("store_back")
}

// With mode observe nobody is refused, so no event says so.
func TestEventsOfObserving(t *testing.T) {
	s := serve(t, "{\nevents {\non guard_created test_listener\non guard_refused test_listener\non guard_revoked test_listener\n}\n}\nSITE {\nstream_guard {\n"+user+
		"mode observe\nlimit 1 replace\nlog_users plain\nstore memory observing\n}\nrespond ok\n}")
	for _, session := range []string{"a", "b"} {
		s.call(200, "GET", "/observed/"+session+"/1.ts", sid, `sid="`+session+`"`)
	}
	administer[any](t, 200, "DELETE", operate.UserPath("u"), "")
	s.call(200, "GET", "/observed/a/1.ts", sid, `sid="a"`) // revoked, and passes
	s.call(201, "POST", "/guards", sid, `sid="a"`)
	s.call(200, "GET", "/observed/c/1.ts", sid, `sid="c"`)
	want := []string{"guard_created u observed/a of 1", "guard_created u observed/b of 1", "guard_created u observed/c of 1"}
	eventually(t, "the last event", func() bool {
		heard.Lock()
		defer heard.Unlock()
		return slices.Contains(heard.events, want[2]) || slices.Contains(heard.events, "guard_created u observed/c of 1000")
	})
	heard.Lock()
	defer heard.Unlock()
	for _, event := range heard.events {
		if strings.Contains(event, " observed/") && !slices.Contains(want, event) {
			t.Errorf("announced: %s", event)
		}
	}
}

// An event says of a user what logs say: of handlers that share a store, the
// one that says least.
func TestEventsSayOfAUserWhatLogsSay(t *testing.T) {
	gate := "stream_guard {\n" + user + "limit 2\nplayback stream\nstore memory events\nlog_users "
	for name, c := range map[string]struct{ config, want string }{
		"plain": {"SITE {\n" + gate + "plain\n}\nrespond ok\n}", "guard_created u said/plain"},
		"hash":  {"SITE {\n" + gate + "hash\n}\nrespond ok\n}", "guard_created 0bfe935e70c321c7 said/hash"},
		"off":   {"SITE {\nroute /said/* {\n" + gate + "plain\n}\n}\nroute /other/* {\n" + gate + "off\n}\n}\nrespond ok\n}", "guard_created  said/off"},
	} {
		s := serve(t, "{\nevents {\non guard_created test_listener\n}\n}\n"+strings.ReplaceAll(c.config, "memory events", "memory events_"+name))
		s.call(200, "GET", "/said/"+name+"/1.ts", sid, `sid="a"`)
		eventually(t, c.want, func() bool {
			heard.Lock()
			defer heard.Unlock()
			return slices.ContainsFunc(heard.events, func(e string) bool { return strings.HasPrefix(e, c.want) })
		})
	}
}
