// Package streamguard counts the videos each user is watching and refuses the
// one too many. Importing it adds the stream_guard handler to Caddy, so that
// `xcaddy build --with github.com/streamguard/streamguard` is all it takes.
package streamguard

import (
	_ "github.com/streamguard/streamguard/caddymodule"
	_ "github.com/streamguard/streamguard/caddymodule/command"
)
