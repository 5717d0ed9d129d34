// Package caddymodule is stream_guard as Caddy knows it: the HTTP handler, its
// Caddyfile directive and the stores it can be given.
package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/streamguard/streamguard/api"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/lease"
	"github.com/streamguard/streamguard/playback"
)

func init() { caddy.RegisterModule(Handler{}) }

// Handler limits how many videos a user watches at once.
//
// It stands in front of an HLS or DASH origin. Requests for manifests and media
// create a guard for their playback and keep it alive; when the user's guards
// are as many as the limit, a further playback is answered 429 Too Many
// Requests. Other requests, and OPTIONS, pass untouched. Under the api path it
// serves guards by explicit call.
//
// A 429, 401, 425 or 503 goes to the site's error routes (handle_errors) if one
// matches; otherwise it is answered as application/problem+json (RFC 9457).
//
// Of every request that it judges, it sets these placeholders:
//
// Placeholder | Description
// ------------|------------
// `{http.stream_guard.verdict}` | known, admitted, refreshed, vacant, released, rejected, revoked, redirected, anonymous or unavailable; with mode observe also would_reject or would_replace
// `{http.stream_guard.user}` | The user
// `{http.stream_guard.stream}` | The stream
// `{http.stream_guard.device}` | The device, if known
// `{http.stream_guard.guard}` | The guard's id
// `{http.stream_guard.held}` | How many guards the user holds, if known
// `{http.stream_guard.limit}` | How many the user may hold, if known
// `{http.stream_guard.retry_after}` | Seconds after which a refused playback may try again
// `{http.stream_guard.problem}` | The problem document of a refusal, for a `respond` in an error route
//
// The access log has verdict, user, guard, stream, held and limit in the field
// stream_guard, and in uuid the request's id, which all other logs of it have as
// request_id.
type Handler struct {
	// What comes of the decisions: `enforce` (default) refuses what is too
	// much, `observe` passes it, and logs and counts it, for a report of what
	// each limit would have refused (`caddy stream-guard report`). Guards beyond
	// the limit are kept then too. Redirects of `playback path` stay, and
	// `anonymous` holds.
	Mode string `json:"mode,omitempty"`

	// Who is watching: a placeholder such as `{http.auth.user.id}` or
	// `{http.request.header.X-User-Id}`. Required. At most 256 bytes, no
	// control characters. Where it comes from a header, whatever stands in
	// front must set that header and not pass the client's own.
	User string `json:"user"`

	// What to do with a request that has no user: `deny` answers 401 (default),
	// `allow` lets it pass unguarded.
	Anonymous string `json:"anonymous,omitempty"`

	// What is watched. All renditions, tracks and segments of a title must give
	// the same name. `dir N`: the first N directories of the path (default
	// `dir 2`); `name`: the file name without numbers and renditions, for
	// titles that share a directory; `cmcd`: the CMCD content id, or else
	// `dir 2`; `path_regexp RE`: what the expression's first group matches; or
	// placeholders.
	Stream string `json:"stream,omitempty"`

	// How players are told apart. `auto` (default): by the guard id in the
	// request (guard query parameter, X-Guard-Id header, path token), or the CMCD
	// session id, or X-Playback-Session-Id, or else by user and stream, so
	// that two players of one user on one stream count once. `path`: the same,
	// but a manifest request that names no playback is redirected to a URL of
	// its own, which every player carries on. Or placeholders that name the
	// playback where the request itself does not.
	Playback string `json:"playback,omitempty"`

	// What it is watched on, a placeholder such as
	// `{http.request.cookie.device}`. Where the device is known it is part of
	// each playback: an id passed on to another device is another playback. Optional.
	Device string `json:"device,omitempty"`

	// How many guards a user may hold, 0 to 1000, or a placeholder. Default 3,
	// which also serves for a placeholder that gives no such number.
	Limit Limit `json:"limit,omitempty"`

	// Further limits, on how many of a user's guards may agree in one thing. All
	// must allow a playback; the refusal says which did not.
	Rules []Rule `json:"rules,omitempty"`

	// What else a guard goes by, for rules: names (of a-z, 0-9 and _) and
	// placeholders, such as a device class or a feature of the plan. At most 8;
	// of each value the first 64 bytes count. A guard whose placeholder is
	// missing or empty does not have the label, and rules on it do not count it.
	Labels map[string]string `json:"labels,omitempty"`

	// How many guards a device may hold; a new playback on it replaces its
	// oldest, as on a television whose channel is changed. Needs device. Default
	// any number.
	PerDevice int `json:"per_device,omitempty"`

	// What becomes of a playback that starts when a limit is reached. `reject`
	// (default) refuses it. `replace_device` revokes the oldest guard of the
	// same device for it, and refuses it where there is none;
	// `replace_oldest` revokes the oldest. A revoked playback is refused until
	// ttl has passed.
	OnLimit string `json:"on_limit,omitempty"`

	// How long a guard is active after its last refresh. Default 60s, at least 1s.
	Interval caddy.Duration `json:"interval,omitempty"`

	// How long a guard exists after its last refresh; until then it keeps its
	// slot. Longer than interval; default 90s, or interval and a half where that is longer.
	TTL caddy.Duration `json:"ttl,omitempty"`

	// Whether a new playback may take the slot of a guard that is no longer
	// active. Default false: a hidden browser tab is silent for a minute.
	ReclaimLapsed bool `json:"reclaim_lapsed,omitempty"`

	// The path of the guards API, or `off`. Default `/guards`.
	API string `json:"api,omitempty"`

	// Where guards are kept. Default `memory`, which counts within this process.
	StoreRaw json.RawMessage `json:"store,omitempty" caddy:"namespace=stream_guard.stores inline_key=store"`

	// What to do with a playback while the store cannot answer: `local`
	// (default) counts on this node alone, `allow` lets it pass, `deny` answers
	// 503. The API always answers 503.
	OnStoreError string `json:"on_store_error,omitempty"`

	// How long a repeat of a refused request is held back before its answer, at
	// most 30s, a thousand at a time. Default not at all.
	Tarpit caddy.Duration `json:"tarpit,omitempty"`

	// The origins (`https://player.example.com`, or `*`) whose pages may use
	// the API and read why a playback was refused. Default none: the same
	// origin needs no entry, and pages of others can change no guards (403).
	CORS []string `json:"cors,omitempty"`

	// What becomes of the Cache-Control of gated responses: `private`
	// (default) keeps shared caches from serving them past the gate, `keep`
	// leaves it as the origin says.
	CacheControl string `json:"cache_control,omitempty"`

	// How users stand in logs: `hash` (default), the first 16 digits of their
	// SHA-256; `plain`; or `off`.
	LogUsers string `json:"log_users,omitempty"`

	// Whether a refusal shows the ids of the guards in the way, with which
	// they can be released. Default false.
	RevealGuards bool `json:"reveal_guards,omitempty"`

	// The file extensions of media. Default .ts .m4s .mp4 .m4v .m4a .m4f .m4i
	// .dash .cmfv .cmfa .cmft .webm .aac .ac3 .ec3 .mp3 .vtt .webvtt. Manifests
	// are always .m3u8 and .mpd.
	Media []string `json:"media,omitempty"`

	kinds    playback.Kinds
	user     source
	userIn   string // header that user is, if it is one
	device   source // nil: not known
	playback source // nil: auto or path
	stream   source
	labels   []label
	limit    source       // nil: the policy's
	policy   guard.Policy // its limit is the default where a placeholder gives none
	keeper   *lease.Keeper
	local    guard.Store // where the keeper counts while the store is away
	tally    *tally      // with mode observe, otherwise nil
	storeKey any         // of what Cleanup has to give back
	api      *api.API
	logger   *zap.Logger // sampled: a refused player may repeat itself 50 times a second
	tarpit   *tarpit     // nil: none
	logged   bool        // the server has an access log
	badLimit *sync.Once

	idleWriter bool // each request has the server's IdleTimeoutWriter
	unwritten  *unwritten
}

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.stream_guard",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision checks the options and takes hold of the store. It never connects
// to it.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger().WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(c, time.Second, 10, 100)
	}))
	if srv, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		h.logged = srv.Logs != nil
	}
	if err := registerMetrics(ctx.GetMetricsRegistry()); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	h.badLimit = new(sync.Once)
	h.provisionLastWord(ctx)
	h.unwritten = &unwritten{seed: maphash.MakeSeed()}
	h.setDefaults()
	if err := h.check(); err != nil {
		return err
	}
	h.policy = guard.Policy{
		Limit:         guard.DefaultLimit,
		AtLimit:       api.AtLimit[h.OnLimit],
		Rules:         h.rules(),
		Interval:      time.Duration(h.Interval),
		TTL:           time.Duration(h.TTL),
		ReclaimLapsed: h.ReclaimLapsed,
		CountLocally:  h.OnStoreError == "local",
	}
	if n, err := parseLimit(string(h.Limit)); err == nil {
		h.policy.Limit = n
	} else {
		h.limit = newSource(string(h.Limit))
	}
	h.labels = newLabels(h.Labels)
	h.user, h.userIn = newSource(h.User), soleHeader(h.User)
	if h.Device != "" {
		h.device = newSource(h.Device)
	}
	if h.Playback != "auto" && h.Playback != "path" {
		h.playback = newSource(h.Playback)
	}
	if h.StoreRaw == nil || string(h.StoreRaw) == "null" {
		ctx.Logger().Warn("no store is configured: guards are counted within this process only, and gone when it stops")
		h.StoreRaw = json.RawMessage(`{"store":"memory"}`)
	}
	if err := h.openStore(ctx); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if h.Tarpit > 0 {
		h.tarpit = newTarpit(ctx, time.Duration(h.Tarpit))
	}
	if h.API != "off" {
		crossOrigin, err := h.crossOrigin()
		if err != nil {
			return err
		}
		var store explicit = h.keeper
		if h.observes() {
			store = shadow{h.keeper, h.tally}
		}
		h.api = &api.API{
			CrossOrigin:  crossOrigin,
			Store:        store,
			Prefix:       h.API,
			Caller:       h.caller,
			Events:       api.Events{Read: h.events, Keep: store.Keep},
			RefreshAfter: h.policy.Interval / 3,
			RevealGuards: h.RevealGuards,
			RequestID:    requestID,
			OnError:      h.storeFailed,
			OnAnswer:     countAPI,
		}
	}
	return nil
}

// Cleanup gives the store back. It runs after a failed Provision too.
func (h *Handler) Cleanup() error {
	if h.storeKey == nil {
		return nil
	}
	_, err := stores.Delete(h.storeKey)
	return err
}

func (h *Handler) setDefaults() {
	for _, o := range []struct {
		option *string
		value  string
	}{
		{&h.Mode, "enforce"},
		{&h.Anonymous, "deny"},
		{&h.Stream, "dir 2"},
		{&h.Playback, "auto"},
		{&h.API, "/guards"},
		{&h.OnLimit, "reject"},
		{&h.OnStoreError, "local"},
		{&h.CacheControl, "private"},
		{&h.LogUsers, "hash"},
	} {
		if *o.option == "" {
			*o.option = o.value
		}
	}
	if h.Limit == "" {
		h.Limit = Limit(fmt.Sprint(guard.DefaultLimit))
	}
	if h.Interval == 0 {
		h.Interval = caddy.Duration(guard.DefaultInterval)
	}
	if h.TTL == 0 {
		h.TTL = max(caddy.Duration(guard.DefaultTTL), h.Interval*3/2)
	}
}

// check reads the options that need reading. Its error names the option and
// the value.
func (h *Handler) check() (err error) {
	if h.User == "" {
		return errors.New("user: required, and has no default. Usual choices are {http.auth.user.id} after an authentication directive, " +
			"{http.request.header.X-User-Id} behind a proxy that sets it, {http.request.cookie.session}, or a claim that a JWT module gives")
	}
	for _, p := range []struct{ option, value string }{{"user", h.User}, {"device", h.Device}} {
		if p.value != "" && !variesByRequest(p.value) {
			return fmt.Errorf("%s: %q has no placeholder of the request: it would be the same for everybody", p.option, p.value)
		}
	}
	if h.Playback != "auto" && h.Playback != "path" && !hasPlaceholder(h.Playback) {
		return fmt.Errorf("playback: %q is not auto, path or a placeholder", h.Playback)
	}
	for _, o := range []struct {
		option, value string
		allowed       []string
	}{
		{"mode", h.Mode, []string{"enforce", "observe"}},
		{"anonymous", h.Anonymous, []string{"deny", "allow"}},
		{"on_limit", h.OnLimit, slices.Sorted(maps.Keys(api.AtLimit))},
		{"on_store_error", h.OnStoreError, []string{"local", "allow", "deny"}},
		{"cache_control", h.CacheControl, []string{"private", "keep"}},
		{"log_users", h.LogUsers, []string{"off", "hash", "plain"}},
	} {
		if !slices.Contains(o.allowed, o.value) {
			return fmt.Errorf("%s: %q is not one of %s", o.option, o.value, strings.Join(o.allowed, ", "))
		}
	}
	if err := h.Limit.check(); err != nil {
		return fmt.Errorf("limit: %w", err)
	}
	if err := h.checkRules(); err != nil {
		return err
	}
	if interval := time.Duration(h.Interval); interval < time.Second {
		return fmt.Errorf("interval: %v is shorter than 1s", interval)
	}
	if h.TTL <= h.Interval {
		return fmt.Errorf("ttl: %v is not longer than interval, %v", time.Duration(h.TTL), time.Duration(h.Interval))
	}
	if tarpit := time.Duration(h.Tarpit); tarpit < 0 || tarpit > maxTarpit {
		return fmt.Errorf("tarpit: %v is not between 0s and %v", tarpit, maxTarpit)
	}
	if h.API != "off" {
		path := strings.TrimRight(h.API, "/")
		if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "?#{") {
			return fmt.Errorf("api: %q is neither off nor a path like /guards", h.API)
		}
		h.API = path
	}
	for _, origin := range h.CORS {
		if err := checkOrigin(origin); err != nil {
			return fmt.Errorf("cors: %w", err)
		}
	}
	if h.stream, err = parseStream(h.Stream); err != nil {
		return fmt.Errorf("stream: %w", err)
	}
	if h.kinds, err = playback.NewKinds(h.Media); err != nil {
		return fmt.Errorf("media: %w", err)
	}
	return nil
}

var placeholder = regexp.MustCompile(`\{[^{}\s]+\}`)

func hasPlaceholder(s string) bool { return placeholder.MatchString(s) }

// variesByRequest reports whether a text has a placeholder beyond those that
// mean the same all the time.
func variesByRequest(s string) bool {
	return slices.ContainsFunc(placeholder.FindAllString(s, -1), func(p string) bool {
		return !strings.HasPrefix(p, "{env.") && !strings.HasPrefix(p, "{system.") && !strings.HasPrefix(p, "{file.")
	})
}

// onAPI reports whether a path is the API's.
func (h *Handler) onAPI(path string) bool {
	rest, ok := strings.CutPrefix(path, h.API)
	return ok && h.api != nil && (rest == "" || rest[0] == '/')
}

var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
)
