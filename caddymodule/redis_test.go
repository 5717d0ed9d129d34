package caddymodule

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamguard/streamguard/caddymodule/storage"
	"github.com/streamguard/streamguard/operate"
	"github.com/streamguard/streamguard/redisstore/redistest"
)

// gauges are those of one series, by name, as a scrape has them.
func gauges(t *testing.T) map[string]float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(storage.Collectors()...)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		if m := f.GetMetric(); len(m) == 1 && m[0].GetGauge() != nil {
			got[f.GetName()] = m[0].GetGauge().GetValue()
		}
	}
	return got
}

// What a proxy or a server lacks shows where it is felt, and only there.
func TestMetricsAndOperatorsSeeWhatRedisLacks(t *testing.T) {
	for name, c := range map[string]struct {
		args                     []string
		deaf, up                 float64
		saysMemory, answersCheck bool
	}{
		"nothing":   {nil, 0, 1, true, true},
		"SUBSCRIBE": {[]string{"--rename-command", "SUBSCRIBE", ""}, 1, 1, true, true},
		"INFO":      {[]string{"--rename-command", "INFO", ""}, 0, 1, false, true},
		"HELLO":     {[]string{"--rename-command", "HELLO", ""}, 0, 1, true, true},
		"scripts":   {[]string{"--rename-command", "EVALSHA", ""}, 0, 0, true, false},
		"a master":  {[]string{"--replicaof", "127.0.0.1 1"}, 0, 0, true, false},
		"memory":    {[]string{"--maxmemory", "1"}, 0, 0, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			redis := redistest.Start(t, c.args...)
			serve(t, "SITE {\nstream_guard {\n"+user+"store redis redis://"+redis.Addr+" {\ntimeout 10s\n}\n}\nrespond ok\n}")
			eventually(t, "the gauges are right", func() bool {
				got := gauges(t)
				_, memory := got["caddy_stream_guard_redis_memory_used_bytes"]
				return got["caddy_stream_guard_store_deaf"] == c.deaf && got["caddy_stream_guard_redis_up"] == c.up && memory == c.saysMemory
			})
			health, _ := administer[[]operate.Health](t, 200, "GET", "/stream_guard/stores", "")
			if len(health) != 1 || health[0].Answers != c.answersCheck || (health[0].Servers[0].Error == "") != c.answersCheck {
				t.Errorf("health: %+v", health)
			}
		})
	}
}
