package operate

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/streamguard/streamguard/audience"
)

//go:embed page.html
var pageText string

//go:embed page.css
var pageStyle string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"clock": func(t time.Time) string { return t.UTC().Format(toTheMinute) },
	"count": Count, "percent": percent, "number": grouped, "show": func(s string) string { return shown(s, 200) }, "say": func(s string) string { return shown(s, 1000) }, "seconds": seconds, "add": func(a, b int) int { return a + b },
	"aboutSlots": func() string { return aboutSlots }, "flow": flow, "bars": limitBars, "together": togetherBars, "hours": hourBars,
}).Parse(pageText))

// WritePage writes reports as one page that asks for nothing else: no script, no font,
// no picture. Users stand in it as in a log with log_users hash, unless they are to be
// plain.
func WritePage(w io.Writer, reports []audience.Report, plain bool) error {
	if !plain {
		hidden := make([]audience.Report, len(reports))
		for i, r := range reports {
			hidden[i] = r.Pseudonymous()
		}
		reports = hidden
	}
	sum := sha256.Sum256([]byte(pageStyle))
	return page.Execute(w, struct {
		Reports []audience.Report
		Plain   bool
		Style   template.CSS
		Policy  string
	}{reports, plain, template.CSS(pageStyle), "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'"})
}

// shown is so much of a text as may be shown on a page: what is not to be seen is
// written out.
func shown(s string, most int) string {
	if len(s) > most {
		for most--; most > 0 && !utf8.RuneStart(s[most]); most-- {
		}
		s = s[:most] + "…"
	}
	return Printable(s)
}

// grouped is a number with its thousands apart.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

func seconds(s float64) string {
	switch d := time.Duration(s * float64(time.Second)); {
	case d >= 48*time.Hour:
		return grouped(int64(d.Hours())) + " h"
	case d >= time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	case d >= time.Minute:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	default:
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
}

// The size of a chart that is drawn in the units of its viewBox.
const (
	chartWidth  = 720
	chartHeight = 200
	chartLeft   = 56
	chartBottom = 28
)

// chart is one with values over time.
type chart struct {
	Width, Height, Left, Base int
	Path                      string // of the area
	Bars                      []bar
	Y, X                      []tick
	Most                      int64
	Each                      string // what a bar is of
}

type bar struct {
	X, Y, Width, Height float64
	OverY, OverHeight   float64 // a part of it
	Title               string
}

type tick struct {
	At    float64
	Label string
}

// flow is how many playbacks there were over time. Of so many minutes that they cannot
// be told apart, each place shows the most.
func flow(r audience.Report) chart {
	c := newChart()
	if len(r.Minutes) == 0 {
		return c
	}
	from, to := r.Since.Truncate(time.Minute), r.Until.Add(time.Minute).Truncate(time.Minute)
	if first := r.Minutes[0].At; first.Before(from) {
		from = first
	}
	if !to.After(from) {
		to = from.Add(time.Minute)
	}
	span, columns := to.Sub(from), chartWidth-chartLeft
	most := make([]int64, columns)
	for i, m := range r.Minutes {
		end := to
		if i+1 < len(r.Minutes) {
			end = r.Minutes[i+1].At
		}
		first := int(float64(columns) * float64(m.At.Sub(from)) / float64(span))
		last := int(math.Ceil(float64(columns) * float64(end.Sub(from)) / float64(span)))
		for x := max(first, 0); x < min(last, columns); x++ {
			most[x] = max(most[x], m.Playbacks)
		}
		c.Most = max(c.Most, m.Playbacks)
	}
	c.scale(c.Most)
	var path strings.Builder
	fmt.Fprintf(&path, "M%d %d", chartLeft, c.Base)
	before := int64(-1)
	for x, n := range most {
		if n != before {
			if before >= 0 {
				fmt.Fprintf(&path, "H%d", chartLeft+x)
			}
			fmt.Fprintf(&path, "V%.1f", c.y(n))
			before = n
		}
	}
	fmt.Fprintf(&path, "H%dV%dZ", chartWidth, c.Base)
	c.Path = path.String()
	c.times(from, span)
	return c
}

// hourBars is what began in each hour, or in each day where those are many, and how much
// of it would have been refused.
func hourBars(r audience.Report) chart {
	c := newChart()
	if len(r.Hours) == 0 {
		return c
	}
	each, format := time.Hour, toTheMinute
	until := r.Hours[len(r.Hours)-1].At.Add(time.Hour)
	if c.Each = "hour"; until.Sub(r.Hours[0].At) > 10*24*time.Hour {
		c.Each, each, format = "day", 24*time.Hour, time.DateOnly
	}
	from := r.Hours[0].At.Truncate(each)
	span := until.Add(each - 1).Truncate(each).Sub(from)
	var times []audience.Hour
	for _, h := range r.Hours {
		at := h.At.Truncate(each)
		if n := len(times); n == 0 || !times[n-1].At.Equal(at) {
			times = append(times, audience.Hour{At: at})
		}
		sum := &times[len(times)-1]
		sum.Playbacks += h.Playbacks
		sum.Would += h.Would
		c.Most = max(c.Most, sum.Playbacks)
	}
	c.scale(c.Most)
	width := float64(chartWidth-chartLeft) * float64(each) / float64(span)
	for _, h := range times {
		b := bar{X: chartLeft + width*float64(h.At.Sub(from))/float64(each), Width: min(width*0.9, 48), Y: c.y(h.Playbacks)}
		b.Height, b.OverY = float64(c.Base)-b.Y, c.y(h.Would)
		b.OverHeight = float64(c.Base) - b.OverY
		b.Title = fmt.Sprintf("%s: %s began, %s refused", h.At.UTC().Format(format), grouped(h.Playbacks), grouped(h.Would))
		c.Bars = append(c.Bars, b)
	}
	c.times(from, span)
	return c
}

func newChart() chart {
	return chart{Width: chartWidth, Height: chartHeight, Left: chartLeft, Base: chartHeight - chartBottom}
}

// scale makes the axis of values, up to a round number.
func (c *chart) scale(most int64) {
	step := int64(1)
	for n := 0; (most+step-1)/step > 4; n++ {
		step = []int64{2, 5, 10}[n%3] * int64(math.Pow10(n/3))
	}
	c.Most = max((most+step-1)/step, 1) * step
	for n := int64(0); n <= c.Most; n += step {
		c.Y = append(c.Y, tick{c.y(n), grouped(n)})
	}
}

func (c *chart) y(n int64) float64 {
	const top = 8
	return float64(c.Base) - float64(c.Base-top)*float64(n)/float64(max(c.Most, 1))
}

// steps are how far apart the marks of an axis of time may be. Beyond them it is weeks.
var steps = []time.Duration{
	time.Second, 10 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour, 48 * time.Hour, 7 * 24 * time.Hour,
}

// times makes the axis of time, with marks at full minutes, hours and midnights.
func (c *chart) times(from time.Time, span time.Duration) {
	const most, margin = 7, 24
	step := steps[len(steps)-1]
	if i := slices.IndexFunc(steps, func(s time.Duration) bool { return s*most >= span }); i >= 0 {
		step = steps[i]
	}
	for step*most < span {
		step *= 2
	}
	for at := from.UTC().Add(step - 1).Truncate(step); at.Before(from.Add(span)); at = at.Add(step) {
		format := "15:04"
		switch {
		case at.Truncate(24 * time.Hour).Equal(at):
			format = "Jan 2"
		case step < time.Minute:
			format = "15:04:05"
		}
		if x := chartLeft + float64(chartWidth-chartLeft)*float64(at.Sub(from))/float64(span); x < chartWidth-margin {
			c.X = append(c.X, tick{x, at.Format(format)})
		}
	}
}

// rows is a chart of bars that lie below each other.
type rows struct {
	Says   string
	Height int
	Rows   []row
}

type row struct {
	Y                   int
	Width               float64
	Label, Value, Title string
}

// add adds a bar. What is more than nothing can be seen.
func (r *rows) add(label, value, title string, n, most float64) {
	const each, longest = 24, 236
	width := 0.0
	if n > 0 {
		width = max(longest*n/most, 1)
	}
	r.Rows = append(r.Rows, row{r.Height, width, label, value, title})
	r.Height += each
}

// limitBars is the share of the starts that each limit would have refused.
func limitBars(r audience.Report) rows {
	all, most := rows{Says: "Share of the playbacks that each limit would have refused"}, 0.0
	for _, l := range r.Limits {
		most = max(most, l.Share)
	}
	for _, l := range r.Limits {
		all.add(strconv.Itoa(l.Limit), percent(l.Share), fmt.Sprintf("limit %d: %s of %s refused", l.Limit, grouped(l.Outcome.Playbacks), grouped(r.Playbacks)), l.Share, most)
	}
	return all
}

// togetherBars is how many users have ever had so many playbacks at once, and no more.
func togetherBars(r audience.Report) rows {
	all, most := rows{Says: "Users by the most playbacks that they have had at once"}, 0.0
	for _, a := range r.AtOnce {
		most = max(most, float64(a.Most))
	}
	for _, a := range r.AtOnce[:min(len(r.AtOnce), 12)] {
		all.add(strconv.Itoa(a.Playbacks), grouped(a.Most), fmt.Sprintf("%s never had more than %d at once", Count(a.Most, "user"), a.Playbacks), float64(a.Most), most)
	}
	return all
}
