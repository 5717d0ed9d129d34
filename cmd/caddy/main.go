// Command caddy is Caddy with the stream_guard handler built in.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/streamguard/streamguard"
)

func main() {
	caddycmd.Main()
}
