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
)

// BenchmarkGate is Caddy's own preparation of a request, and the same with the
// gate behind it for a known playback.
func BenchmarkGate(b *testing.B) {
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer cancel()
	h := &Handler{User: "{http.request.header.X-User-Id}", StoreRaw: json.RawMessage(`{"store":"memory","name":"bench"}`)}
	if err := h.Provision(ctx); err != nil {
		b.Fatal(err)
	}
	defer h.Cleanup()
	next := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
	srv := &caddyhttp.Server{}
	for _, leases := range []int{1_000, 100_000} {
		request := func() *http.Request {
			n := rand.IntN(leases)
			r := httptest.NewRequest("GET", fmt.Sprintf("/vod/title-%d/1080p/%d.m4s?CMCD=br%%3D3200%%2Ccid%%3D%%22title-%d%%22%%2Cd%%3D4004%%2Cot%%3Dv%%2Csid%%3D%%226e2fb550-c457-11e9-bb97-%012d%%22%%2Cst%%3Dv", n%997, n, n%997, n), nil)
			r.Header.Set("X-User-Id", fmt.Sprintf("user-%d", n))
			return r
		}
		w := httptest.NewRecorder()
		prepare := func(r *http.Request) *http.Request { return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, srv) }
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
							h.ServeHTTP(w, prepare(batch[j]), next)
						}
					}
					b.StartTimer()
					for _, r := range batch[:n] {
						if r = prepare(r); gated {
							h.ServeHTTP(w, r, next)
						}
					}
					b.StopTimer()
				}
			})
		}
	}
}
