package operate

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Gate is a gate of the running config.
type Gate struct {
	Sites []string `json:"sites"` // whose requests it judges: their hosts, or else where their server listens
	Store string   `json:"store"`
	Mode  string   `json:"mode"` // as configured: enforce, observe, or the placeholder that says which

	// Since when it observes because an operator has said so, whatever Mode is.
	ObservingSince *time.Time `json:"observingSince,omitempty"`

	// Observe has it observe from now on, or do again what Mode says, and returns
	// since when it observes by that.
	Observe func(bool) *time.Time `json:"-"`
}

// observing are the gates of a store that observe because an operator has said so.
func (s Store) observing() (gates []Gate) {
	for _, g := range s.Gates {
		if g.ObservingSince != nil {
			gates = append(gates, g)
		}
	}
	return gates
}

// The words of a call about mode.
const (
	modeObserve = "observe"
	modeConfig  = "config"
)

// setMode has the chosen gates observe, or do what the config says.
func setMode(r *http.Request, chosen []Store, _ []string) (any, error) {
	const example = `{"mode": "` + modeObserve + `"} or {"mode": "` + modeConfig + `"}`
	var body struct{ Mode *string }
	d := json.NewDecoder(io.LimitReader(r.Body, 1<<12))
	d.DisallowUnknownFields()
	err := d.Decode(&body)
	switch {
	case errors.Is(err, io.EOF):
		return nil, fail(http.StatusBadRequest, "the call takes a body: %s", example)
	case err != nil:
		return nil, fail(http.StatusBadRequest, "body: %v; it takes %s, and the query takes site and store", err, example)
	case d.More():
		return nil, fail(http.StatusBadRequest, "body: there is something behind %s", example)
	case body.Mode == nil:
		return nil, fail(http.StatusBadRequest, "mode: missing; the body is %s", example)
	case *body.Mode != modeObserve && *body.Mode != modeConfig:
		return nil, fail(http.StatusBadRequest, "mode: %q is not one of %s, %s", *body.Mode, modeObserve, modeConfig)
	}
	return switchGates(r, chosen, func(g *Gate) { g.ObservingSince = g.Observe(*body.Mode == modeObserve) })
}

// resetMode has the chosen gates do what the config says.
func resetMode(r *http.Request, chosen []Store, _ []string) (any, error) {
	return switchGates(r, chosen, func(g *Gate) { g.ObservingSince = g.Observe(false) })
}

// gates lists the chosen gates.
func gates(r *http.Request, chosen []Store, _ []string) (any, error) {
	return switchGates(r, chosen, func(*Gate) {})
}

// switchGates does something with the gates of the chosen stores, or those of the sites
// that the query names, and answers with them. A word of the query that is misspelled
// is not to mean all.
func switchGates(r *http.Request, chosen []Store, do func(*Gate)) (any, error) {
	query := r.URL.Query()
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if name != "site" && name != "store" {
			return nil, fail(http.StatusBadRequest, "query: %q is not one of site, store", name)
		}
	}
	var all, answer []Gate
	for _, s := range chosen {
		all = append(all, s.Gates...)
	}
	if len(all) == 0 {
		return nil, fail(http.StatusNotFound, "the running config has no stream_guard")
	}
	answer = all
	if query.Has("site") {
		answer = nil
		for _, site := range query["site"] {
			if !slices.ContainsFunc(all, func(g Gate) bool { return g.at(site) }) {
				return nil, fail(http.StatusNotFound, "there is no site %q with a stream_guard; there is %s", site, strings.Join(sitesOf(all), ", "))
			}
		}
		for _, g := range all {
			if slices.ContainsFunc(query["site"], g.at) {
				answer = append(answer, g)
			}
		}
	}
	for i := range answer {
		do(&answer[i])
	}
	return answer, nil
}

// at reports whether a gate is one of a site.
func (g Gate) at(site string) bool {
	return slices.ContainsFunc(g.Sites, func(s string) bool { return strings.EqualFold(s, site) })
}

// sitesOf are the sites of gates, quoted.
func sitesOf(gates []Gate) (sites []string) {
	for _, g := range gates {
		for _, s := range g.Sites {
			sites = append(sites, strconv.Quote(s))
		}
	}
	slices.Sort(sites)
	return slices.Compact(sites)
}
