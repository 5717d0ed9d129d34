// Package caddymodule is stream_guard as Caddy knows it: the HTTP handler, its
// Caddyfile directive and the stores it can be given.
package caddymodule

import (
	"encoding/json"
	"fmt"
	"hash/maphash"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/streamguard/streamguard/api"
	"github.com/streamguard/streamguard/caddymodule/storage"
	"github.com/streamguard/streamguard/gate"
)

func init() { caddy.RegisterModule(Handler{}) }

// Handler limits how many videos a user watches at once.
//
// It stands in front of an HLS or DASH origin. Every playback gets a URL of its
// own, to which its first manifest request is redirected. Its first request for
// media takes one of the user's slots with a guard, and later ones keep it; a
// manifest, or a HEAD, takes nothing. When the user's guards are as many as the
// limit, a further playback is answered 429 Too Many Requests. Other requests, and
// other methods than GET and HEAD, pass untouched. Under the api path it serves
// guards by explicit call.
//
// A 429, 401, 425 or 503 goes to the site's error routes (handle_errors) if one
// matches; otherwise it is answered as application/problem+json (RFC 9457).
//
// Of every request that it judges, it sets these placeholders:
//
// Placeholder | Description
// ------------|------------
// `{http.stream_guard.verdict}` | known, admitted, refreshed, vacant, list, released, uncounted, rejected, revoked, replaced, redirected, anonymous, unavailable or gone; with mode observe also would_reject or would_replace; or what is wrong with the request, such as missing_user
// `{http.stream_guard.user}` | The user
// `{http.stream_guard.bucket}` | 0 to 99, a hash of the user, for a `mode` that enforces for some users first
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
	// Who is watching: a placeholder such as `{http.auth.user.id}` or
	// `{http.request.header.X-User-Id}`. Required. It names the account, not the
	// session: every login of an account has to give the same. At most 256
	// bytes, no control characters. Where it comes from a header, whatever
	// stands in front must set that header and not pass the client's own.
	User string `json:"user"`

	// How users are folded before they are compared: `lower` (to lower case),
	// `nfc` (Unicode normalization form C). Default not at all.
	UserFold []string `json:"user_fold,omitempty"`

	// How many guards a user may hold. Default one limit of 3.
	Limits []Limit `json:"limits,omitempty"`

	// What is watched. All renditions, tracks and segments of a title must give
	// the same name. `dir N`: the first N directories of the path (default
	// `dir 2`); where it has fewer, the last is a title's own if its files have
	// no title in their names, or the same, and otherwise they are named as by
	// name. `name`: the file name without renditions and a segment's number, for
	// titles that share a directory; `cmcd`: the CMCD content id, or else
	// `dir 2`; `path_regexp RE`: what the expression's first group matches; or
	// placeholders.
	Stream string `json:"stream,omitempty"`

	// How playbacks are told apart. `auto` (default) sends the first manifest
	// request of each to a URL of its own, with a token that every player carries
	// on. What the request says of its playback, by the guard query parameter or
	// Stream-Guard-Id, by the CMCD session id, or by X-Playback-Session-Id, says
	// which token. `stream` sends nobody anywhere, and takes what names nothing by
	// user and stream, so that two players of one user on one stream count once.
	// Placeholders do the same, and name the playback where the request does not.
	Playback string `json:"playback,omitempty"`

	// What it is watched on, a placeholder such as
	// `{http.request.cookie.device}`. Where the device is known it is part of
	// each playback: an id passed on to another device is another playback. Optional.
	Device string `json:"device,omitempty"`

	// Whether a request without a device is refused (401 MISSING_DEVICE).
	// Default false: its playback is on a device that is not known.
	DeviceRequired bool `json:"device_required,omitempty"`

	// What else a guard goes by, for limits: names (of a-z, 0-9 and _) and
	// placeholders, such as a device class or a feature of the plan. At most 8;
	// of each value the first 64 bytes count. A guard whose placeholder is
	// missing or empty does not have the label, and limits on it do not count it.
	Labels map[string]string `json:"labels,omitempty"`

	// What are manifests and media, beyond the defaults: .m3u8 .mpd .m3u; .ts
	// .m4s .mp4 .m4v .m4a .m4f .m4i .dash .cmfv .cmfa .cmft .webm .aac .ac3
	// .ec3 .mp3 .vtt .webvtt .mkv .mka .avi .flv .mov .wmv .mpg .mpeg .m2ts
	// .mts .ogv .ogg .oga .opus .weba .flac; and what Smooth Streaming, Azure,
	// Emby and Jellyfin name without an extension. Of all that fit a path, the
	// last decides.
	Kinds []Kinds `json:"kinds,omitempty"`

	// What comes of the decisions: `enforce` (default) refuses what is too
	// much, `observe` passes it, and logs and counts it, for a report of what
	// each limit would have refused (`caddy stream-guard report`). Guards beyond
	// the limit are kept then too. Redirects of `playback auto` stay, and
	// `anonymous` holds. Or a placeholder that gives one of the two words; it has
	// to be a function of the user, such as `{http.stream_guard.bucket}` in a map.
	Mode string `json:"mode,omitempty"`

	// What to do with a request that has no user: `deny` answers 401 (default),
	// `allow` lets it pass unguarded.
	Anonymous string `json:"anonymous,omitempty"`

	// How long a guard is active after its last refresh. Default 60s, at least 1s.
	Interval caddy.Duration `json:"interval,omitempty"`

	// How long a guard exists after its last refresh; until then it keeps its
	// slot. Longer than interval; default 90s, or interval and a half where that is longer.
	TTL caddy.Duration `json:"ttl,omitempty"`

	// Whose slots a start may take where there is no other room: `closed` (default)
	// those of playbacks whose client has closed its connections, the first to be
	// closed before the others; `lapsed` besides those of guards that are no longer
	// active, the longest silent before the others, a hidden browser tab's among
	// them; `off` nobody's, and nothing is closed.
	Reclaim string `json:"reclaim,omitempty"`

	// Where guards are kept. Default `memory`, which counts within this process.
	StoreRaw json.RawMessage `json:"store,omitempty" caddy:"namespace=stream_guard.stores inline_key=store"`

	// What to do with a playback while the store cannot answer: `local`
	// (default) counts on this Caddy alone, `allow` lets it pass, `deny` answers
	// 503. The API always answers 503.
	OnStoreError string `json:"on_store_error,omitempty"`

	// The path of the guards API, or `off`. Default `/guards`.
	API string `json:"api,omitempty"`

	// The origins (`https://player.example.com`, or `*`) whose pages may use
	// the API and read why a playback was refused. Default none: the same
	// origin needs no entry, and pages of others can change no guards (403).
	CORS []string `json:"cors,omitempty"`

	// What becomes of the Cache-Control of gated responses: `private`
	// (default) keeps shared caches from serving them past the gate, `keep`
	// leaves it as the origin says.
	CacheControl string `json:"cache_control,omitempty"`

	// How users stand in logs and events: `hash` (default), the first 16 digits of their
	// SHA-256; `plain`; or `off`.
	LogUsers string `json:"log_users,omitempty"`

	gate     *gate.Gate
	store    *storage.Pooled // what Cleanup has to give back
	api      *api.API
	read     reader      // what a request says, as the options have it
	tarpit   *tarpit     // for refused players that repeat themselves at once
	logger   *zap.Logger // sampled: a refused player may repeat itself 50 times a second
	logged   bool        // the server has an access log
	logUsers storage.LogUsers
	private  bool       // as CacheControl says
	reports  *sometimes // what is said once until the config changes

	gateBehind *atomic.Bool // one that sends those to tokens who are nobody here
	idleWriter bool         // each request has the server's IdleTimeoutWriter
	unwritten  *unwritten
	overlooked *overlooked // manifests that are not counted
	crowds     *crowds     // streams that are several titles
	neighbours *neighbours // the gates of the server
	connected  *connected  // nil where closed connections mean nothing
	byCall     *atomic.Pointer[byCall]
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
	srv, _ := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if err := h.provision(ctx, srv); err != nil {
		if srv == nil {
			return err
		}
		return fmt.Errorf("server %s (%s): %w", srv.Name(), strings.Join(srv.Listen, " "), err)
	}
	return nil
}

func (h *Handler) provision(ctx caddy.Context, srv *caddyhttp.Server) (err error) {
	h.logger = ctx.Logger().WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(c, time.Second, 10, 100)
	}))
	h.logged = srv != nil && srv.Logs != nil
	if err := registerMetrics(ctx.GetMetricsRegistry(), append(storage.Collectors(), verdicts, starts, observing, apiDuration, decisionDuration, brokenCMCD, crowdedStreams, closedGuards, standIns, selfRefusals, alternating, panics)...); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	h.provisionLastWord(ctx)
	h.unwritten = &unwritten{seed: maphash.MakeSeed()}
	h.setDefaults()
	if err := h.check(); err != nil {
		return err
	}
	h.logUsers = map[string]storage.LogUsers{"plain": storage.Plain, "hash": storage.Hash, "off": storage.Off}[h.LogUsers]
	if h.StoreRaw == nil || string(h.StoreRaw) == "null" {
		ctx.Logger().Warn("no store is configured: guards are counted within this process only, and gone when it stops")
		h.StoreRaw = storage.Default
	}
	if h.store, err = storage.Open(ctx, h, "StoreRaw", time.Duration(h.TTL), h.logUsers); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if rule := inFront(srv); rule != "" {
		ctx.Logger().Warn("a rule on files or paths stands in front of stream_guard: it knows neither URLs with a token nor the API; "+
			"write stream_guard_token as the site's first directive, and leave the API's path out of the rule (not path "+h.API+" "+h.API+"/*)",
			zap.String("matcher", rule), zap.Strings("listen", srv.Listen))
	}
	h.reports, h.gateBehind, h.byCall = new(sometimes), new(atomic.Bool), new(atomic.Pointer[byCall])
	h.crowds = newCrowds(h.Playback == "stream")
	h.read = newReader(h)
	h.overlooked = newOverlooked(h.read.mayObserve())
	h.private = h.CacheControl == "private"
	h.tarpit = newTarpit(srv)
	h.neighbours = joinServer(srv)
	if err := h.watchPort(ctx, srv); err != nil {
		return err
	}
	h.gate = gate.New(h.store.Keeper, h.store.Local, h.store.Audience, h.store.Memory)
	h.gate.Ending = h.tarpit.ending
	h.gate.Hold = h.store.Hold
	if srv != nil {
		hook(srv)
		if h.Reclaim != "off" {
			h.connected = &connected{connections, closerOf(h.store)}
			h.gate.Connections = connections
		}
	}
	h.gate.Observing = h.observesByCall
	h.setNaming()
	if h.Anonymous == "allow" {
		h.gate.Anonymous = gate.Allow
	}
	if h.OnStoreError == "deny" {
		h.gate.OnError = gate.Refuse
	}
	if h.Mode != "enforce" {
		h.store.Audience.Watch(time.Now())
	}
	if h.API != "off" {
		if err := h.mountAPI(); err != nil {
			return err
		}
	}
	h.joinConfig(ctx)
	return nil
}

// setNaming has the gate name playbacks as the options say.
func (h *Handler) setNaming() {
	switch {
	case h.Playback == "stream":
		h.gate.Naming = gate.ByStream
	case h.Playback != "auto":
		h.gate.Naming = gate.ByFallback
	}
}

// Cleanup gives the store back. It runs after a failed Provision too.
func (h *Handler) Cleanup() error {
	h.leaveConfig()
	h.neighbours.leave()
	if h.store == nil {
		return nil
	}
	if h.gate != nil {
		h.gate.HoldAnswers()
	}
	return h.store.Close()
}

var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
)
