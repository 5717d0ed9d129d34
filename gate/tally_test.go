package gate

import (
	"strconv"
	"testing"
)

func TestReportIsBounded(t *testing.T) {
	o := NewTally()
	for n := range maxWatchers + 10 {
		o.start(strconv.Itoa(n), 2)
	}
	o.start("0", 3)
	o.Watch()
	r, _ := o.Report("")
	if !r.UsersAtLeast || r.Limits[0].Users != maxWatchers || r.Limits[1].Users != 1 || r.Limits[0].Playbacks != maxWatchers+11 {
		t.Errorf("%+v", r.Limits[:2])
	}
}
