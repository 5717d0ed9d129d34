package caddymodule

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/streamguard/streamguard/memstore"
)

// sharedPort warns, when a config has been started, if another process listens at
// an address of the gate's server. Caddy's listeners let a second Caddy in, and the
// kernel gives each a part of the connections: with guards in memory there are two
// counts. It looks after the start, for a config that is only validated listens
// nowhere. It knows Linux only.
type sharedPort struct {
	logger *zap.Logger
	srv    *caddyhttp.Server
}

// watchPort has a sharedPort look, for one gate of each server.
func (h *Handler) watchPort(ctx caddy.Context, srv *caddyhttp.Server) error {
	if _, inMemory := h.store.Store.(*memstore.Store); !inMemory || h.neighbours == nil || h.neighbours.gates.Load() > 1 {
		return nil
	}
	app, err := ctx.AppIfConfigured("events") // as it is by every http app
	if err != nil {
		return nil
	}
	return app.(*caddyevents.App).On("started", &sharedPort{ctx.Logger(), srv})
}

// Handle implements caddyevents.Handler.
func (s *sharedPort) Handle(context.Context, caddy.Event) error {
	var all []socket
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		text, err := os.ReadFile(table)
		if err != nil {
			return nil // another system
		}
		all = append(all, listeners(string(text))...)
	}
	own := make(map[string]bool)
	files, _ := filepath.Glob("/proc/self/fd/*")
	for _, file := range files {
		if to, err := os.Readlink(file); err == nil {
			own[to] = true
		}
	}
	var ports []string
	for _, address := range s.srv.Listen {
		if a, err := caddy.ParseNetworkAddress(address); err == nil {
			for port := uint64(a.StartPort); port <= uint64(a.EndPort); port++ {
				ports = append(ports, strconv.FormatUint(port, 10))
			}
		}
	}
	for _, l := range all {
		if slices.Contains(ports, l.port) && !own["socket:["+l.inode+"]"] && slices.ContainsFunc(all, func(o socket) bool { return own["socket:["+o.inode+"]"] && o.meets(l) }) {
			s.logger.Warn("another process listens on the same port and gets a part of the requests: a second Caddy counts them by itself, unless both have one Redis as store",
				zap.String("port", l.port))
			return nil
		}
	}
	return nil
}

// socket is one that listens.
type socket struct{ host, port, inode string }

// listeners reads a table of the kernel's (/proc/net/tcp).
func listeners(table string) (all []socket) {
	const state, listening = 3, "0A"
	for lines := bufio.NewScanner(strings.NewReader(table)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 || fields[state] != listening {
			continue
		}
		host, hex, _ := strings.Cut(fields[1], ":")
		port, err := strconv.ParseUint(hex, 16, 16)
		if err != nil {
			continue
		}
		all = append(all, socket{host, strconv.FormatUint(port, 10), fields[9]})
	}
	return all
}

// meets reports whether there are connections that either may get.
func (l socket) meets(o socket) bool {
	return l.port == o.port && (l.host == o.host || l.anywhere() || o.anywhere())
}

// anywhere reports whether it is at all addresses.
func (l socket) anywhere() bool { return strings.Trim(l.host, "0") == "" }

var _ caddyevents.Handler = (*sharedPort)(nil)
