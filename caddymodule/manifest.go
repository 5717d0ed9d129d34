package caddymodule

import (
	"bytes"
	"net/http"
	"strconv"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/streamguard/streamguard/guard"
)

// maxManifest is how many bytes of a manifest are held back to write a token
// into. A larger one passes as it is.
const maxManifest = 4 << 20

// serveManifest writes the token into the manifest that next answers with.
func (h *Handler) serveManifest(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, token guard.ID) error {
	// It takes the whole text; what compresses (encode) stands in front of the gate.
	for _, name := range []string{"Accept-Encoding", "Range", "If-Range"} {
		r.Header.Del(name)
	}
	path, host := received(r).EscapedPath(), r.Host
	m := &manifestWriter{ResponseWriter: w, head: r.Method == http.MethodHead}
	if err := next.ServeHTTP(m, r); err != nil {
		return err
	}
	return m.finish(func(body []byte) []byte { return h.read.kinds.AddToken(body, path, host, token) })
}

// manifestWriter holds a manifest back until it is whole.
type manifestWriter struct {
	http.ResponseWriter
	head   bool
	status int
	pass   bool // it is none, or too large: nothing is held back
	buf    bytes.Buffer
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
	encoding := w.Header().Get("Content-Encoding")
	switch {
	case status != http.StatusOK || encoding != "" && encoding != "identity":
		w.release()
	case w.head:
		w.Header().Del("Content-Length")
		w.release()
	}
}

func (w *manifestWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if !w.pass && w.buf.Len()+len(b) > maxManifest {
		w.release()
		if _, err := w.ResponseWriter.Write(w.buf.Bytes()); err != nil {
			return 0, err
		}
		w.buf = bytes.Buffer{}
	}
	if w.pass {
		return w.ResponseWriter.Write(b)
	}
	return w.buf.Write(b)
}

// release stops holding back.
func (w *manifestWriter) release() {
	w.pass = true
	w.ResponseWriter.WriteHeader(w.status)
}

// finish writes what was held back, changed.
func (w *manifestWriter) finish(change func([]byte) []byte) error {
	if w.pass || w.status == 0 {
		return nil
	}
	body := change(w.buf.Bytes())
	header := w.Header()
	header.Set("Content-Length", strconv.Itoa(len(body)))
	for _, digest := range []string{"Digest", "Content-Digest", "Repr-Digest", "Content-Md5"} {
		header.Del(digest)
	}
	w.ResponseWriter.WriteHeader(w.status)
	_, err := w.ResponseWriter.Write(body)
	return err
}

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
