package redisstore

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/redisstore/redistest"
)

// proxy is one to a server that hangs up at a word.
func proxy(t *testing.T, addr, word string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", addr)
			if err != nil {
				client.Close()
				continue
			}
			go func() {
				defer client.Close()
				io.Copy(client, server)
			}()
			go func() {
				defer server.Close()
				for buf := make([]byte, 64<<10); ; {
					n, err := client.Read(buf)
					if err != nil || bytes.Contains(buf[:n], []byte(word)) {
						return
					}
					server.Write(buf[:n])
				}
			}()
		}
	}()
	return listener.Addr().String()
}

// A store that does not hear of endings elsewhere says so, once, and does all
// else; what it can do without is missed by nobody.
func TestDeafStoreSaysSoOnce(t *testing.T) {
	for name, c := range map[string]struct {
		args  []string // of the server
		hides string   // a word at which a proxy hangs up
		want  string   // why it is deaf, or nothing
	}{
		"SUBSCRIBE is not known":       {[]string{"--rename-command", "SUBSCRIBE", ""}, "", "unknown command"},
		"SUBSCRIBE is hung up on":      {nil, "subscribe", "EOF"},
		"HELLO is not known":           {[]string{"--rename-command", "HELLO", ""}, "", ""},
		"CLIENT is not known":          {[]string{"--rename-command", "CLIENT", ""}, "", ""},
		"INFO is not known":            {[]string{"--rename-command", "INFO", ""}, "", ""},
		"only scripts are known":       {renamed("HELLO", "CLIENT", "INFO", "SUBSCRIBE", "CLUSTER", "CONFIG", "ROLE"), "", "unknown command"},
		"no right to the channel":      {strings.Fields("--user default on nopass ~* resetchannels +@all"), "", "NOPERM"},
		"no right to subscribe":        {strings.Fields("--user default on nopass ~* &* +@all -subscribe"), "", "NOPERM"},
		"everything is as it ought be": {nil, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := redistest.Start(t, c.args...).Addr
			if c.hides != "" {
				addr = proxy(t, addr, c.hides)
			}
			deaf := make(chan error, 1000)
			s := open(t, Options{Addresses: []string{addr}, OnDeaf: func(err error) { deaf <- err }})
			if !s.Deaf() {
				t.Error("it hears before it listens")
			}
			go s.Watch(t.Context(), func(guard.News) {})
			if c.want == "" {
				until(t, "it hears", func() bool { return !s.Deaf() })
			} else if err := <-deaf; !strings.Contains(err.Error(), c.want) || !s.Deaf() {
				t.Errorf("deaf: %t, as %v, want %q", s.Deaf(), err, c.want)
			}
			acquires(t, s, guard.Admitted, "1", guard.Play)
			if n := s.Nodes(t.Context())[0]; n.Err != nil {
				t.Errorf("it is not up: %v", n.Err)
			}
			if probed := s.Probe(t.Context()); probed[0].Err != nil {
				t.Errorf("probe: %v", probed[0].Err)
			}
			if len(deaf) > 0 {
				t.Errorf("it said again: %v", <-deaf)
			}
		})
	}
}

func renamed(commands ...string) (args []string) {
	for _, c := range commands {
		args = append(args, "--rename-command", c, "")
	}
	return args
}
