package caddymodule

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/streamguard/streamguard/api"
	"github.com/streamguard/streamguard/guard"
)

const (
	maxLabels     = 8
	maxLabelValue = 64 // bytes
)

// Rule limits how many of a user's guards may agree in one thing.
type Rule struct {
	// 0 to 1000.
	Limit int `json:"limit"`
	// `stream`, `device` or the name of a label. What is not known agrees with nothing.
	Per string `json:"per"`
}

// rules are those of the policy.
func (h *Handler) rules() []guard.Rule {
	var rules []guard.Rule
	if h.PerDevice > 0 {
		rules = append(rules, guard.Rule{Per: "device", Limit: h.PerDevice, AtLimit: guard.ReplaceOldest})
	}
	for _, r := range h.Rules {
		rules = append(rules, guard.Rule{Per: r.Per, Limit: r.Limit, AtLimit: api.AtLimit[h.OnLimit]})
	}
	return rules
}

var labelName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`)

func (h *Handler) checkRules() error {
	if len(h.Labels) > maxLabels {
		return fmt.Errorf("label: %d of them, at most %d are allowed", len(h.Labels), maxLabels)
	}
	for name, value := range h.Labels {
		if !labelName.MatchString(name) || name == "stream" || name == "device" {
			return fmt.Errorf("label: %q is not a name of a-z, 0-9 and _, up to 32 and other than stream and device", name)
		}
		if !variesByRequest(value) {
			return fmt.Errorf("label %s: %q has no placeholder of the request: it would be the same for everybody", name, value)
		}
	}
	for i, r := range h.Rules {
		if _, isLabel := h.Labels[r.Per]; !isLabel && r.Per != "stream" && r.Per != "device" {
			return fmt.Errorf("limit: per %q is not stream, device or a label", r.Per)
		}
		if err := Limit(strconv.Itoa(r.Limit)).check(); err != nil {
			return fmt.Errorf("limit: %w", err)
		}
		if r.Per == "device" && h.Device == "" {
			return errors.New("limit: per device needs the device option")
		}
		if slices.ContainsFunc(h.Rules[:i], func(before Rule) bool { return before.Per == r.Per }) {
			return fmt.Errorf("limit: per %s is given twice", r.Per)
		}
	}
	if h.PerDevice < 0 || h.PerDevice > guard.MaxLimit {
		return fmt.Errorf("per_device: %d is not a whole number from 1 to %d", h.PerDevice, guard.MaxLimit)
	}
	if h.Device == "" && h.PerDevice > 0 {
		return fmt.Errorf("per_device: %d needs the device option", h.PerDevice)
	}
	if h.Device == "" && h.OnLimit == "replace_device" {
		return errors.New("on_limit: replace_device needs the device option")
	}
	return nil
}

// unmarshalLimit reads "limit <n>" and "limit <n> per <what>".
func (h *Handler) unmarshalLimit(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	switch {
	case len(args) == 3 && args[1] == "per":
		n, err := parseLimit(args[0])
		if err != nil {
			return d.Errf("limit: %v", err)
		}
		h.Rules = append(h.Rules, Rule{Limit: n, Per: args[2]})
	case len(args) != 1:
		return d.Err("limit: takes a number, or a number and what it is per: 1 per device")
	case args[0] == "":
		return d.Err("limit: empty")
	case h.Limit != "":
		return d.Err("limit is given twice")
	default:
		h.Limit = Limit(args[0])
	}
	return nil
}

// unmarshalLabel reads "label <name> <placeholder>".
func (h *Handler) unmarshalLabel(d *caddyfile.Dispenser) error {
	var name, value string
	if !d.AllArgs(&name, &value) {
		return d.Err("label: takes a name and a placeholder")
	}
	if _, given := h.Labels[name]; given {
		return d.Errf("label %s is given twice", name)
	}
	if h.Labels == nil {
		h.Labels = make(map[string]string)
	}
	h.Labels[name] = value
	return nil
}

// label is where a guard's label comes from.
type label struct {
	name  string
	value source
}

func newLabels(config map[string]string) (labels []label) {
	for _, name := range slices.Sorted(maps.Keys(config)) {
		labels = append(labels, label{name, newSource(config[name])})
	}
	return labels
}

// labelsOf are the labels of a request's guard.
func (h *Handler) labelsOf(r *http.Request, repl *caddy.Replacer) (labels guard.Labels) {
	for _, l := range h.labels {
		value := l.value(r, repl)
		labels = labels.With(l.name, strings.ToValidUTF8(value[:min(len(value), maxLabelValue)], ""))
	}
	return labels
}
