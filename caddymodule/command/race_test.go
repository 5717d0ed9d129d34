//go:build race

package command

// With -race all takes ten times as long. scripts/gotest plays these in full without it.
func init() { *viewers = 60 }
