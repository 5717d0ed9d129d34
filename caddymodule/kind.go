package caddymodule

import "github.com/streamguard/streamguard/playback"

// Kinds says what paths are.
type Kinds struct {
	// `manifest`, `media`, or `other` for what passes uncounted.
	Kind string `json:"kind"`
	// File extensions such as `.ts`, or paths as Caddy's path matcher has them:
	// `/live/*/seg`, `/ads/*`, `*.cmfv`. Capitals do not matter.
	Paths []string `json:"paths"`
}

func kindsOf(lines []Kinds) (playback.Kinds, error) {
	var rules []playback.KindRule
	for _, l := range lines {
		rules = append(rules, playback.KindRule{Kind: l.Kind, Paths: l.Paths})
	}
	return playback.NewKinds(rules)
}
