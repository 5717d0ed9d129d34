package caddymodule

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/streamguard/streamguard/gate"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// sender is the writer of an answer to a request for media. Where that says no length
// it may be a channel that never ends: then it is cut when its playback ends.
type sender struct {
	http.ResponseWriter
	passage *gate.Passage
	server  http.ResponseWriter // below all others, which set deadlines for each write; nil where a length is said
	status  int                 // 0 before there is one
}

var errCut = errors.New("the playback has ended, and its answer with it")

func (s *sender) WriteHeader(status int) {
	if s.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		switch s.status = status; {
		case status >= http.StatusBadRequest:
		case status/100 == 2 && s.Header()["Content-Length"] == nil && status != http.StatusNoContent:
			s.server = lowestOf(s.ResponseWriter)
			s.passage.SendsOn(s)
		default:
			s.passage.Sends()
		}
	}
	s.ResponseWriter.WriteHeader(status)
}

func (s *sender) Write(b []byte) (int, error) {
	if s.status == 0 {
		s.WriteHeader(http.StatusOK)
	}
	if s.server != nil && s.passage.IsCut() {
		panic(http.ErrAbortHandler)
	}
	return s.ResponseWriter.Write(b)
}

// ReadFrom lets the kernel copy files.
func (s *sender) ReadFrom(r io.Reader) (int64, error) {
	if s.status == 0 {
		s.WriteHeader(http.StatusOK)
	}
	if to, ok := s.ResponseWriter.(io.ReaderFrom); ok && s.server == nil {
		return to.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{s}, r)
}

// FlushError is what http.ResponseController flushes with. It may be called by others
// than the handler.
func (s *sender) FlushError() error {
	if s.status == 0 {
		s.WriteHeader(http.StatusOK)
	}
	if s.server != nil && s.passage.IsCut() {
		return errCut
	}
	return http.NewResponseController(s.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (s *sender) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// Unsend implements gate.Unsender.
func (s *sender) Unsend() {
	http.NewResponseController(s.server).SetWriteDeadline(time.Unix(1, 0))
}

// lowestOf is the server's own writer.
func lowestOf(w http.ResponseWriter) http.ResponseWriter {
	for below := unwrap(w); below != nil; below = unwrap(w) {
		w = below
	}
	return w
}

// send has what is behind answer a request for media.
func (h *Handler) send(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, v *visit) error {
	s, whole := &v.sender, false
	s.ResponseWriter, s.passage = w, v.passage
	v.passage.Answers()
	defer func() {
		if v.passage.Answered(whole, r.Context().Err() != nil && !v.word.near.timedOut) {
			panic(http.ErrAbortHandler) // its connection is not to be used again
		}
	}()
	err := next.ServeHTTP(s, r)
	whole = err == nil
	return err
}
