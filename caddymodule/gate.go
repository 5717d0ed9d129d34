package caddymodule

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/streamguard/streamguard/api"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/playback"
	"github.com/streamguard/streamguard/problem"
)

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	withoutTunnels(r.Header)
	token, cut := h.token(r)
	if h.onAPI(r.URL.Path) {
		w = h.answer(w, r)
		h.allowOrigin(w, r)
		if preflight(w, r) {
			return nil
		}
		if token != nil {
			r.Header.Set("X-Guard-Id", token.String()) // to the API an explicit id like any other
		}
		h.api.ServeHTTP(w, r)
		return nil
	}
	kind := h.kinds.Of(r.URL.Path)
	switch {
	case r.Method == http.MethodOptions:
		return next.ServeHTTP(w, r)
	case kind == playback.Other && cut:
		u := received(r)
		return h.sendOn(w, r, playback.PlainLocation(u.EscapedPath(), u.RawQuery))
	case kind == playback.Other:
		return next.ServeHTTP(w, r)
	case kind == playback.Manifest && token != nil:
		u := received(r)
		if first := playback.FirstTokenLocation(u.EscapedPath(), u.RawQuery); first != "" {
			return h.sendOn(w, r, first)
		}
	}
	p := &passage{}
	d := &p.decision
	d.users, d.held, d.limit = h.LogUsers, unknown, unknown
	repl := d.attach(r, h.logged)
	refusal := h.judge(d, r, repl, kind, token)
	if refusal != nil && h.observes() && refusal.ErrorCode != problem.MissingUser {
		h.wouldRefuse(r, d, refusal)
		refusal = nil
	}
	d.count(refusal)
	d.trace(r)
	switch {
	case d.verdict == redirected:
		return h.redirect(w, r, d)
	case refusal != nil:
		return h.refuse(w, r, d, refusal)
	case d.err != nil:
		return caddyhttp.Error(499, d.err) // the client has gone
	}
	if h.CacheControl == "private" {
		p.private = true
		w = p.over(w, h.lowest(w, r))
	}
	if kind == playback.Manifest && token != nil {
		return h.serveManifest(w, r, next, *token)
	}
	return next.ServeHTTP(w, r)
}

// passage is what one request needs, in one piece.
type passage struct {
	decision
	lastWord
}

// judge decides about a request and says in d what it found. It returns what
// stands in the way of passing, if anything.
func (h *Handler) judge(d *decision, r *http.Request, repl *caddy.Replacer, kind playback.Kind, token *guard.ID) *problem.Problem {
	if early := problem.Early(r); early != nil {
		return early
	}
	p, refusal := h.identify(r, repl, token)
	if refusal != nil {
		if refusal.ErrorCode == problem.MissingUser && h.Anonymous == "allow" {
			d.verdict = anonymous
			return nil
		}
		return refusal
	}
	d.claim = guard.Claim{
		User:   p.user,
		Device: p.device,
		Stream: playback.Label(h.stream(r, repl)),
		Labels: h.labelsOf(r, repl),
		Intent: guard.Continue,
	}
	byPath := h.Playback == "path"
	switch {
	case p.named:
		d.claim.ID = p.id
		if kind == playback.Manifest {
			d.claim.Intent = guard.Start
			if byPath && p.tokened {
				d.claim.Intent = guard.Look // some players open it under two tokens
			}
		}
	case byPath && kind == playback.Manifest && (r.Method == http.MethodGet || r.Method == http.MethodHead) &&
		h.kinds.Of(received(r).Path) == playback.Manifest: // not made one by rewrite, which would not know it with a token
		d.verdict = redirected
		d.claim.ID = guard.NewID(p.user, p.device)
		return nil
	default:
		d.claim.ID = guard.DeriveID(p.user, p.device, "stream\x00"+d.claim.Stream)
		d.claim.Intent = guard.Share
		if kind == playback.Manifest {
			d.claim.Intent = guard.Start
		}
	}
	policy := h.policyOf(r, repl)
	d.limit = policy.Limit
	asked := policy
	if h.observes() {
		asked = raised(policy)
	}
	if held, ok := h.keeper.Known(&d.claim, &asked); ok {
		d.verdict, d.held = known, held
		return nil
	}
	return h.ask(d, r, policy, asked)
}

// ask has the keeper judge a request whose playback is not known: by the policy,
// or by the one asked where the handler only observes.
func (h *Handler) ask(d *decision, r *http.Request, policy, asked guard.Policy) *problem.Problem {
	start := time.Now()
	v, err := h.keeper.Check(r.Context(), d.claim, asked)
	decisionDuration.Observe(time.Since(start).Seconds())
	switch {
	case err != nil && r.Context().Err() != nil:
		d.err = err
	case err != nil:
		d.verdict = unavailable
		h.storeFailed(r, err)
		if h.OnStoreError == "deny" {
			return problem.Unavailable()
		}
	default:
		d.verdict, d.guard, d.held = v.Outcome.String(), v.Guard.ID, v.Held
		if v.Outcome == guard.Admitted && h.observes() {
			return h.started(d, r, policy, v)
		}
		if !v.Outcome.Pass() {
			if v.Repeated && h.tarpit != nil && !h.observes() {
				h.tarpit.hold(r.Context())
			}
			return problem.Refused(v, h.RevealGuards)
		}
	}
	return nil
}

// player is who asks, as far as the request shows it.
type player struct {
	user, device string
	id           guard.ID // of the playback,
	named        bool     // if the request names one
	tokened      bool     // by a path token
}

// is says which playback it is, by an id that may have been made for another
// user or device: then it is a playback of its own here.
func (p *player) is(id guard.ID) {
	if !id.Of(p.user, p.device) {
		id = guard.DeriveID(p.user, p.device, id.String())
	}
	p.id, p.named = id, true
}

// identify finds out who asks. What names the playback is, in this order: the
// path token, the guard query parameter or the X-Guard-Id header; the CMCD
// session id; X-Playback-Session-Id; the configured placeholder.
func (h *Handler) identify(r *http.Request, repl *caddy.Replacer, token *guard.ID) (p player, refusal *problem.Problem) {
	p.user = h.user(r, repl)
	if p.user == "" {
		return p, problem.New(http.StatusUnauthorized, problem.MissingUser, "nobody is logged in")
	}
	// A proxy that adds its header to the client's own would make a new user of each.
	if strings.Contains(p.user, ",") && len(r.Header[h.userIn]) > 1 {
		return p, problem.New(http.StatusBadRequest, problem.InvalidUser, "%s comes more than once", h.userIn)
	}
	if err := playback.CheckUser(p.user); err != nil {
		return p, problem.New(http.StatusBadRequest, problem.InvalidUser, "%v", err)
	}
	if h.device != nil {
		p.device = playback.Label(h.device(r, repl))
	}
	if token != nil {
		p.is(*token)
		p.tokened = true
		return p, nil
	}
	if explicit, named := playback.ExplicitID(r); named {
		p.is(explicit)
		return p, nil
	}
	var buf [64]byte
	key := playback.CMCDSessionID(buf[:0], r)
	if len(key) == 0 {
		if playback.HasCMCD(r) {
			brokenCMCD.Inc()
		}
		key = append(key, playback.SessionID(r)...)
	}
	if len(key) == 0 && h.playback != nil {
		key = append(key, h.playback(r, repl)...)
	}
	if len(key) > 0 {
		p.id, p.named = guard.DeriveID(p.user, p.device, key), true
		return p, nil
	}
	if h.Playback == "path" {
		// A gate in front may have taken it out: then this one would redirect for ever.
		if _, id, found := playback.CutToken(received(r).EscapedPath()); found {
			p.is(id)
			p.tokened = true
		}
	}
	return p, nil
}

// caller is identify for the API.
func (h *Handler) caller(r *http.Request) (api.Caller, error) {
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	p, refusal := h.identify(r, repl, nil)
	if refusal != nil {
		return api.Caller{}, refusal
	}
	c := api.Caller{
		User:   p.user,
		Device: p.device,
		Labels: h.labelsOf(r, repl),
		Policy: h.policyOf(r, repl),
		Base:   apiBase(received(r).Path, r.URL.Path, h.API),
	}
	if p.named {
		c.ID = &p.id
	}
	return c, nil
}

// apiBase is the API's path as the client sees it, with what handle_path or
// uri strip_prefix have cut off.
func apiBase(original, path, mount string) string {
	prefix, _ := strings.CutSuffix(original, path)
	if prefix == original {
		return mount
	}
	return prefix + mount
}

func (h *Handler) policyOf(r *http.Request, repl *caddy.Replacer) guard.Policy {
	p := h.policy
	if h.limit == nil {
		return p
	}
	limit, err := parseLimit(h.limit(r, repl))
	if err != nil {
		h.badLimit.Do(func() {
			h.logger.Error("limit is no number: the default serves instead; said once until the config changes",
				zap.String("limit", string(h.Limit)), zap.Error(err), zap.Int("default", p.Limit))
		})
		return p
	}
	p.Limit = limit
	return p
}

// redirect sends a manifest request to a URL of its own.
func (h *Handler) redirect(w http.ResponseWriter, r *http.Request, d *decision) error {
	w = h.answer(w, r)
	h.allowOrigin(w, r)
	w.Header().Set("Cache-Control", "no-store")
	u := received(r)
	w.Header().Set("Location", playback.TokenLocation(u.EscapedPath(), u.RawQuery, d.claim.ID))
	w.WriteHeader(http.StatusFound)
	return nil
}

// refuse leaves the answer to the site's error routes. Where none matches,
// Caddy would answer without a body: then it writes the refusal itself.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, d *decision, refusal *problem.Problem) error {
	d.refusal = refusal
	refusal.SetInstance(requestID(r))
	answer := h.answer(w, r)
	h.allowOrigin(answer, r)
	h.logRefusal("refused", r, d)
	err := caddyhttp.Error(refusal.Status, refusal)
	srv, _ := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if srv == nil || srv.Errors != nil && anyMatches(srv.Errors.Routes, srv.Errors.WithError(asReceived(r), err)) {
		refusal.SetHeader(answer.Header())
		answer.word.hear(answer.Header())
		return err
	}
	refusal.Write(answer)
	return nil
}

func (h *Handler) logRefusal(what string, r *http.Request, d *decision) {
	h.logger.Info(what,
		zap.String("request_id", requestID(r)),
		zap.String("code", string(d.refusal.ErrorCode)),
		zap.String("detail", d.refusal.Detail),
		zap.Object("stream_guard", d))
}

// anyMatches reports whether a route for the request has something to run.
func anyMatches(routes caddyhttp.RouteList, r *http.Request) bool {
	for _, route := range routes {
		if matched, err := route.MatcherSets.AnyMatchWithError(r); err != nil || !matched {
			continue
		}
		for _, handler := range route.Handlers {
			sub, ok := handler.(*caddyhttp.Subroute)
			if !ok || anyMatches(sub.Routes, r) {
				return true
			}
		}
	}
	return false
}

// asReceived is the request before anything was rewritten, which is what error
// routes see.
func asReceived(r *http.Request) *http.Request {
	orig, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	if !ok {
		return r
	}
	r = r.Clone(r.Context())
	r.Method, r.URL, r.RequestURI = orig.Method, orig.URL, orig.RequestURI
	return r
}

func (h *Handler) storeFailed(r *http.Request, err error) {
	h.logger.Warn("the store cannot answer", zap.String("request_id", requestID(r)), zap.Error(err))
}

// requestID is {http.request.uuid}, which from now on is in the access log too.
func requestID(r *http.Request) string {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return ""
	}
	id, _ := repl.GetString("http.request.uuid")
	return id
}

// Verdicts beyond those of guard.Outcome, and of what is wrong with a request.
const (
	redirected  = "redirected"
	anonymous   = "anonymous"
	unavailable = "unavailable"
	gone        = "gone" // the client, before there was a verdict

	wouldReject  = "would_reject"
	wouldReplace = "would_replace"
)

var known = guard.Known.String()

// decision is what the gate thought of a request, for placeholders and logs.
type decision struct {
	claim       guard.Claim
	users       string // log_users
	verdict     string
	guard       guard.ID         // that the verdict is about; with guard.Share not the claim's
	held, limit int              // or unknown
	refusal     *problem.Problem // what the request was refused with
	err         error            // the client has gone before there was a verdict
}

// unknown is how many guards are held, or may be, where nobody has asked.
const unknown = -1

func orEmpty(n int) any {
	if n == unknown {
		return ""
	}
	return n
}

// attach makes the decision visible to the rest of the request, and to its
// access log if it has one. It returns the request's replacer.
func (d *decision) attach(r *http.Request, logged bool) *caddy.Replacer {
	ctx := r.Context()
	repl := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	repl.Map(d.placeholder)
	if logged {
		ctx.Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields).Add(zap.Object("stream_guard", d))
	}
	return repl
}

// count counts the decision, having named it after the refusal if it has no
// name yet.
func (d *decision) count(refusal *problem.Problem) {
	switch {
	case d.verdict == known:
		knownVerdicts.Inc()
		return
	case d.verdict != "":
	case refusal != nil:
		d.verdict = strings.ToLower(string(refusal.ErrorCode))
	case d.err != nil:
		d.verdict = gone
	}
	verdicts.WithLabelValues(d.verdict).Inc()
}

func (d *decision) placeholder(key string) (any, bool) {
	const prefix = "http.stream_guard."
	if len(key) <= len(prefix) || key[:len(prefix)] != prefix {
		return nil, false
	}
	switch key[len(prefix):] {
	case "verdict":
		return d.verdict, true
	case "user":
		return d.claim.User, true
	case "stream":
		return d.claim.Stream, true
	case "device":
		return d.claim.Device, true
	case "guard":
		return d.guardID(), true
	case "held":
		return orEmpty(d.held), true
	case "limit":
		return orEmpty(d.limit), true
	case "retry_after":
		if d.refusal == nil {
			return "", true
		}
		return d.refusal.RetryIn.String(), true
	case "problem":
		if d.refusal == nil {
			return "", true
		}
		b, err := json.Marshal(d.refusal)
		return string(b), err == nil
	}
	return nil, false
}

func (d *decision) guardID() string {
	for _, id := range []guard.ID{d.guard, d.claim.ID} {
		if id != (guard.ID{}) {
			return id.String()
		}
	}
	return ""
}

func (d *decision) loggedUser() string {
	if d.users == "plain" {
		return d.claim.User
	}
	sum := sha256.Sum256([]byte(d.claim.User))
	return hex.EncodeToString(sum[:8])
}

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (d *decision) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddString("verdict", d.verdict)
	if d.claim.User != "" {
		if d.users != "off" {
			enc.AddString("user", d.loggedUser())
		}
		enc.AddString("guard", d.guardID())
		enc.AddString("stream", d.claim.Stream)
		if d.held != unknown {
			enc.AddInt("held", d.held)
		}
		if d.limit != unknown {
			enc.AddInt("limit", d.limit)
		}
	}
	return nil
}
