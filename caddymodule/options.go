package caddymodule

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/streamguard/streamguard/caddymodule/block"
	"github.com/streamguard/streamguard/caddymodule/storage"
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
//		user           <placeholder> [lower] [nfc]
//		limit          <n>|unlimited|<placeholder> [or <n>|unlimited] [per <what>] [replace [device]]
//		stream         dir <n>|name|cmcd|path_regexp <re>|<placeholder>
//		playback       auto|stream|<placeholder>
//		device         <placeholder> [required]
//		label          <name> <placeholder>
//		kind           manifest|media|other <pattern>...
//		mode           enforce|observe|<placeholder>
//		anonymous      deny|allow
//		interval       <duration>
//		ttl            <duration>
//		reclaim        closed|lapsed|off
//		store          memory|redis|<module> [<args...>] [{ ... }]
//		on_store_error local|allow|deny
//		api            <path>|off
//		cors           <origin>...
//		cache_control  private|keep
//		log_users      hash|plain|off
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // stream_guard
	directive := d.Token()
	if d.NextArg() {
		return d.Errf("stream_guard: takes a block, not %q", d.Val())
	}
	words := map[string]*string{"playback": &h.Playback, "api": &h.API}
	for _, w := range h.words() {
		words[w.option] = w.value
	}
	lines := make(map[string]caddyfile.Token)
	err := block.Options(d, words, func(option string) error {
		switch option {
		case "user":
			args := d.RemainingArgs()
			if len(args) == 0 || args[0] == "" {
				return d.Err("user: takes a placeholder")
			}
			h.User, h.UserFold = args[0], args[1:]
		case "limit":
			return h.unmarshalLimit(d)
		case "stream":
			if h.Stream = strings.Join(d.RemainingArgs(), " "); h.Stream == "" {
				return d.Err("stream: empty")
			}
		case "device":
			args := d.RemainingArgs()
			if len(args) == 0 || args[0] == "" {
				return d.Err("device: takes a placeholder")
			}
			h.Device, h.DeviceRequired = args[0], len(args) == 2 && args[1] == "required"
			if len(args) > 1 && !h.DeviceRequired {
				return d.Errf("device: %q is not required, the only word that may follow the placeholder", args[1])
			}
		case "label":
			return h.unmarshalLabel(d)
		case "kind":
			args := d.RemainingArgs()
			if len(args) < 2 {
				return d.Err("kind: takes manifest, media or other, and at least one extension or path pattern")
			}
			h.Kinds = append(h.Kinds, Kinds{args[0], args[1:]})
		case "interval":
			return block.Duration(d, &h.Interval)
		case "ttl":
			return block.Duration(d, &h.TTL)
		case "cors":
			if h.CORS = d.RemainingArgs(); len(h.CORS) == 0 {
				return d.Err("cors: takes at least one origin")
			}
		case "store":
			return h.unmarshalStore(d)
		default:
			if now, before := renamed[option]; before {
				return d.Errf("%s: %s", option, now)
			}
			return d.Errf("unrecognized option %q; the options are %s", option, strings.Join(optionNames, ", "))
		}
		return nil
	}, func(option string) { lines[option] = d.Token() }, "limit", "label", "kind")
	if err != nil {
		return err
	}
	// What is wrong with a value is said with its line.
	c := *h
	c.setDefaults()
	if err := c.check(); err != nil {
		if e, ok := errors.AsType[*optionError](err); ok && lines[e.option].Text != "" {
			return at(lines[e.option], err)
		}
		return at(directive, err)
	}
	return nil
}

// at is an error with the file and line of a token.
func at(token caddyfile.Token, err error) error {
	d := caddyfile.NewDispenser([]caddyfile.Token{token})
	d.Next()
	return d.WrapErr(err)
}

// optionNames are all options, in the order of their documentation.
var optionNames = []string{"user", "limit", "stream", "playback", "device", "label", "kind", "mode", "anonymous", "interval", "ttl",
	"reclaim", "store", "on_store_error", "api", "cors", "cache_control", "log_users"}

// renamed are options of before the first release, and what has become of them.
var renamed = map[string]string{
	"per_device":     "is now written limit <n> per device replace",
	"on_limit":       "is now written limit <n> replace, or limit <n> replace device",
	"reclaim_lapsed": "is now written reclaim lapsed",
	"media":          "is now written kind media <extension>..., which adds to the defaults",
	"reveal_guards":  "is gone: ids are always shown",
	"tarpit":         "is gone: a refused request that is repeated within two seconds always waits for one",
}

// word is an option that is one of a few words, or a placeholder where that is
// said. The first word is the default.
type word struct {
	option      string
	value       *string
	allowed     []string
	placeholder bool
}

func (h *Handler) words() []word {
	return []word{
		{"mode", &h.Mode, []string{"enforce", "observe"}, true},
		{"anonymous", &h.Anonymous, []string{"deny", "allow"}, false},
		{"reclaim", &h.Reclaim, []string{"closed", "lapsed", "off"}, false},
		{"on_store_error", &h.OnStoreError, []string{"local", "allow", "deny"}, false},
		{"cache_control", &h.CacheControl, []string{"private", "keep"}, false},
		{"log_users", &h.LogUsers, []string{"hash", "plain", "off"}, false},
	}
}

func (h *Handler) setDefaults() {
	for _, w := range h.words() {
		if *w.value == "" {
			*w.value = w.allowed[0]
		}
	}
	h.Stream = cmp.Or(h.Stream, "dir 2")
	h.Playback = cmp.Or(h.Playback, "auto")
	h.API = cmp.Or(h.API, "/guards")
	h.Interval = cmp.Or(h.Interval, caddy.Duration(guard.DefaultInterval))
	h.TTL = cmp.Or(h.TTL, max(caddy.Duration(guard.DefaultTTL), h.Interval*3/2))
}

// optionError is what is wrong with the value of an option.
type optionError struct {
	option string
	err    error
}

func (e *optionError) Error() string { return e.option + ": " + e.err.Error() }

func (e *optionError) Unwrap() error { return e.err }

// check finds what is wrong with the options. Its error is an *optionError.
func (h *Handler) check() error {
	for _, c := range []struct {
		option string
		check  func() error
	}{
		{"user", h.checkUser},
		{"device", func() error {
			if h.DeviceRequired && h.Device == "" {
				return errors.New("required, but there is no placeholder that says it")
			}
			return checkVaries(h.Device)
		}},
		{"playback", h.checkPlayback},
		{"limit", h.checkLimits},
		{"label", h.checkLabels},
		{"stream", func() error {
			if _, err := parseStream(h.Stream); err != nil || strings.HasPrefix(h.Stream, "path_regexp ") {
				return err
			}
			return checkPlaceholders(h.Stream)
		}},
		{"kind", func() error { _, err := kindsOf(h.Kinds); return err }},
		{"interval", func() error {
			if interval := time.Duration(h.Interval); interval < time.Second {
				return fmt.Errorf("%v is shorter than 1s", interval)
			}
			return nil
		}},
		{"ttl", func() error {
			if h.TTL <= h.Interval {
				return fmt.Errorf("%v is not longer than interval, %v", time.Duration(h.TTL), time.Duration(h.Interval))
			}
			return nil
		}},
		{"api", h.checkAPI},
		{"cors", func() error {
			for _, origin := range h.CORS {
				if err := checkOrigin(origin); err != nil {
					return err
				}
			}
			return nil
		}},
	} {
		if err := c.check(); err != nil {
			return &optionError{c.option, err}
		}
	}
	for _, w := range h.words() {
		if slices.Contains(w.allowed, *w.value) {
			continue
		}
		switch {
		case w.placeholder && hasPlaceholder(*w.value):
			if err := checkVaries(*w.value); err != nil {
				return &optionError{w.option, err}
			}
		case w.placeholder:
			return &optionError{w.option, fmt.Errorf("%q is not one of %s, or a placeholder", *w.value, strings.Join(w.allowed, ", "))}
		default:
			return &optionError{w.option, fmt.Errorf("%q is not one of %s", *w.value, strings.Join(w.allowed, ", "))}
		}
	}
	return nil
}

func (h *Handler) checkUser() error {
	if h.User == "" {
		return errors.New("required, and has no default. Usual choices are {http.auth.user.id} after an authentication directive, " +
			"{http.request.header.X-User-Id} behind a proxy that sets it, or a claim that a JWT module gives: what names the account, and not one of its sessions")
	}
	for i, fold := range h.UserFold {
		if fold != "lower" && fold != "nfc" {
			return fmt.Errorf("%q is not one of lower, nfc", fold)
		}
		if slices.Contains(h.UserFold[:i], fold) {
			return fmt.Errorf("%s is given twice", fold)
		}
	}
	for _, p := range placeholder.FindAllString(h.User, -1) {
		if slices.Contains(differs, p) {
			return fmt.Errorf("%s is another with each request: nobody would ever reach a limit", p)
		}
	}
	return checkVaries(h.User)
}

func (h *Handler) checkPlayback() error {
	switch {
	case h.Playback == "path":
		return errors.New("path is now auto, which is the default; what was auto is now stream")
	case h.Playback != "auto" && h.Playback != "stream" && !hasPlaceholder(h.Playback):
		return fmt.Errorf("%q is not auto, stream or a placeholder", h.Playback)
	}
	return checkPlaceholders(h.Playback)
}

func (h *Handler) checkAPI() error {
	if h.API == "off" {
		return nil
	}
	path := strings.TrimRight(h.API, "/")
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "?#{") {
		return fmt.Errorf("%q is neither off nor a path like /guards", h.API)
	}
	if strings.Contains(path, "*") {
		return fmt.Errorf("%q: all below the path is the API's, without a *", h.API)
	}
	h.API = path
	return nil
}

func (h *Handler) checkLabels() error {
	if len(h.Labels) > maxLabels {
		return fmt.Errorf("%d of them, at most %d are allowed", len(h.Labels), maxLabels)
	}
	for _, name := range slices.Sorted(maps.Keys(h.Labels)) {
		if !labelName.MatchString(name) || slices.Contains(builtIn, name) {
			return fmt.Errorf("%q is not a name of a-z, 0-9 and _, up to 32 and other than %s", name, strings.Join(builtIn, ", "))
		}
		if err := checkVaries(h.Labels[name]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

const maxLabels = 8

var (
	labelName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,31}$`)
	builtIn   = []string{"stream", "device", "client"} // what a limit may be per besides labels
)

var placeholder = regexp.MustCompile(`\{[^{}\s]+\}`)

func hasPlaceholder(s string) bool { return placeholder.MatchString(s) }

// Placeholders that are the same for everybody, or another with each request.
var (
	constants = []string{"{http.request.host}", "{http.request.hostport}", "{http.request.port}", "{http.request.scheme}",
		"{http.request.proto}", "{http.request.method}", "{http.request.tls.version}", "{http.request.tls.cipher_suite}"}
	differs = []string{"{http.request.uuid}", "{http.request.remote.port}", "{http.request.remote}", "{http.request.duration}", "{http.request.duration_ms}",
		"{http.request.uri}", "{http.request.uri_escaped}", "{http.request.uri.path}", "{http.request.uri.path_escaped}", "{http.request.uri.path.file}",
		"{http.request.orig_uri}", "{http.request.orig_uri.path}", "{http.request.orig_uri.path.file}"}
)

// checkVaries finds a text that would be the same for everybody, or empty. An
// empty text has nothing wrong.
func checkVaries(s string) error {
	if s == "" {
		return nil
	}
	if err := checkPlaceholders(s); err != nil {
		return err
	}
	varies := slices.ContainsFunc(placeholder.FindAllString(s, -1), func(p string) bool {
		return !slices.Contains(constants, p) && !strings.HasPrefix(p, "{env.") && !strings.HasPrefix(p, "{system.") && !strings.HasPrefix(p, "{file.") && !strings.HasPrefix(p, "{time.")
	})
	if !varies {
		return fmt.Errorf("%q has no placeholder of the request: it would be the same for everybody; a header is written {header.X-Name}", s)
	}
	return nil
}

// checkPlaceholders finds the short placeholders of a Caddyfile in what comes
// from JSON: Caddy does not know them there, and they would always be empty.
func checkPlaceholders(s string) error {
	for _, p := range placeholder.FindAllString(s, -1) {
		if strings.HasPrefix(p, "{http.stream_guard.") && p != "{http.stream_guard.bucket}" {
			return fmt.Errorf("%s is what the gate finds out by this option", p)
		}
		if long := unshortened(p); long != p {
			return fmt.Errorf("%s is a placeholder of Caddyfiles only: in JSON it is %s", p, long)
		}
	}
	return nil
}

// unshortened is a placeholder of a Caddyfile as JSON has it.
func unshortened(placeholder string) string {
	segment := caddyfile.Segment{{Text: placeholder}}
	httpcaddyfile.NewShorthandReplacer().ApplyToSegment(&segment)
	return segment[0].Text
}

func (h *Handler) unmarshalStore(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.Err("store: takes the name of a store, such as memory or redis")
	}
	name := d.Val()
	if _, err := caddy.GetModule(storage.Namespace + "." + name); err != nil {
		return d.Errf("store: %q is not one of %s", name, strings.Join(storage.Names(), ", "))
	}
	line := d.Token()
	store, err := caddyfile.UnmarshalModule(d, storage.Namespace+"."+name)
	if err != nil {
		return err
	}
	if s, ok := store.(interface{ CheckOptions() error }); ok {
		if err := s.CheckOptions(); err != nil {
			return at(line, fmt.Errorf("store: %w", err))
		}
	}
	h.StoreRaw = caddyconfig.JSONModuleObject(store, "store", name, nil)
	return nil
}

// unmarshalLabel reads "label <name> <placeholder>".
func (h *Handler) unmarshalLabel(d *caddyfile.Dispenser) error {
	var name, value string
	if !d.AllArgs(&name, &value) {
		return d.Err("label: takes a name and a placeholder")
	}
	if _, given := h.Labels[name]; given {
		return d.Errf("label %s is given twice", name)
	}
	if h.Labels == nil {
		h.Labels = make(map[string]string)
	}
	h.Labels[name] = value
	return nil
}
