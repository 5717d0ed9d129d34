package audience

import (
	"cmp"
	"path"
	"slices"
	"strings"
)

// Bounds on what is shown of each finding.
const (
	maxExamples  = 10
	maxUncounted = 1024 // kinds of paths
)

// examples are the first of each finding.
type examples [2][]Example

const (
	selfRefused = iota
	renamed
)

func (a *Audience) addExample(finding int, e Example) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if list := &a.examples[finding]; len(*list) < maxExamples {
		e.User, e.Stream = strings.Clone(e.User), strings.Clone(e.Stream)
		*list = append(*list, e)
	}
}

// Crowded says that many different manifests were asked for under one stream, of
// which these are two.
func (a *Audience) Crowded(stream string, paths ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.crowded) < maxExamples {
		a.crowded = append(a.crowded, Crowd{strings.Clone(stream), slices.Clone(paths)})
	}
}

// Uncounted says that a path which seems to be a manifest's or that of media was not
// counted as such.
func (a *Audience) Uncounted(kind, of string) {
	dir, file := path.Split(of)
	pattern := dir + "*" + path.Ext(file)
	a.mu.Lock()
	defer a.mu.Unlock()
	u := a.uncounted[pattern]
	if u == nil {
		if len(a.uncounted) >= maxUncounted {
			return
		}
		u = &Uncounted{Kind: kind, Paths: pattern, Example: strings.Clone(of)}
		a.uncounted[u.Paths] = u
	}
	u.Requests++
}

// overlooked are the paths that are asked for most of those that are not counted.
func (a *Audience) overlooked() (most []Uncounted) {
	for _, u := range a.uncounted {
		most = append(most, *u)
	}
	slices.SortFunc(most, func(x, y Uncounted) int {
		return cmp.Or(cmp.Compare(y.Requests, x.Requests), cmp.Compare(x.Paths, y.Paths))
	})
	return most[:min(len(most), maxExamples)]
}
