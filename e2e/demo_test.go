package e2e

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var screenshots = flag.String("screenshots", "", "folder for pictures of the demo page")

// The page of Caddyfile.example, as somebody tries it who has just run it.
func TestDemoPage(t *testing.T) {
	t.Parallel()
	n := start(t, example(t))
	for name, size := range map[string][2]int{"wide": {1280, 900}, "phone": {390, 844}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newTab(t, "visit", "http://"+n.addr+"/?user="+name, size[0], size[1])
			for _, device := range []string{"TV", "Laptop", "Tablet"} {
				p.press(t, device, ".toggle")
				p.shows(t, device, "playing")
			}
			p.press(t, "Phone", ".toggle")
			p.shows(t, "Phone", "refused")
			for _, words := range []string{"REACHED_MAX_GUARDS_COUNT", "3 of 3", "TV media/cmaf, since", "Laptop media/cmaf", "Tablet media/cmaf"} {
				eventually(t, "the page says "+words, func() bool { return strings.Contains(p.text(t, tile("Phone")), words) })
			}
			held := n.guards(t, name)
			if len(held.Guards) != 3 || held.Remaining != 0 {
				t.Errorf("%s holds %+v", name, held)
			}
			if *screenshots != "" {
				p.do(t, "screenshot", filepath.Join(*screenshots, "demo-"+name+".png"))
			}
			// Nothing is cut off sideways, and the list counts down.
			if wide := p.number(t, "document.documentElement.scrollWidth"); wide > float64(size[0]) {
				t.Errorf("the page is %v wide in a window of %d", wide, size[0])
			}
			left := p.text(t, "#guards .left")
			eventually(t, "the list counts down", func() bool { return p.text(t, "#guards .left") != left })

			// Another stops: there is room.
			p.press(t, "Laptop", ".toggle")
			p.shows(t, "Laptop", "stopped")
			p.press(t, "Phone", ".toggle")
			p.shows(t, "Phone", "playing")

			// Or the oldest is replaced, and told so.
			p.press(t, "Laptop", ".toggle")
			p.shows(t, "Laptop", "refused")
			p.press(t, "Laptop", ".replace")
			p.shows(t, "Laptop", "playing")
			p.shows(t, "TV", "replaced")
			eventually(t, "the page says who was ended", func() bool { return strings.Contains(p.text(t, tile("TV")), "GUARD_REPLACED") })
			devices := make(map[string]string)
			for _, g := range n.guards(t, name).Guards {
				devices[g.DeviceID] = g.GuardID
			}
			if got, want := slices.Sorted(maps.Keys(devices)), []string{"Laptop", "Phone", "Tablet"}; !slices.Equal(got, want) {
				t.Errorf("guards of %q, want %q", got, want)
			}

			// Loaded again, the page plays what it played, under the same guards.
			p.do(t, "renew")
			for device := range devices {
				p.shows(t, device, "playing")
			}
			again := n.guards(t, name).Guards
			for _, g := range again {
				if devices[g.DeviceID] != g.GuardID {
					t.Errorf("loaded again, %s plays under %s, before under %s", g.DeviceID, g.GuardID, devices[g.DeviceID])
				}
			}
			if len(again) != 3 {
				t.Errorf("loaded again, the page holds %+v", again)
			}
		})
	}
}

func tile(device string) string { return fmt.Sprintf(`.tile[data-device="%s"]`, device) }

func (p *tab) press(t *testing.T, device, button string) {
	t.Helper()
	p.do(t, "click", tile(device)+" "+button)
}

// shows waits until a tile is in a state; when it plays, until its video goes on.
func (p *tab) shows(t *testing.T, device, state string) {
	t.Helper()
	eventually(t, device+" is "+state, func() bool {
		return p.number(t, fmt.Sprintf("document.querySelectorAll('%s[data-state=\"%s\"]').length", tile(device), state)) == 1
	})
	if state == "playing" {
		video := fmt.Sprintf("document.querySelector('%s video').currentTime", tile(device))
		began := p.number(t, video)
		eventually(t, device+" goes on", func() bool { return p.number(t, video) > began })
	}
}

func (p *tab) number(t *testing.T, expression string) (f float64) {
	t.Helper()
	if err := json.Unmarshal(p.do(t, "evaluate", expression), &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// text is what elements say, together.
func (p *tab) text(t *testing.T, selector string) string {
	t.Helper()
	var texts []string
	if err := json.Unmarshal(p.do(t, "texts", selector), &texts); err != nil {
		t.Fatal(err)
	}
	return strings.Join(texts, "\n")
}
