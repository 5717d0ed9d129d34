package playback

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestReports(t *testing.T) {
	for _, c := range []struct {
		name, body string
		want       []Report
	}{
		{"hls.js", `bg=?0,bl=(21300),br=(3200),cid="movie",e=t,ot=v,pr=1,sf=h,sid="a",sn=3,sta=p,ts=1700000000000,v=2`, []Report{{"a", 'p', 1700000000000}}},
		{"dash.js ends the last line", "e=ps,sid=\"a\",sta=s,ts=1,v=2\ne=ps,sid=\"a\",sta=p,ts=2,v=2\n", []Report{{"a", 'p', 2}}},
		{"lines of Windows", "sid=\"a\",sta=p\r\nsid=\"b\",sta=a\r\n", []Report{{"a", 'p', 0}, {"b", 'a', 0}}},
		{"without a state", `e=t,sid="a"`, []Report{{"a", 0, 0}}},
		{"a state that is no token", `sid="a",sta="e"`, []Report{{"a", 0, 0}}},
		{"a state of two letters", `sid="a",sta=eq`, []Report{{"a", 0, 0}}},
		{"the last line counts", "sid=\"a\",sta=p\nsid=\"a\",sta=q", []Report{{"a", 'q', 0}}},
		{"delivered late", "sid=\"a\",sta=q,ts=3\nsid=\"a\",sta=a,ts=2\nsid=\"a\",sta=p,ts=1", []Report{{"a", 'q', 3}}},
		{"at once, the last line counts", "sid=\"a\",sta=q,ts=3\nsid=\"a\",sta=p,ts=3", []Report{{"a", 'p', 3}}},
		{"without a time where it stands", "sid=\"a\",sta=p,ts=3\nsid=\"a\",sta=q\nsid=\"a\",sta=a,ts=2", []Report{{"a", 'q', 3}}},
		{"a later report that leaves the state out", "sid=\"a\",sta=q,ts=1\ne=t,sid=\"a\",ts=2", []Report{{"a", 'q', 1}}},
		{"an earlier report that has the state, delivered late", "e=t,sid=\"a\",ts=2\nsid=\"a\",sta=q,ts=1", []Report{{"a", 'q', 1}}},
		{"sessions do not mix", "sid=\"a\",sta=p,ts=9\nsid=\"b\",sta=q,ts=1", []Report{{"a", 'p', 9}, {"b", 'q', 1}}},
		{"the last key counts", `sid="a",sid="b",sta=p,sta=q`, []Report{{"b", 'q', 0}}},
		{"a session of 64 characters", `sid="` + strings.Repeat("x", 64) + `"`, []Report{{strings.Repeat("x", 64), 0, 0}}},
		{"broken lines beside", "sid=\"x\n\nsid=\"a\",sta=p\nsid=\"\xff\"\nnonsense{", []Report{{"a", 'p', 0}}},

		{"nothing", "", nil},
		{"lines of nothing", "\n\r\n\n", nil},
		{"without a session", `e=t,sta=p`, nil},
		{"an empty session", `sid=""`, nil},
		{"a session of 65 characters", `sid="` + strings.Repeat("x", 65) + `"`, nil},
		{"a session that is no string", `sid=a`, nil},
		{"unterminated", `sid="a`, nil},
		{"not ASCII", `sid="é"`, nil},
		{"not UTF-8", "sid=\"a\",cid=\"\xff\"", nil},
		{"JSON", `{"sid": "a"}`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Reports(c.body); !slices.Equal(got, c.want) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestReportsAreBounded(t *testing.T) {
	var body strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&body, "sid=\"%d\",sta=p,ts=%d\n", i%(2*MaxSessions), i+1)
	}
	got := Reports(body.String())
	if len(got) != MaxSessions {
		t.Fatalf("%d sessions, want %d", len(got), MaxSessions)
	}
	for i, r := range got {
		if r.Session != fmt.Sprint(i) || r.at < 10_000-2*MaxSessions {
			t.Errorf("session %d: %+v is not its last", i, r)
		}
	}
}

// Every state is of one kind, and what is not known means that somebody plays.
func TestStates(t *testing.T) {
	for s := range 256 {
		state := State(s)
		over, before := strings.ContainsRune("efq", rune(s)), strings.ContainsRune("ds", rune(s))
		if state.Over() != over || state.Before() != before {
			t.Errorf("%q: over %v, before %v", rune(s), state.Over(), state.Before())
		}
	}
}

// Whatever the body, what is read of it is bounded, and of the session that the
// same words name beside a request for media.
func FuzzReports(f *testing.F) {
	for _, s := range []string{
		`e=t,sid="a",sta=p,ts=1`, "sid=\"a\",sta=q\nsid=\"b\"\r\n", `sid="a`, `sid="",cid="c"`, "\n\n", `sid="a";x=1,sta=p;y`, `sid=("a"),sta=(p)`, `sid="a",ts=-1`,
		"sid=\"a\",ts=2\nsid=\"a\",ts=1", `sid="a\"b"`, "\xff", strings.Repeat("sid=\"x\"\n", 50), `br=(5000;v 128;a),sid="s",x=@1,y=%"z"`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		got := Reports(body)
		if len(got) > MaxSessions {
			t.Errorf("%d sessions", len(got))
		}
		seen := map[string]bool{}
		for _, r := range got {
			if r.Session == "" || len(r.Session) > 64 || hasControl(r.Session) || seen[r.Session] {
				t.Errorf("%+v", r)
			}
			seen[r.Session] = true
		}
		if line, _, more := strings.Cut(body, "\n"); !more && len(line) <= maxCMCD && !strings.HasSuffix(line, "\r") {
			r := &http.Request{URL: &url.URL{}, Header: http.Header{"Cmcd-Session": {line}}}
			if sid := sidOf(r); len(got) == 0 && sid != "" || len(got) == 1 && got[0].Session != sid {
				t.Errorf("%+v, beside a request it is session %q", got, sid)
			}
		}
	})
}
