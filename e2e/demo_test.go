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
	for _, c := range []struct {
		name, colours string
		width, height int
	}{{"wide", "light", 1280, 900}, {"phone", "light", 390, 844}, {"wide-dark", "dark", 1280, 900}, {"phone-dark", "dark", 390, 844}} {
		name := c.name
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newTab(t, "visit", "http://"+n.addr+"/?user="+name, c.width, c.height, c.colours)
			p.accessible(t, "at first")
			for _, device := range []string{"TV", "Laptop", "Tablet"} {
				p.press(t, device, ".toggle")
				p.shows(t, device, "playing")
			}
			p.press(t, "Phone", ".toggle")
			p.shows(t, "Phone", "refused")
			for _, words := range []string{"REACHED_MAX_GUARDS_COUNT", "3 of 3", "TV media/cmaf, since", "Laptop media/cmaf", "Tablet media/cmaf", "Try again"} {
				p.says(t, "Phone", words)
			}
			p.says(t, "Phone", "A place is free when one stops, or 90 s after one falls silent.")
			p.accessible(t, "with a refusal")
			held := n.guards(t, name)
			if len(held.Guards) != 3 || held.Remaining != 0 {
				t.Errorf("%s holds %+v", name, held)
			}
			if *screenshots != "" {
				p.do(t, "screenshot", filepath.Join(*screenshots, "demo-"+name+".png"))
			}
			// Nothing is cut off sideways, and the list counts down.
			if wide := p.number(t, "document.documentElement.scrollWidth"); wide > float64(c.width) {
				t.Errorf("the page is %v wide in a window of %d", wide, c.width)
			}
			left := p.text(t, "#guards .left")
			eventually(t, "the list counts down", func() bool { return p.text(t, "#guards .left") != left })

			// Another stops: there is room.
			p.press(t, "Laptop", ".toggle")
			p.shows(t, "Laptop", "stopped")
			p.says(t, "Phone", "A place is free now.")
			p.press(t, "Phone", ".toggle")
			p.shows(t, "Phone", "playing")

			// Or the oldest is replaced, and told so.
			p.press(t, "Laptop", ".toggle")
			p.shows(t, "Laptop", "refused")
			p.press(t, "Laptop", ".replace")
			p.shows(t, "Laptop", "playing")
			p.shows(t, "TV", "replaced")
			p.says(t, "TV", "GUARD_REPLACED")
			p.accessible(t, "with one that was replaced")
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
			again := make(map[string]string)
			eventually(t, "the page that is loaded again holds what it held", func() bool { // its goodbye may come after the new page's requests
				clear(again)
				for _, g := range n.guards(t, name).Guards {
					again[g.DeviceID] = g.GuardID
				}
				return len(again) == len(devices)
			})
			if !maps.Equal(again, devices) {
				t.Errorf("loaded again, the page plays under %v, before under %v", again, devices)
			}
		})
	}
}

// The page's user is named wherever it says who counts, and the sample's other
// users are not in the way.
func TestDemoPageNamesItsUser(t *testing.T) {
	t.Parallel()
	n := start(t, example(t))
	for range 3 {
		n.want(t, 201, "ada", "POST", "/guards", "{}") // as the README does
	}
	for query, want := range map[string]string{
		"":            "Any other player counts too, as user demo. Open this",
		"?user=alice": "Any other player counts too, as user alice if it sends X-User-Id: alice. Open this",
	} {
		p := newTab(t, "visit", "http://"+n.addr+"/"+query, 1280, 900)
		eventually(t, "the page says "+want, func() bool { return strings.Contains(p.text(t, "footer"), want) })
		eventually(t, "nobody watches", func() bool { return p.text(t, "#usage") == "0 of 3 in use" })
	}
}

// Without a mouse.
func TestDemoPageByKeyboard(t *testing.T) {
	t.Parallel()
	n := start(t, example(t))
	p := newTab(t, "visit", "http://"+n.addr+"/?user=keys", 1280, 900)
	next := func(label string) { // the next control is this one
		t.Helper()
		p.do(t, "press", "Tab")
		var got string
		const focus = "(document.activeElement.ariaLabel ?? document.activeElement.textContent).trim()"
		if err := json.Unmarshal(p.do(t, "evaluate", focus), &got); err != nil || !strings.HasPrefix(got, label) {
			t.Fatalf("the focus is on %q, want %q", got, label)
		}
	}
	next("Switch to demo")
	for _, device := range []string{"TV", "Laptop", "Tablet"} {
		next("Play on " + device)
		p.do(t, "press", "Enter")
		p.shows(t, device, "playing")
	}
	next("Play on Phone")
	p.do(t, "press", "Space")
	p.shows(t, "Phone", "refused")
	next("Watch here instead")
	p.do(t, "press", "Enter")
	p.shows(t, "Phone", "playing")
	p.shows(t, "TV", "replaced")
	next("The last refusal, as sent")
	p.do(t, "press", "Enter")
	eventually(t, "the answer is shown", func() bool { return strings.Contains(p.text(t, "#answer pre"), "GUARD_REPLACED") })
}

// accessible insists that axe-core finds nothing wrong with the page.
func (p *tab) accessible(t *testing.T, when string) {
	t.Helper()
	var wrong []string
	if err := json.Unmarshal(p.do(t, "violations"), &wrong); err != nil || len(wrong) > 0 {
		t.Errorf("%s the page has %v\n%s", when, err, strings.Join(wrong, "\n"))
	}
}

// says waits until a tile does.
func (p *tab) says(t *testing.T, device, words string) {
	t.Helper()
	eventually(t, device+" says "+words, func() bool { return strings.Contains(p.text(t, tile(device)), words) })
}

func tile(device string) string { return fmt.Sprintf(`.tile[data-device="%s"]`, device) }

func (p *tab) press(t *testing.T, device, button string) {
	t.Helper()
	p.do(t, "click", tile(device)+" "+button)
}

// shows waits until a tile is in a state; when it plays, until its video goes on.
func (p *tab) shows(t *testing.T, device, state string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("the page says %q", p.text(t, "body"))
		}
	}()
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
