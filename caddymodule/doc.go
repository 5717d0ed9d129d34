// Package caddymodule is stream_guard as Caddy knows it.
package caddymodule
