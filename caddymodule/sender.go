package caddymodule

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/streamguard/streamguard/connection"
	"github.com/streamguard/streamguard/gate"
)

// sender is the writer of an answer to a request for media. Where that says no length
// it may be a channel that never ends: then it is cut when its playback ends.
type sender struct {
	http.ResponseWriter
	passage *gate.Passage
	server  http.ResponseWriter // below all others, which set deadlines for each write; nil where a length is said
	status  int                 // 0 before there is one

	// Over HTTP/2, else nil: the connection that all its answers share.
	conn   *connection.Conn
	idle   time.Duration // within which a write has to get somewhere; 0 is without end
	writes atomic.Uint32 // that have begun, and that have ended: odd while one is under way
	met    uint32        // writes as they were
	since  time.Time     // when
	unsent int
}

var errCut = errors.New("the playback has ended, and its answer with it")

func (s *sender) WriteHeader(status int) {
	if s.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		switch s.status = status; {
		case status >= http.StatusBadRequest:
		case status/100 == 2 && s.Header()["Content-Length"] == nil && status != http.StatusNoContent:
			s.server = lowestOf(s.ResponseWriter)
			s.passage.SendsOn()
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
	s.turn()
	n, err := s.ResponseWriter.Write(b)
	s.turn()
	return n, err
}

// turn is the beginning or the end of a write.
func (s *sender) turn() {
	if s.conn != nil {
		s.writes.Add(1)
	}
}

// ReadFrom lets the kernel copy files.
func (s *sender) ReadFrom(r io.Reader) (int64, error) {
	if s.status == 0 {
		s.WriteHeader(http.StatusOK)
	}
	if to, ok := s.ResponseWriter.(io.ReaderFrom); ok && s.server == nil && s.conn == nil {
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
	s.turn()
	err := http.NewResponseController(s.ResponseWriter).Flush()
	s.turn()
	return err
}

// Unwrap is for http.ResponseController.
func (s *sender) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// Unsend implements gate.Sender.
func (s *sender) Unsend() {
	http.NewResponseController(s.server).SetWriteDeadline(time.Unix(1, 0))
	if s.unsent++; s.unsent == enough && s.writes.Load()%2 == 1 {
		go s.conn.Break()
	}
}

const (
	enough = 9               // times that a write is failed before its connection is broken
	more   = 2 * time.Second // than a server gives a write has it to fail
)

// Met implements gate.Sender. Where a connection of HTTP/2 takes nothing more, since its
// client has vanished, the server's timeout ends no write: the stream is reset by a frame
// that waits behind it. Then the connection is broken.
func (s *sender) Met() {
	if s.idle == 0 {
		return
	}
	switch writes := s.writes.Load(); {
	case writes%2 == 0 || writes != s.met:
		s.met, s.since = writes, time.Now()
	case time.Since(s.since) >= s.idle+more:
		s.idle = 0
		go s.conn.Break()
	}
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
	if r.ProtoMajor == 2 {
		if s.conn = connection.From(r.Context()); s.conn != nil && h.idleWriter {
			if _, idle := caddyhttp.IdleTimeoutsFromContext(r.Context()); idle != nil {
				s.idle = idle.Deadline.Timeout
			}
		}
	}
	v.passage.Answers(s)
	defer func() {
		if v.passage.Answered(whole, r.Context().Err() != nil && !v.word.near.timedOut) {
			panic(http.ErrAbortHandler) // its connection is not to be used again
		}
	}()
	err := next.ServeHTTP(s, r)
	whole = err == nil
	return err
}
