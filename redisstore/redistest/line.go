package redistest

import (
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Line is a way to a server that gets into trouble when told to. It ends with
// the test.
type Line struct {
	Addr   string       // host:port, on loopback
	Broken atomic.Int64 // connections so far that Trouble.Breaks broke

	mu      sync.Mutex
	trouble Trouble
	changed chan struct{} // is closed when there is another trouble
}

// Trouble is what is the matter with a Line. The zero value is nothing.
type Trouble struct {
	Latency               time.Duration // each way
	NoRequests, NoAnswers bool          // none arrives before the trouble is over
	Breaks                int           // one in so many answers resets its connection instead of arriving
	Before                time.Time     // it is only that of connections made before; zero: of all
}

// NewLine returns a line without trouble.
func NewLine(tb testing.TB, to string) *Line {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	l := &Line{Addr: listener.Addr().String(), changed: make(chan struct{})}
	tb.Cleanup(func() {
		listener.Close()
		l.Set(Trouble{})
	})
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				client.Close()
				continue
			}
			go l.carry(client, server, false)
			go l.carry(server, client, true)
		}
	}()
	return l
}

// Set puts a trouble in the place of the one there is.
func (l *Line) Set(trouble Trouble) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trouble = trouble
	close(l.changed)
	l.changed = make(chan struct{})
}

// carry takes one direction of a connection.
func (l *Line) carry(from, to net.Conn, answers bool) {
	made := time.Now()
	type parcel struct {
		bytes []byte
		sent  time.Time
	}
	underway := make(chan parcel, 1024)
	go func() {
		defer close(underway)
		for {
			buf := make([]byte, 16<<10)
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			underway <- parcel{buf[:n], time.Now()}
		}
	}()
	for p := range underway {
		if !l.arrives(made, p.sent, answers) {
			// What was asked on it happens before the client knows, or never.
			from.(*net.TCPConn).CloseWrite()
			for range underway {
			}
			l.Broken.Add(1)
			to.(*net.TCPConn).SetLinger(0) // a reset
			break
		}
		to.Write(p.bytes)
	}
	to.Close()
	from.Close()
	for range underway { // lets its reader end
	}
}

// arrives waits until what was sent then arrives; if it does not, the
// connection breaks.
func (l *Line) arrives(made, sent time.Time, answer bool) bool {
	for {
		l.mu.Lock()
		now, changed := l.trouble, l.changed
		if !now.Before.IsZero() && !made.Before(now.Before) {
			now = Trouble{}
		}
		breaks := answer && now.Breaks > 0 && rand.IntN(now.Breaks) == 0
		l.mu.Unlock()
		switch late := time.Until(sent.Add(now.Latency)); {
		case answer && now.NoAnswers, !answer && now.NoRequests:
			<-changed
		case late > 0:
			select {
			case <-changed:
			case <-time.After(late):
			}
		case breaks:
			return false
		default:
			return true
		}
	}
}
