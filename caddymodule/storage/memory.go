package storage

import (
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/memstore"
)

func init() { caddy.RegisterModule(Memory{}) }

// Memory keeps guards in process memory: exact for one Caddy, kept over config
// reloads, gone when it stops. It holds up to a million users.
type Memory struct {
	// Handlers with the same name share their guards. Default "".
	Name string `json:"name,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (Memory) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "stream_guard.stores.memory",
		New: func() caddy.Module { return new(Memory) },
	}
}

// Key implements Opener.
func (m *Memory) Key() any { return *m }

// Open implements Opener.
func (*Memory) Open(func(string, bool)) (guard.Store, error) { return memstore.New(), nil }

// String implements Opener.
func (m *Memory) String() string { return strings.TrimSpace("memory " + m.Name) }

// UnmarshalCaddyfile reads
//
//	memory [<name>]
func (m *Memory) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // memory
	if d.NextArg() {
		m.Name = d.Val()
	}
	if d.NextArg() {
		return d.Errf("memory: %q after the name", d.Val())
	}
	if d.NextBlock(d.Nesting()) {
		return d.Errf("the memory store has no option %q", d.Val())
	}
	return nil
}

var (
	_ Opener                = (*Memory)(nil)
	_ caddyfile.Unmarshaler = (*Memory)(nil)
)
