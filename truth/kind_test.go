package truth

import (
	"math/rand/v2"
	"slices"
)

// kind is a kind of player: how it names its playbacks, what it does with
// connections, how it ends, and what its viewer does.
type kind struct {
	name     string
	naming   naming
	conns    conns
	ending   ending
	habit    habit
	segment  float64 // seconds, 4 if 0
	box      bool    // it is at a gate with limit 1 per client replace
	textbook bool    // it does as the standards have it, and closes or says goodbye
}

// naming is how requests say which playback they are of.
type naming int

const (
	byToken   naming = iota // the path that the gate redirects to, and nothing else
	byQuery                 // POST /guards, and ?guard= with the manifest
	byID                    // POST /guards with a playbackId, and the token in the URL
	byCMCD                  // CMCD's sid
	bySession               // X-Playback-Session-Id
	byNothing               // segments that have lost their token
	endless                 // one answer without an end, no manifest
	progress                // ranges of one file, no manifest
)

// conns is what a player does with its connections while it plays.
type conns int

const (
	keeps      conns = iota // a connection is used again and again
	two                     // two of them, for audio and video
	keepsHTTP2              // one of HTTP/2
	each                    // a new one for each request: no keep-alive
	idles                   // closed by the client after 4 s without a request
)

// ending is what the server sees of the end of a playback.
type ending int

const (
	closes   ending = iota // the connections are closed
	goodbye                // DELETE /guards/{id}; the connections are kept
	reports                // CMCD events, also of every pause; the connections are kept
	stays                  // nothing: a browser keeps its connections when a tab is closed
	vanishes               // nothing, and the connections are never used again
)

// habit is what the viewer does.
type habit int

const (
	plays    habit = iota
	pauses         // for up to 80 s, now and then for longer than ttl
	hides          // the tab: it asks once a minute
	seeks          // cuts an answer short and asks for another
	reloads        // the page, two or three times
	zaps           // to another channel every few seconds
	preloads       // manifests of other titles, which nobody plays
	probes         // titles: the manifest and a segment, and no more
	roams          // to another network, in the middle of it
)

var kinds = []kind{
	{name: "token in the path, closes", textbook: true},
	{name: "?guard=, closes", naming: byQuery, textbook: true},
	{name: "playbackId, says goodbye", naming: byID, ending: goodbye, textbook: true},
	{name: "CMCD sid, closes", naming: byCMCD, textbook: true},
	{name: "CMCD events, says goodbye", naming: byCMCD, ending: reports, habit: pauses, textbook: true},
	{name: "X-Playback-Session-Id, closes", naming: bySession, textbook: true},
	{name: "two connections, closes", conns: two, textbook: true},
	{name: "HTTP/2, closes", conns: keepsHTTP2, textbook: true},
	{name: "segments name nothing, closes", naming: byNothing},
	{name: "pauses, keeps its connection", habit: pauses},
	{name: "pauses, closes when idle", conns: idles, habit: pauses},
	{name: "10 s segments, closes when idle", conns: idles, segment: 10},
	{name: "seeks, closes", habit: seeks},
	{name: "zaps, closes", habit: zaps},
	{name: "preloads, closes", habit: preloads},
	{name: "probes, closes", habit: probes},
	{name: "endless .ts, closes", naming: endless},
	{name: "endless .ts, zaps", naming: endless, habit: zaps},
	{name: "browser, says goodbye", ending: goodbye, habit: pauses},
	{name: "browser, page loaded again, says goodbye", ending: goodbye, habit: reloads},
	{name: "changes its network, closes", habit: roams},

	{name: "box at limit 1 per client replace, zaps", ending: stays, habit: zaps, box: true},
	{name: "browser, tab closed", ending: stays},
	{name: "browser, hidden tab, closed", ending: stays, habit: hides},
	{name: "browser, page loaded again", ending: stays, habit: reloads},
	{name: "no keep-alive", conns: each},
	{name: "no keep-alive, names nothing", naming: byNothing, conns: each},
	{name: "progressive .mp4, closes", naming: progress, habit: seeks},
	{name: "network vanishes", ending: vanishes},
	{name: "endless .ts, network vanishes", naming: endless, ending: vanishes},
}

// tells reports whether every ending of this kind closes its connections or says
// goodbye. A closing says nothing where a file was cut short, after a single answer, of
// who closes when idle, and beside a connection that the network has lost.
func (k *kind) tells() bool {
	says := k.conns != each && k.conns != idles && k.naming != progress && k.habit != roams
	return k.ending == goodbye || k.ending == reports || k.ending == closes && says
}

// steady reports whether a playback of this kind asks every 5 s or keeps a connection.
func (k *kind) steady() bool { return k.conns != idles || k.seconds() <= 5 && k.habit != pauses }

func (k *kind) seconds() float64 {
	if k.segment == 0 {
		return 4
	}
	return k.segment
}

// session is a playback as it is planned: times are seconds from the beginning.
type session struct {
	at, until float64
	title     int
	probe     bool // it ends with its first segment
	preload   bool // of manifests only
	acts      []act
}

type act struct {
	at, until float64
	what      habit
}

// plan is what a viewer of a kind does in so many seconds.
func (k *kind) plan(r *rand.Rand, length float64) (all []session) {
	between := func(least, most float64) float64 { return least + r.Float64()*(most-least) }
	for t := between(0, 90); t < length-15; t += between(20, 180) {
		s := session{at: t, until: min(t+between(20, 120), length), title: r.IntN(3)}
		switch k.habit {
		case plays:
		case pauses:
			for at := s.at + between(8, 40); at < s.until-10; at += between(8, 40) {
				lasts := between(8, 80)
				if r.IntN(8) == 0 {
					lasts = between(100, 150)
				}
				s.acts = append(s.acts, act{at, at + lasts, pauses})
				at += lasts
				s.until = min(max(s.until, at+10), length)
			}
		case hides:
			at := s.at + between(8, 20)
			s.acts = append(s.acts, act{at, at + 125, hides})
			s.until = min(max(s.until, at+140), length)
		case seeks, roams:
			for at := s.at + between(8, 40); at < s.until-5; at += between(8, 40) {
				s.acts = append(s.acts, act{at, at, k.habit})
			}
		case reloads:
			for range 1 + r.IntN(2) {
				s.until = min(s.at+between(10, 40), length)
				all = append(all, s)
				s.at = s.until + between(0.2, 2)
			}
			s.until = min(s.at+between(20, 100), length)
		case zaps:
			for range 2 + r.IntN(4) {
				s.until = min(s.at+between(3, 15), length)
				all = append(all, s)
				s.at, s.title = s.until+between(0, 0.5), (s.title+1)%3
			}
			s.until = min(s.at+between(20, 100), length)
		case preloads, probes:
			for range 1 + r.IntN(3) {
				other := session{at: s.at, until: s.at, title: (s.title + 1) % 3, probe: k.habit == probes, preload: k.habit == preloads}
				all = append(all, other)
				s.at += between(1, 6)
			}
			s.until = min(max(s.until, s.at+20), length)
		}
		s.acts = slices.DeleteFunc(s.acts, func(a act) bool { return a.until > length-5 })
		if s.at < length-5 {
			all = append(all, s)
		}
		t = s.until
	}
	return all
}
