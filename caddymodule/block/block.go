// Package block reads the options in a block of a Caddyfile. Its errors name
// the option and the value; the dispenser adds file and line.
package block

import (
	"slices"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Options reads a block: those of its options that are one word here, the others
// by read. It calls at, which may be nil, with the dispenser on each option.
// Only the repeatable ones may be given twice.
func Options(d *caddyfile.Dispenser, words map[string]*string, read func(option string) error, at func(option string), repeatable ...string) error {
	given := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		if given[option] && !slices.Contains(repeatable, option) {
			return d.Errf("%s is given twice", option)
		}
		given[option] = true
		if at != nil {
			at(option)
		}
		if text, ok := words[option]; ok {
			if err := Word(d, text); err != nil {
				return err
			}
		} else if err := read(option); err != nil {
			return err
		}
	}
	return nil
}

// Word reads an option with one value.
func Word(d *caddyfile.Dispenser, into *string) error {
	option := d.Val()
	if !d.AllArgs(into) {
		return d.Errf("%s: takes one value", option)
	}
	if *into == "" {
		return d.Errf("%s: empty", option)
	}
	return nil
}

// Flag reads an option without a value.
func Flag(d *caddyfile.Dispenser, into *bool) error {
	if option := d.Val(); d.NextArg() {
		return d.Errf("%s: takes no value", option)
	}
	*into = true
	return nil
}

// Number reads an option that is a whole number.
func Number(d *caddyfile.Dispenser, into *int) error {
	option := d.Val()
	var arg string
	if err := Word(d, &arg); err != nil {
		return err
	}
	n, err := strconv.Atoi(arg)
	if err != nil {
		return d.Errf("%s: %q is not a number", option, arg)
	}
	*into = n
	return nil
}

// Duration reads an option that is a duration longer than nothing.
func Duration(d *caddyfile.Dispenser, into *caddy.Duration) error {
	option := d.Val()
	var arg string
	if err := Word(d, &arg); err != nil {
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
