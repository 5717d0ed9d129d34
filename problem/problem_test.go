package problem

import (
	"crypto/tls"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// written is a problem as clients get it.
func written(t *testing.T, p *Problem) (header http.Header, members map[string]any) {
	t.Helper()
	w := httptest.NewRecorder()
	p.Write(w)
	if err := json.Unmarshal(w.Body.Bytes(), &members); err != nil {
		t.Fatalf("%v in %s", err, w.Body)
	}
	if w.Code != p.Status || w.Header().Get("Content-Type") != "application/problem+json" || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	return w.Header(), members
}

func TestEachCodeHasAStatus(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "code.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var declared []string
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			if of, ok := spec.Type.(*ast.Ident); ok && of.Name == "Code" {
				declared = append(declared, spec.Values[0].(*ast.BasicLit).Value)
			}
		}
		return true
	})
	var listed []string
	for _, known := range Codes {
		quoted, _ := json.Marshal(known.Code)
		listed = append(listed, string(quoted))
		p := New(known.Code, "%d reasons", 2)
		_, members := written(t, p)
		want := map[string]any{
			"status": float64(known.Status), "title": http.StatusText(known.Status), "errorCode": string(known.Code),
			"detail": "2 reasons", "message": "2 reasons",
		}
		if !reflect.DeepEqual(members, want) {
			t.Errorf("got %v, want %v", members, want)
		}
	}
	if !reflect.DeepEqual(declared, listed) {
		t.Errorf("declared are\n%q\nCodes has\n%q", declared, listed)
	}
}

func TestARefusalShowsTheLimitAndWhatIsInTheWay(t *testing.T) {
	at := time.Date(2026, 2, 1, 20, 15, 0, 0, time.UTC)
	id := guard.DeriveID("ann", "tv", "p")
	shown := map[string]any{
		"guardId": id.String(), "streamId": "movie", "deviceId": "tv", "state": "lapsed", "createdAt": "2026-02-01T20:15:00Z", "removedAt": "2026-02-01T20:16:30Z",
	}
	inTheWay := []guard.Guard{{ID: id, User: "ann", Stream: "movie", Device: "tv", CreatedAt: at, ExpiresAt: at.Add(time.Minute), RemovedAt: at.Add(90 * time.Second), Lapsed: true}}
	for _, test := range []struct {
		name         string
		verdict      guard.Verdict
		detail       string
		more         map[string]any // members
		policy, left string         // RateLimit-Policy without its unit, RateLimit
		retryAfter   string
	}{
		{
			"of the user's limit", guard.Verdict{Rule: guard.Rule{Limit: 3}, Held: 3, Blocking: 3, InTheWay: inTheWay, FreeIn: 1500 * time.Millisecond},
			"stream limit reached: 3 of 3 guards held", map[string]any{"limit": 3.0, "retryAfter": 2.0, "guards": []any{shown}, "total": 3.0},
			`"guards";q=3`, `"guards";r=0;t=2`, "2",
		},
		{
			"of a limit per device", guard.Verdict{Rule: guard.Rule{Per: "device", Limit: 1}, Held: 3, Blocking: 1, InTheWay: inTheWay, FreeIn: -1},
			"stream limit reached: 1 of 1 guards held per device", map[string]any{"limit": 1.0, "per": "device", "retryAfter": 1.0, "guards": []any{shown}},
			`"guards-per-device";q=1`, `"guards-per-device";r=0;t=1`, "1",
		},
		{
			"of a plan without streams", guard.Verdict{FreeIn: 90 * time.Second},
			"stream limit reached: 0 of 0 guards held; this plan allows none, so waiting does not help", map[string]any{"limit": 0.0},
			`"guards";q=0`, `"guards";r=0`, "",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.verdict.Outcome = guard.Rejected
			header, members := written(t, Refused(test.verdict))
			want := map[string]any{
				"status": 429.0, "title": "Too Many Requests", "errorCode": "REACHED_MAX_GUARDS_COUNT", "detail": test.detail, "message": test.detail,
			}
			for name, value := range test.more {
				want[name] = value
			}
			if !reflect.DeepEqual(members, want) {
				t.Errorf("got %v, want %v", members, want)
			}
			for name, want := range map[string]string{
				"RateLimit-Policy": test.policy + `;qu="concurrent-requests"`, "RateLimit": test.left, "Retry-After": test.retryAfter,
			} {
				if got := header.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestRefusalOfARevokedPlaybackHasNoLimit(t *testing.T) {
	header, members := written(t, Refused(guard.Verdict{Outcome: guard.Revoked, FreeIn: 1500 * time.Millisecond}))
	_, limited := members["limit"]
	if members["status"] != 429.0 || members["title"] != "Too Many Requests" || members["errorCode"] != "GUARD_REVOKED" || members["retryAfter"] != 2.0 || limited {
		t.Errorf("problem %v", members)
	}
	if header.Get("Retry-After") != "2" || header.Get("RateLimit") != "" || header.Get("RateLimit-Policy") != "" {
		t.Errorf("header %v", header)
	}
}

func TestTheInstanceIsTheRequest(t *testing.T) {
	p := New(NotFound, "nothing")
	p.SetInstance("")
	if _, members := written(t, p); members["instance"] != nil {
		t.Errorf("without an id: %v", members)
	}
	p.SetInstance("0b5e")
	if _, members := written(t, p); members["instance"] != "urn:uuid:0b5e" {
		t.Errorf("with an id: %v", members)
	}
}

func TestEarly(t *testing.T) {
	for _, test := range []struct {
		name  string
		tls   *tls.ConnectionState
		field []string // Early-Data
		want  bool
	}{
		{"without TLS", nil, nil, false},
		{"after the handshake", &tls.ConnectionState{HandshakeComplete: true}, nil, false},
		{"before its end", &tls.ConnectionState{}, nil, true},
		{"at a proxy", nil, []string{"1"}, true},
		{"at a proxy, after the handshake here", &tls.ConnectionState{HandshakeComplete: true}, []string{"0", "1"}, true},
	} {
		r := &http.Request{TLS: test.tls, Header: http.Header{}}
		if test.field != nil {
			r.Header["Early-Data"] = test.field
		}
		if p := Early(r); (p != nil) != test.want || p != nil && p.Status != http.StatusTooEarly {
			t.Errorf("%s: %v", test.name, p)
		}
	}
}

func TestSecondsRoundUpAndReadBack(t *testing.T) {
	for d, want := range map[time.Duration]string{1: "1", time.Second: "1", time.Second + 1: "2", 90 * time.Second: "90"} {
		b, err := json.Marshal(Seconds(d))
		if err != nil || string(b) != want {
			t.Errorf("%v is %s (%v), want %s", d, b, err, want)
		}
		var back Seconds
		if err := json.Unmarshal(b, &back); err != nil || back.String() != want {
			t.Errorf("%s is read as %v (%v)", b, back, err)
		}
	}
}
