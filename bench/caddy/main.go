// Command caddy is Caddy with stream_guard and with what it is measured
// against.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "github.com/mholt/caddy-ratelimit"

	_ "github.com/streamguard/streamguard"
)

func main() {
	caddycmd.Main()
}
