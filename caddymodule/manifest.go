package caddymodule

import (
	"bytes"
	"errors"
	"hash/maphash"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/encode"
	"go.uber.org/zap"

	"github.com/streamguard/streamguard/gate"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/playback"
)

// serveManifest tells the passage what is in the manifest that next answers with,
// and writes the token into it, if there is one. It takes the whole of it, in a
// coding that the client accepts and the gate knows.
func (h *Handler) serveManifest(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, v *visit, token *guard.ID) error {
	m := &manifestWriter{ResponseWriter: w, head: r.Method == http.MethodHead, held: buffer()}
	defer free(m.held)
	refused := v.passage.Refusal != nil
	if refused { // unless it is a list: then what is held back is written after all
		m.ResponseWriter = nowhere(w.Header())
	}
	rewriting := rewriting{h, r, whole(r), place(r), token, v}
	switch err := next.ServeHTTP(m, r); {
	case refused && (err != nil || m.pass || m.status == 0):
		return h.refuse(withoutBody(w), r, v, v.passage.Refusal)
	case err != nil:
		return err
	}
	if m.large {
		rewriting.passes(errLarge)
	}
	if m.status >= 300 && m.status < 400 && m.status != http.StatusNotModified {
		v.passage.SentOn()
	}
	if m.pass || m.status == 0 {
		return nil
	}
	edited, coding := rewriting.edit(m.held.Bytes(), m.coding)
	if refusal := v.passage.Refusal; refusal != nil {
		return h.refuse(withoutBody(w), r, v, refusal)
	}
	m.ResponseWriter = w
	return m.finish(edited, coding)
}

// withoutBody is a writer that is to answer something else than the origin has.
func withoutBody(w http.ResponseWriter) http.ResponseWriter {
	for _, field := range []string{"Accept-Ranges", "Content-Encoding", "Content-Length", "Content-Type", "Etag", "Last-Modified", "Location"} {
		w.Header().Del(field)
	}
	return w
}

// whole has a request ask for all of its answer, in a coding that the gate knows:
// those of them that the client accepts.
func whole(r *http.Request) (accepted []string) {
	r.Header.Del("Range")
	r.Header.Del("If-Range")
	accepted = slices.DeleteFunc(encode.AcceptedEncodings(r, codings), func(coding string) bool { return !slices.Contains(codings, coding) })
	if r.Header.Del("Accept-Encoding"); len(accepted) > 0 {
		r.Header.Set("Accept-Encoding", strings.Join(accepted, ", "))
	}
	return accepted
}

// isAssetList reports whether a request is for what an interstitial of HLS may name
// as its list of assets (RFC 8216bis, appendix D.2).
func (h *Handler) isAssetList(r *http.Request, tokened bool) bool {
	return r.Method == http.MethodGet && (tokened && strings.EqualFold(path.Ext(r.URL.Path), ".json") || playback.PrimaryID(r) != "")
}

// serveAssets writes the token of the playback that is interrupted into a list of
// assets. Nothing is counted: the assets are.
func (h *Handler) serveAssets(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, token guard.ID, tokened bool) error {
	g := gate.Request{HTTP: r, Token: &token}
	h.fillWho(&g, r, r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer))
	if !tokened {
		if g.User == "" || g.Invalid != nil || h.gate.Naming != gate.ByToken {
			return h.passOn(w, r, next)
		}
		token = guard.DeriveID(g.User, g.Device, playback.PrimaryID(r))
	}
	m := &manifestWriter{ResponseWriter: w, held: buffer(), only: isJSON}
	defer free(m.held)
	accepted, at := whole(r), place(r)
	if err := next.ServeHTTP(m, r); err != nil || m.pass || m.status == 0 {
		return err
	}
	text := buffer()
	defer free(text)
	if unpack(text, m.held.Bytes(), m.coding) != nil {
		return m.finish(nil, "")
	}
	edited, assets, ok := h.read.kinds.AddTokenToAssets(text.Bytes(), at, token)
	if ok {
		h.interrupts(&g, assets)
	}
	if !ok || bytes.Equal(edited, text.Bytes()) {
		return m.finish(nil, "")
	}
	return m.finish(packed(edited, m.coding, accepted))
}

// packed packs what was unpacked, if the client accepts the coding.
func packed(edited []byte, coding string, accepted []string) ([]byte, string) {
	if !slices.Contains(accepted, coding) {
		coding = ""
	}
	return pack(edited, coding), coding
}

// interrupts tells the gate of the streams of a playback's interstitials.
func (h *Handler) interrupts(g *gate.Request, assets []string) {
	if len(assets) == 0 || g.Token == nil || g.User == "" {
		return
	}
	asset, to := *g.HTTP, *g.HTTP.URL
	asset.URL = &to
	repl := asset.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	for _, path := range assets {
		to.Path = path
		h.gate.Interrupts(g, playback.Label(h.read.stream(&asset, repl)))
	}
}

func isJSON(header http.Header) bool {
	mediaType, _, _ := strings.Cut(header.Get("Content-Type"), ";")
	mediaType = strings.ToLower(strings.TrimSpace(mediaType))
	return mediaType == "application/json" || strings.HasSuffix(mediaType, "+json") || mediaType == "text/json"
}

// rewriting is what becomes of a manifest.
type rewriting struct {
	*Handler
	*http.Request
	accepted []string       // codings
	at       playback.Place // as received
	token    *guard.ID      // nil for none
	visit    *visit
}

// hosts are those that a request is for: its own, and what it was for when it
// came to the proxies in front, as far as the server trusts them.
func hosts(r *http.Request) []string {
	hosts := []string{r.Host}
	if trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool); trusted {
		for _, list := range r.Header["X-Forwarded-Host"] {
			for host := range strings.SplitSeq(list, ",") {
				hosts = append(hosts, strings.TrimSpace(host))
			}
		}
	}
	return hosts
}

// edit returns the body with the token in it, and its coding; nil where the body
// is to pass as it is.
func (r rewriting) edit(body []byte, coding string) (edited []byte, its string) {
	defer func() { r.recovered(r.Request, recover(), func(error) { edited, its = nil, "" }) }()
	sum := r.unwritten.sum(coding, r.at, r.token, body)
	if r.unwritten.has(sum) {
		if said, known := r.gate.Said(&r.visit.request); known {
			r.tell(said)
			return nil, ""
		}
	}
	text := buffer()
	defer free(text)
	if err := unpack(text, body, coding); err != nil {
		r.passes(err)
		r.unwritten.add(sum)
		r.tell(playback.Survey{})
		return nil, ""
	}
	r.tell(r.read.kinds.Survey(text.Bytes(), r.at))
	assets := r.read.kinds.Assets(text.Bytes(), r.at)
	r.interrupts(&r.visit.request, assets)
	if r.token != nil {
		switch edited := r.read.kinds.AddToken(text.Bytes(), r.at, *r.token); {
		case edited == nil:
			r.passes(errLarge)
		case !bytes.Equal(edited, text.Bytes()):
			return packed(edited, coding, r.accepted)
		}
	}
	if assets == nil && !bytes.Contains(text.Bytes(), []byte("QUERYPARAM")) { // or it depends on the query, which may be each viewer's own
		r.unwritten.add(sum)
	}
	return nil, ""
}

// tell tells the passage what is in the manifest, and of a manifest that stands in.
func (r rewriting) tell(said playback.Survey) {
	p := r.visit.passage
	p.Manifest(r.Context(), said)
	if !p.StandsIn {
		return
	}
	countDecision(&p.Decision, r.visit.request.Mode)
	standIns.Inc()
	r.reports.once("stand-in", func() {
		text := "none of a manifest's media come this way, so the manifest takes the slot itself and keeps it by its reloads; said once until the config changes"
		if !said.Live {
			text = "none of a manifest's media come this way, so the manifest takes the slot itself; it is not live, and its playback counts for ttl only; said once until the config changes"
		}
		r.logger.Warn(text, zap.String("path", r.URL.Path), zap.String("option", "kind, if its media are counted here under another name"))
	})
}

var errLarge = errors.New("it has more than " + strconv.Itoa(playback.MaxManifest) + " bytes")

// passes says why a manifest passes as it is, although its URLs may lose the token.
func (r rewriting) passes(err error) {
	r.logger.Warn("the token cannot be written into a manifest", zap.String("request_id", requestID(r.Request)), zap.String("path", r.URL.Path), zap.Error(err))
}

// unwritten remembers manifests into which nothing has to be written: most live
// playlists are such, and all viewers of a channel reload the same. It keeps the
// last sum of each place. The seed is random, so that nobody can make up a
// manifest with the sum of another.
type unwritten struct {
	seed maphash.Seed
	sums [4096]atomic.Uint64
}

// sum is that of all that the answer depends on but the query: of the token only
// its place in the path.
func (u *unwritten) sum(coding string, at playback.Place, token *guard.ID, body []byte) uint64 {
	var hash maphash.Hash
	hash.SetSeed(u.seed)
	path := at.Path
	if token != nil {
		path = strings.Replace(path, token.String(), "", 1)
	}
	for _, s := range append([]string{coding, path}, at.Hosts...) {
		hash.WriteString(s)
		hash.WriteByte(0)
	}
	hash.Write(body)
	return hash.Sum64()
}

func (u *unwritten) place(sum uint64) *atomic.Uint64 { return &u.sums[sum%uint64(len(u.sums))] }
func (u *unwritten) has(sum uint64) bool             { return u.place(sum).Load() == sum }
func (u *unwritten) add(sum uint64)                  { u.place(sum).Store(sum) }

// manifestWriter holds a manifest back until it is whole.
type manifestWriter struct {
	http.ResponseWriter
	only   func(http.Header) bool // which answers are held back; nil for all
	head   bool
	status int
	coding string // gzip, zstd, or "" for none
	pass   bool   // it is none, or too large: nothing is held back
	large  bool
	held   *bytes.Buffer
}

func (w *manifestWriter) WriteHeader(status int) {
	if status < 200 {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	if w.status != 0 {
		return
	}
	w.status = status
	header := w.Header()
	coding, known := codingOf(header)
	w.coding = coding
	switch length, _ := strconv.Atoi(header.Get("Content-Length")); {
	case status != http.StatusOK || !known || w.only != nil && !w.only(header):
		w.release()
	case w.head:
		header.Del("Content-Length")
		w.release()
	case length <= playback.MaxManifest:
		w.held.Grow(max(length, 0))
	}
}

func (w *manifestWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if !w.pass && w.held.Len()+len(b) > playback.MaxManifest {
		w.large = true
		w.release()
		if _, err := w.ResponseWriter.Write(w.held.Bytes()); err != nil {
			return 0, err
		}
	}
	if w.pass {
		return w.ResponseWriter.Write(b)
	}
	return w.held.Write(b)
}

// release stops holding back.
func (w *manifestWriter) release() {
	w.pass = true
	w.ResponseWriter.WriteHeader(w.status)
}

// finish writes what was held back: edited, in this coding, or as it is where that
// is nil.
func (w *manifestWriter) finish(edited []byte, coding string) error {
	header, body := w.Header(), w.held.Bytes()
	header.Del("Accept-Ranges")
	if edited != nil {
		body = edited
		for _, field := range []string{"Content-Encoding", "Digest", "Content-Digest", "Repr-Digest", "Content-Md5"} {
			header.Del(field)
		}
		if coding != "" {
			header.Set("Content-Encoding", coding)
		}
		// It says when the origin's text is the same, not the bytes here.
		if tag := header.Get("Etag"); strings.HasPrefix(tag, `"`) {
			header.Set("Etag", "W/"+tag)
		}
	}
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.ResponseWriter.WriteHeader(w.status)
	_, err := w.ResponseWriter.Write(body)
	return err
}

// keepReach gives a cookie that has no Path the one that it would have if there
// were no token in the path that it was asked for with (RFC 6265, section 5.1.4).
func keepReach(header http.Header, path string) {
	folder, _, _ := playback.CutToken(path)
	folder = folder[:max(strings.LastIndexByte(folder, '/'), 1)]
	for i, cookie := range header["Set-Cookie"] {
		if !hasPath.MatchString(cookie) && !strings.Contains(folder, ";") {
			header["Set-Cookie"][i] = cookie + "; Path=" + folder
		}
	}
}

var hasPath = regexp.MustCompile(`(?i);\s*path\s*=\s*/`)

// FlushError is what http.ResponseController flushes with. What is held back
// stays so.
func (w *manifestWriter) FlushError() error {
	if !w.pass {
		return nil
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (w *manifestWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func buffer() *bytes.Buffer { return buffers.Get().(*bytes.Buffer) }

// free gives a buffer back, unless it is so large that it would not be again.
func free(b *bytes.Buffer) {
	if b.Cap() <= 1<<20 {
		b.Reset()
		buffers.Put(b)
	}
}
