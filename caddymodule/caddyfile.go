package caddymodule

import (
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/streamguard/streamguard/guard"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("stream_guard", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		g := new(Handler)
		return g, g.UnmarshalCaddyfile(h.Dispenser)
	})
	// Behind every way of authenticating (forward_auth) and of cleaning what the
	// client sent (request_header), and behind what compresses manifests after a
	// token was written into them (encode); in front of everything that answers.
	httpcaddyfile.RegisterDirectiveOrder("stream_guard", httpcaddyfile.After, "encode")
}

// UnmarshalCaddyfile reads
//
//	stream_guard [<matcher>] {
//		mode           enforce|observe
//		user           <placeholder>
//		anonymous      deny|allow
//		stream         dir <n>|name|cmcd|path_regexp <re>|<placeholder>
//		playback       auto|path|<placeholder>
//		device         <placeholder>
//		limit          <n>|<placeholder>
//		limit          <n> per stream|device|<label>
//		label          <name> <placeholder>
//		per_device     <n>
//		on_limit       reject|replace_device|replace_oldest
//		interval       <duration>
//		ttl            <duration>
//		reclaim_lapsed
//		api            <path>|off
//		store          memory|redis|<module> [<args...>] [{ ... }]
//		on_store_error local|allow|deny
//		tarpit         <duration>
//		cors           <origins...>
//		cache_control  private|keep
//		log_users      hash|plain|off
//		reveal_guards
//		media          <extensions...>
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // stream_guard
	if d.NextArg() {
		return d.Errf("stream_guard: takes a block, not %q", d.Val())
	}
	words := map[string]*string{
		"mode":           &h.Mode,
		"user":           &h.User,
		"anonymous":      &h.Anonymous,
		"playback":       &h.Playback,
		"device":         &h.Device,
		"api":            &h.API,
		"on_limit":       &h.OnLimit,
		"on_store_error": &h.OnStoreError,
		"cache_control":  &h.CacheControl,
		"log_users":      &h.LogUsers,
	}
	return options(d, words, func(option string) error {
		switch option {
		case "stream":
			if h.Stream = strings.Join(d.RemainingArgs(), " "); h.Stream == "" {
				return d.Err("stream: empty")
			}
		case "limit":
			return h.unmarshalLimit(d)
		case "label":
			return h.unmarshalLabel(d)
		case "per_device":
			if err := number(d, &h.PerDevice); err != nil {
				return err
			}
			if h.PerDevice == 0 {
				return d.Errf("per_device: %d is not a whole number from 1 to %d", h.PerDevice, guard.MaxLimit)
			}
		case "interval":
			return duration(d, &h.Interval)
		case "ttl":
			return duration(d, &h.TTL)
		case "tarpit":
			return duration(d, &h.Tarpit)
		case "reclaim_lapsed":
			return flag(d, &h.ReclaimLapsed)
		case "reveal_guards":
			return flag(d, &h.RevealGuards)
		case "cors":
			if h.CORS = d.RemainingArgs(); len(h.CORS) == 0 {
				return d.Err("cors: takes at least one origin")
			}
		case "media":
			if h.Media = d.RemainingArgs(); len(h.Media) == 0 {
				return d.Err("media: takes at least one file extension")
			}
		case "store":
			return h.unmarshalStore(d)
		default:
			return d.Errf("unrecognized option %q", option)
		}
		return nil
	}, "limit", "label")
}

func (h *Handler) unmarshalStore(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.Err("store: takes the name of a store, such as memory or redis")
	}
	name := d.Val()
	if _, err := caddy.GetModule("stream_guard.stores." + name); err != nil {
		return d.Errf("store: %q is not one of %s", name, strings.Join(storeNames(), ", "))
	}
	store, err := caddyfile.UnmarshalModule(d, "stream_guard.stores."+name)
	if err != nil {
		return err
	}
	h.StoreRaw = caddyconfig.JSONModuleObject(store, "store", name, nil)
	return nil
}

// storeNames are the stores that this binary has.
func storeNames() (names []string) {
	for _, module := range caddy.GetModules("stream_guard.stores") {
		names = append(names, module.ID.Name())
	}
	return names
}

// options reads a block: those of its options that are one word here, the others
// by read. Only the repeatable ones may be given twice.
func options(d *caddyfile.Dispenser, words map[string]*string, read func(option string) error, repeatable ...string) error {
	given := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		if given[option] && !slices.Contains(repeatable, option) {
			return d.Errf("%s is given twice", option)
		}
		given[option] = true
		if text, ok := words[option]; ok {
			if err := word(d, text); err != nil {
				return err
			}
		} else if err := read(option); err != nil {
			return err
		}
	}
	return nil
}

// word reads an option with one value.
func word(d *caddyfile.Dispenser, into *string) error {
	option := d.Val()
	if !d.AllArgs(into) {
		return d.Errf("%s: takes one value", option)
	}
	if *into == "" {
		return d.Errf("%s: empty", option)
	}
	return nil
}

// flag reads an option without a value.
func flag(d *caddyfile.Dispenser, into *bool) error {
	if option := d.Val(); d.NextArg() {
		return d.Errf("%s: takes no value", option)
	}
	*into = true
	return nil
}

func number(d *caddyfile.Dispenser, into *int) error {
	option := d.Val()
	var arg string
	if err := word(d, &arg); err != nil {
		return err
	}
	n, err := strconv.Atoi(arg)
	if err != nil {
		return d.Errf("%s: %q is not a number", option, arg)
	}
	*into = n
	return nil
}

func duration(d *caddyfile.Dispenser, into *caddy.Duration) error {
	option := d.Val()
	var arg string
	if err := word(d, &arg); err != nil {
		return err
	}
	parsed, err := caddy.ParseDuration(arg)
	if err != nil {
		return d.Errf("%s: %q is not a duration like 60s", option, arg)
	}
	if parsed <= 0 {
		return d.Errf("%s: %q is not longer than 0s", option, arg)
	}
	*into = caddy.Duration(parsed)
	return nil
}
