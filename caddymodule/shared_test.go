package caddymodule

import "testing"

func TestListenersThatMeet(t *testing.T) {
	all := listeners(`  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F9A 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F9A 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1 0000000000000000 100 0 0 10 0
   2: 0100007F:1F9A 0100007F:E1E2 01 00000000:00000000 00:00000000 00000000     0        0 13 1 0000000000000000 20 4 30 10 -1
   3: 0200007F:1F9A 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 14 1 0000000000000000 100 0 0 10 0
   4: 00000000:07E3 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 15 1 0000000000000000 100 0 0 10 0
   5: 00000000000000000000000000000000:1F9A 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 16 1 0000000000000000 100 0 0 10 0
`)
	inodes := ""
	for _, l := range all {
		inodes += " " + l.inode
	}
	if inodes != " 11 12 14 15 16" || all[0].port != "8090" {
		t.Fatalf("%+v", all)
	}
	for _, c := range []struct {
		a, b  int
		meets bool
	}{{0, 1, true}, {1, 0, true}, {1, 1, true}, {1, 2, false}, {0, 3, false}, {4, 1, true}} {
		if all[c.a].meets(all[c.b]) != c.meets {
			t.Errorf("%+v meets %+v: %v", all[c.a], all[c.b], !c.meets)
		}
	}
}
