package caddymodule

import (
	"github.com/spf13/pflag"

	"github.com/streamguard/streamguard/audience"
)

// pageFlags say whether a report is written as a page, too.
type pageFlags struct {
	file  string
	plain bool
}

func (p *pageFlags) add(flags *pflag.FlagSet) {}

func (p *pageFlags) write(reports []audience.Report) error { return nil }
