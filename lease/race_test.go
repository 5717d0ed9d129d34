//go:build race

package lease

// With -race a history takes ten times as long. make test plays more of them without it.
func init() { *seeds = 10 }
