package caddymodule

import "testing"

func TestReplayKnowsSites(t *testing.T) {
	for _, c := range []struct {
		pattern, host string
		want          bool
	}{
		{"*.example", "a.example", true}, {"*.example", "a.b.example", false}, {"A.example", "a.EXAMPLE", true},
		{withoutPort("[::1]:8080"), withoutPort("::1"), true}, {withoutPort("[::1]"), "::1", true}, {withoutPort("a.example:80"), "a.example", true},
	} {
		if got := hostFits(c.pattern, c.host); got != c.want {
			t.Errorf("%s and %s: %v", c.pattern, c.host, got)
		}
	}
}
