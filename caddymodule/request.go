package caddymodule

import (
	"fmt"
	"hash/fnv"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"golang.org/x/text/unicode/norm"

	"github.com/streamguard/streamguard/gate"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/playback"
	"github.com/streamguard/streamguard/problem"
)

// reader reads from a request what the options say is to be known of it.
type reader struct {
	kinds          playback.Kinds
	user           source
	userIn         []named
	lower, nfc     bool
	device         source // nil: not known
	deviceRequired bool
	stream         source
	fallback       source // nil: none
	labels         []label
	rules          []rule
	policy         guard.Policy // as far as it is the same for all requests
	sameForAll     bool         // which is all of it
	mode           gate.Mode
	modeOf         source // nil: mode is the same for all requests
	modeName       string
}

// label is where a guard's label comes from.
type label struct {
	name  string
	value source
}

const maxLabelValue = 64 // bytes

// reclaims are what the option's values mean.
var reclaims = map[string]guard.Reclaim{"closed": guard.ReclaimClosed, "lapsed": guard.ReclaimLapsed, "off": guard.ReclaimOff}

// newReader is the reader of options that have been checked.
func newReader(h *Handler) reader {
	rd := reader{
		user:           newSource(h.User),
		userIn:         namesIn(h.User),
		lower:          slices.Contains(h.UserFold, "lower"),
		nfc:            slices.Contains(h.UserFold, "nfc"),
		deviceRequired: h.DeviceRequired,
		rules:          newRules(h.Limits),
		policy: guard.Policy{
			Limit:        guard.DefaultLimit,
			Interval:     time.Duration(h.Interval),
			TTL:          time.Duration(h.TTL),
			Reclaim:      reclaims[h.Reclaim],
			CountLocally: h.OnStoreError == "local",
		},
	}
	rd.stream, _ = parseStream(h.Stream)
	rd.kinds, _ = kindsOf(h.Kinds)
	if h.Device != "" {
		rd.device = newSource(h.Device)
	}
	if h.Playback != "auto" && h.Playback != "stream" {
		rd.fallback = newSource(h.Playback)
	}
	for _, name := range slices.Sorted(maps.Keys(h.Labels)) {
		rd.labels = append(rd.labels, label{name, newSource(h.Labels[name])})
	}
	switch h.Mode {
	case "enforce":
	case "observe":
		rd.mode = gate.Observe
	default:
		rd.modeOf, rd.modeName = newSource(h.Mode), h.Mode
	}
	rd.sameForAll = !slices.ContainsFunc(rd.rules, func(r rule) bool { return r.number != nil })
	if rd.sameForAll {
		rd.policy = rd.judgedBy(nil, nil, nil)
	}
	return rd
}

// mayObserve reports whether some requests are only observed.
func (rd *reader) mayObserve() bool { return rd.modeOf != nil || rd.mode == gate.Observe }

// fill fills in what there is to know of a request for a manifest or media.
// Without a user there is nothing more to know.
func (h *Handler) fill(g *gate.Request, r *http.Request, repl *caddy.Replacer) {
	rd := &h.read
	g.HTTP = r
	if g.Invalid = problem.Early(r); g.Invalid != nil {
		return
	}
	h.fillWho(g, r, repl)
	g.Mode = h.modeOfRequest(r, repl)
	if g.User == "" || g.Invalid != nil {
		return
	}
	g.Stream = playback.Label(rd.stream(r, repl))
	if rd.fallback != nil {
		g.Fallback = rd.fallback(r, repl)
	}
	if g.Token != nil {
		return
	}
	u := received(r)
	g.Movable = g.Kind == playback.Manifest && rd.kinds.Of(u.Path) == playback.Manifest
	if _, token, found := playback.CutToken(u.EscapedPath()); found { // which a gate in front has cut out
		g.Token, g.Movable = new(token), false
	} else if len(r.Header[tokenHandedOn]) > 0 { // or one on another machine
		g.Behind, g.Movable = true, false
	}
}

// fillWho fills in who asks, and by what they are judged.
func (h *Handler) fillWho(g *gate.Request, r *http.Request, repl *caddy.Replacer) {
	rd := &h.read
	if len(r.Header["X-Guard-Id"]) > 0 { // its name before the first release
		h.reports.once("X-Guard-Id", func() {
			h.logger.Warn("a client sends X-Guard-Id, which is now Stream-Guard-Id: it is not read; said once until the config changes", zap.String("path", r.URL.Path))
		})
	}
	address, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	g.Client = playback.ClientHint(address, r.UserAgent())
	g.User, g.Invalid = rd.userOf(r, repl)
	if g.User == "" || g.Invalid != nil {
		return
	}
	if rd.device != nil {
		g.Device = playback.Label(rd.device(r, repl))
		h.reports.missing(h.logger, "device", h.Device, g.Device)
		if g.Device == "" && rd.deviceRequired {
			g.Invalid = problem.New(problem.MissingDevice, "the request does not say which device it comes from")
			return
		}
	}
	for _, l := range rd.labels {
		value := l.value(r, repl)
		h.reports.missing(h.logger, "label "+l.name, h.Labels[l.name], value)
		g.Labels = g.Labels.With(l.name, strings.ToValidUTF8(value[:min(len(value), maxLabelValue)], ""))
	}
	g.Policy = rd.policy
	if !rd.sameForAll {
		g.Policy = rd.judgedBy(r, repl, func(name, gave string, serves int) {
			h.reports.once(name, func() {
				h.logger.Error("the placeholder in limit gave neither a number nor unlimited: the number behind its or counts instead, 3 without one; said once until the config changes",
					zap.String("limit", name), zap.String("gave", gave), zap.Any("serves", orEmpty(serves)))
			})
		})
	}
}

// modeOfRequest is what comes of the decision about a request. Its user is known.
func (h *Handler) modeOfRequest(r *http.Request, repl *caddy.Replacer) gate.Mode {
	rd := &h.read
	switch {
	case h.observesByCall():
		return gate.Observe
	case rd.modeOf == nil:
		return rd.mode
	}
	switch mode := rd.modeOf(r, repl); mode {
	case "enforce":
		return gate.Enforce
	case "observe":
	default:
		h.reports.once(rd.modeName, func() {
			h.logger.Error("mode is neither enforce nor observe: the request is only observed; said once until the config changes",
				zap.String("mode", rd.modeName), zap.String("gave", mode))
		})
	}
	return gate.Observe
}

// userOf is who asks, "" for nobody.
func (rd *reader) userOf(r *http.Request, repl *caddy.Replacer) (string, *problem.Problem) {
	if err := once(r, rd.userIn); err != nil {
		return "", problem.New(problem.InvalidUser, "%v", err)
	}
	user := rd.user(r, repl)
	if user == "" {
		return "", nil
	}
	if rd.nfc {
		user = norm.NFC.String(user)
	}
	if rd.lower {
		user = strings.ToLower(user)
	}
	if err := playback.CheckUser(user); err != nil {
		return user, problem.New(problem.InvalidUser, "%v", err)
	}
	return user, nil
}

// judgedBy is the policy of a request. It tells odd of a placeholder that gave
// no number, and what serves in its place.
func (rd *reader) judgedBy(r *http.Request, repl *caddy.Replacer, odd func(name, gave string, serves int)) guard.Policy {
	p := rd.policy
	for _, rule := range rd.rules {
		judged := rule.Rule
		if rule.number != nil {
			gave := rule.number(r, repl)
			if n, ok := planned(gave); ok {
				judged.Limit = n
			} else {
				odd(rule.name, gave, judged.Limit)
			}
		}
		if judged.Per == "" {
			p.Limit, p.AtLimit = judged.Limit, judged.AtLimit
		} else {
			p.Rules = append(p.Rules, judged)
		}
	}
	return p
}

// received is the URL as the client sent it, before anything was rewritten.
func received(r *http.Request) *url.URL {
	if orig, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		return orig.URL
	}
	return r.URL
}

// bucket is one of a hundred, the same for a user each time.
func bucket(user string) string {
	sum := fnv.New32a()
	sum.Write([]byte(user))
	return fmt.Sprint(sum.Sum32() % 100)
}
