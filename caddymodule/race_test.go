//go:build race

package caddymodule

// With -race all takes ten times as long. scripts/gotest plays these in full without it.
func init() { monstrous = 200 }
