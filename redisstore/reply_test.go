package redisstore

import (
	"testing"

	"github.com/streamguard/streamguard/guard"
)

// FuzzReply reads anything as a script's answer, and as a value: it is an error,
// or guards that are no larger than what was read.
func FuzzReply(f *testing.F) {
	record := "G0123456789abcdef" + "\x00\x04" + "\x00\x00\x00\x00\x00\x02" + "\x7f\x00\x00\x00" + "\x00\x00\x00\x01" + "\x00\x00\x00\x03" +
		"\x00\x05" + "\x01\x01\x00\x00" + "\x00\x00\x00\x00\x00\x01" + "\x01\x02" + "\x80\x00\x00\x01" + "sd++"
	f.Add(int64(guard.Rejected), int64(1), int64(2), record+record, int64(1), "0123456789abcdef")
	f.Add(int64(guard.Admitted), int64(1), int64(1), record, int64(0), "")
	f.Fuzz(func(t *testing.T, outcome, now, held int64, records string, rule int64, replaced string) {
		for _, answer := range []any{
			[]any{outcome, now, held, records, int64(1), int64(1), rule, held, replaced, replaced}, []any{outcome, now, held, records}, []any{outcome, records, now, held}, records, nil,
		} {
			r, err := readReply(answer, "user")
			if err != nil {
				continue
			}
			size := 0
			for _, g := range r.guards {
				size += len(g.Stream) + len(g.Device) + len(g.Labels) + 55
			}
			if size > len(records) || len(r.replaced) != len(r.doubted) || len(r.replaced)*16 > len(replaced) {
				t.Errorf("%q became %+v", answer, r)
			}
			if v, err := r.verdict(nil); err == nil && (v.Outcome == guard.Rejected || v.Outcome == guard.Doubted) {
				t.Errorf("%q is refused by no rule: %+v", answer, v)
			}
		}
		if l, err := parse([]any{now, "2" + records}, "user"); err == nil && 55*len(l.guards) > len(records) {
			t.Errorf("%q became %d guards", records, len(l.guards))
		}
	})
}
