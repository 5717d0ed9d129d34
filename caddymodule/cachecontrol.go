package caddymodule

import (
	"io"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// privateWriter keeps shared caches from storing the response: they would
// serve it to others without asking the gate. A browser's own cache is not
// concerned.
type privateWriter struct {
	caddyhttp.ResponseWriterWrapper
	wroteHeader bool
	private     [1]string // the value where there was none
}

func (w *privateWriter) WriteHeader(status int) {
	if !w.wroteHeader && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.wroteHeader = true
		header := w.Header()
		if makePrivate(header); header["Cache-Control"] == nil {
			w.private[0] = "private"
			header["Cache-Control"] = w.private[:]
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *privateWriter) Write(b []byte) (int, error) {
	if !w.wroteHeader {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}

// ReadFrom lets the kernel copy files.
func (w *privateWriter) ReadFrom(r io.Reader) (int64, error) {
	if !w.wroteHeader {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError is what http.ResponseController flushes with.
func (w *privateWriter) FlushError() error {
	if !w.wroteHeader {
		w.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// makePrivate turns the response's Cache-Control (RFC 9111, section 5.2.2) into
// one for its receiver alone. Where there is none, a shared cache may still
// store what has a validator: then the caller adds private.
func makePrivate(h http.Header) {
	// Caches of the sender's own choosing (RFC 9213) are shared by nature.
	delete(h, "Cdn-Cache-Control")
	delete(h, "Surrogate-Control")
	delete(h, "X-Accel-Expires") // nginx prefers it to Cache-Control
	lines := h["Cache-Control"]
	if lines == nil {
		return
	}
	kept := []string{"private"}
	for _, line := range lines {
		for directive := range strings.SplitSeq(line, ",") {
			directive = strings.TrimSpace(directive)
			name, _, _ := strings.Cut(strings.ToLower(directive), "=")
			switch name {
			case "", "private", "public", "s-maxage", "proxy-revalidate":
			default:
				kept = append(kept, directive)
			}
		}
	}
	h["Cache-Control"] = []string{strings.Join(kept, ", ")}
}
