package redisstore

import (
	"testing"

	"github.com/streamguard/streamguard/guard"
)

// FuzzReply reads anything as a script's answer: it is an error, or guards that
// are no larger than what was read.
func FuzzReply(f *testing.F) {
	record := "G0123456789abcdef" + "\x00\x00\x00\x00\x00\x01" + "\x00\x00\x00\x00\x00\x02" + "\x7f\x00\x00\x00\x00\x03" + "\x01\x01\x00\x00" + "sd"
	f.Add(int64(guard.Rejected), int64(1), "1"+record+record, int64(1), "0123456789abcdef")
	f.Add(int64(guard.Revoked), int64(1), "1R"+record[1:], int64(0), "")
	f.Fuzz(func(t *testing.T, outcome, now int64, records string, rule int64, replaced string) {
		for _, reply := range []any{
			[]any{outcome, now, records, rule, replaced}, []any{outcome, now, records}, []any{outcome, records, now}, records, nil,
		} {
			v, l, err := verdict(reply, "user")
			if err != nil {
				continue
			}
			size := 0
			for _, g := range l.guards {
				size += len(g.Stream) + len(g.Device) + len(g.Labels) + 38
			}
			if size > len(records) || v.Held != len(l.guards) || len(l.replaced)*16 > len(replaced) {
				t.Errorf("%q became %+v, %+v", reply, v, l)
			}
		}
	})
}
