package e2e

import (
	"net"
	"strings"
	"testing"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// Whoever starts a second Caddy on the same port, which Linux lets both of them
// have, is told that there are two counts.
func TestASecondCaddyOnThePortIsTold(t *testing.T) {
	t.Parallel()
	const told = "another process listens on the same port"
	first := start(t, site(files))
	_, port, _ := net.SplitHostPort(first.addr)
	same := func(options ...string) string { return strings.ReplaceAll(site(files, options...), ":8090", ":"+port) }
	second := start(t, same())
	if !strings.Contains(second.log.String(), told) {
		t.Errorf("a second Caddy says nothing of it:\n%s", second.log)
	}
	if strings.Contains(first.log.String(), told) {
		t.Errorf("the first Caddy was alone:\n%s", first.log)
	}
	// Its own listeners are nobody else's.
	first.reloadWell(t, site(files, "limit 2"))
	second.stop()
	first.reloadWell(t, site(files, "limit 1"))
	if times := strings.Count(first.log.String(), told); times != 1 {
		t.Errorf("the first Caddy said it %d times, want 1, while the second was there", times)
	}
	// One that is validated listens nowhere, and with a common store there is one count.
	if out, code := run(t, "validate", "--adapter", "caddyfile", "--config", file(t, "Caddyfile", same())); code != 0 || strings.Contains(out, told) {
		t.Errorf("caddy validate ends with %d: %s", code, out)
	}
	if third := start(t, same(inRedis(redistest.Start(t)))); strings.Contains(third.log.String(), told) {
		t.Errorf("with Redis it is told too:\n%s", third.log)
	}
}
