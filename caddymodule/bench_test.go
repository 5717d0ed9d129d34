package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/streamguard/streamguard/guard"
)

var (
	benchServer = &caddyhttp.Server{}
	benchOrigin = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
)

// prepared is a request as Caddy hands it on.
func prepared(r *http.Request, w http.ResponseWriter) *http.Request {
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, benchServer)
}

// benchGate is a gate with the defaults.
func benchGate(t testing.TB) *Handler {
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	h := &Handler{User: "{http.request.header.X-User-Id}", StoreRaw: json.RawMessage(`{"store":"memory","name":"bench"}`)}
	if err := h.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Cleanup() })
	return h
}

// A request of a playback that is known costs two allocations in the gate: what
// it knows of the request, and the placeholders. With a token there are the path
// without it, and what a gate behind is told.
func TestAllocationsOfAKnownPlayback(t *testing.T) {
	h := benchGate(t)
	token := guard.NewID("u", "").String()
	for _, c := range []struct {
		name, url string
		want      float64
	}{
		{"named", "/vod/title/1080p/7.m4s?CMCD=br%3D3200%2Csid%3D%226e2fb550-c457-11e9-bb97-0800200c9a66%22", 2},
		{"token", "/vod/title/~" + token + "/1080p/7.m4s", 5},
	} {
		allocations := func(gated bool) float64 {
			w := httptest.NewRecorder()
			return testing.AllocsPerRun(100, func() {
				r := prepared(ask("GET", c.url), w)
				if gated {
					h.ServeHTTP(w, r, benchOrigin)
				}
			})
		}
		for range 2 { // until its guard has proved itself
			w := httptest.NewRecorder()
			h.ServeHTTP(w, prepared(ask("GET", c.url), w), benchOrigin)
		}
		if got := allocations(true) - allocations(false); got > c.want {
			t.Errorf("%s: %v allocations, want %v", c.name, got, c.want)
		}
	}
}

// BenchmarkGate is Caddy's own preparation of a request, and the same with the
// gate behind it for a known playback.
func BenchmarkGate(b *testing.B) {
	h := benchGate(b)
	for _, leases := range []int{1_000, 100_000} {
		request := func() *http.Request {
			n := rand.IntN(leases)
			r := httptest.NewRequest("GET", fmt.Sprintf("/vod/title-%d/1080p/%d.m4s?CMCD=br%%3D3200%%2Ccid%%3D%%22title-%d%%22%%2Cd%%3D4004%%2Cot%%3Dv%%2Csid%%3D%%226e2fb550-c457-11e9-bb97-%012d%%22%%2Cst%%3Dv", n%997, n, n%997, n), nil)
			r.Header.Set("X-User-Id", fmt.Sprintf("user-%d", n))
			return r
		}
		w := httptest.NewRecorder()
		for _, gated := range []bool{false, true} {
			b.Run(fmt.Sprintf("leases=%d/gated=%v", leases, gated), func(b *testing.B) {
				b.ReportAllocs()
				var batch [16]*http.Request
				b.StopTimer()
				for i := 0; i < b.N; i += len(batch) {
					n := min(len(batch), b.N-i)
					for j := range n {
						batch[j] = request()
						if gated { // admitted outside the measurement
							h.ServeHTTP(w, prepared(batch[j], w), benchOrigin)
						}
					}
					b.StartTimer()
					for _, r := range batch[:n] {
						if r = prepared(r, w); gated {
							h.ServeHTTP(w, r, benchOrigin)
						}
					}
					b.StopTimer()
				}
			})
		}
	}
}
