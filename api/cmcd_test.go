package api_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/streamguard/streamguard/api"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/problem"
)

func cmcd(r *http.Request) { r.Header.Set("Content-Type", "application/cmcd") }

const events = "POST /guards/cmcd"

// tell reports lines of events and wants this status.
func (f *fixture) tell(status int, lines ...string) {
	f.Helper()
	w := f.call(status, events, strings.Join(lines, "\n"), cmcd)
	if status == http.StatusNoContent && w.Header().Get("Cache-Control") != "no-store" {
		f.Errorf("%q: %v", lines, w.Header())
	}
}

// revoke ends the playback with this key as an operator would.
func (f *fixture) revoke(key string) {
	f.Helper()
	id := guard.DeriveID(f.caller.User, f.caller.Device, key)
	if found, err := f.store.Revoke(f.Context(), f.caller.User, id, f.caller.Policy); !found || err != nil {
		f.Fatal(found, err)
	}
}

func TestReportsKeepAGuardAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := open(t)
		want := f.guard(http.StatusCreated, "POST /guards", `{"playbackId": "p", "streamId": "movie", "deviceId": "tv"}`)
		for range 10 {
			const lapsed = 80 * time.Second
			time.Sleep(lapsed)
			f.tell(http.StatusNoContent, `sid="p"`)
			want.ExpiresAt, want.RemovedAt = want.ExpiresAt.Add(lapsed), want.RemovedAt.Add(lapsed)
			if got := f.list().Guards; len(got) != 1 || !reflect.DeepEqual(got[0], want) {
				t.Fatalf("held: %+v, want %+v", got, want)
			}
		}
	})
}

func TestAReportThatItIsOverFreesTheSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := open(t)
		f.caller.Policy.Limit = 1
		f.guard(http.StatusCreated, "POST /guards", `{"playbackId": "p"}`)
		f.refused(http.StatusTooManyRequests, problem.ReachedMaxGuards, "POST /guards", `{"playbackId": "q"}`)
		f.tell(http.StatusNoContent, `sid="p",sta=e`)
		f.tell(http.StatusNoContent, `sid="p",sta=e`) // players say so as long as their page is open
		f.tell(http.StatusNoContent, `sid="p"`)       // under way at the time
		if got := f.list().Guards; len(got) != 0 {
			t.Errorf("held: %+v", got)
		}
		f.guard(http.StatusCreated, "POST /guards", `{"playbackId": "q"}`)
	})
}

// Nor is a player told so: it would repeat itself.
func TestAReportNeverTakesASlot(t *testing.T) {
	f := open(t)
	f.caller.Policy.Limit = 1
	f.tell(http.StatusNoContent, `sid="p"`, `sid="q"`)
	if got := f.list().Guards; len(got) != 0 {
		t.Errorf("held: %+v", got)
	}
	f.guard(http.StatusCreated, "POST /guards", `{"playbackId": "p"}`)
	f.tell(http.StatusNoContent, `sid="q"`)
	if got := f.list().Guards; len(got) != 1 {
		t.Errorf("held: %+v", got)
	}
}

func TestAReportOfARevokedPlaybackIsToldToStop(t *testing.T) {
	f := open(t)
	f.guard(http.StatusCreated, "POST /guards", `{"playbackId": "p"}`)
	f.revoke("p")
	for _, body := range []string{`sid="p"`, "sid=\"q\"\nsid=\"p\"", "sid=\"q\"\nsid=\"r\"\nsid=\"s\"\nsid=\"p\"\nsid=\"q\"", "sid=\"p\"\nsid=\"s\""} {
		f.refused(http.StatusGone, problem.GuardRevoked, events, body, cmcd)
	}
	f.tell(http.StatusNoContent, `sid="p",sta=e`)
	f.tell(http.StatusNoContent, `sid="q"`)
}

func TestAReportThatItHasNotBegunClaimsNothing(t *testing.T) {
	f := open(t)
	f.Store = away{} // nobody is asked
	f.tell(http.StatusNoContent, `sid="p",sta=s`)
}

func TestReportsReachNoGuardOfAnotherUser(t *testing.T) {
	f := open(t)
	want := f.guard(http.StatusCreated, "POST /guards", `{"playbackId": "p"}`)
	f.caller.User = "bob"
	f.tell(http.StatusNoContent, `sid="p",sta=e`, `sid="p"`)
	f.guard(http.StatusCreated, "POST /guards", `{"playbackId": "p"}`)
	f.revoke("p")
	f.refused(http.StatusGone, problem.GuardRevoked, events, `sid="p"`, cmcd)
	f.caller.User = "ann"
	if got := f.list().Guards; len(got) != 1 || !reflect.DeepEqual(got[0], want) {
		t.Errorf("ann holds %+v, want %+v", got, want)
	}
	f.tell(http.StatusNoContent, `sid="p"`)
}

// keeping is a store that tells of each call of Keep.
type keeping struct {
	api.Store
	called func()
}

func (k keeping) Keep(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	k.called()
	return k.Store.Keep(ctx, c, p)
}

func TestEventBody(t *testing.T) {
	typed := func(mediaType string) func(*http.Request) {
		return func(r *http.Request) { r.Header["Content-Type"] = strings.Fields(mediaType) }
	}
	report := `sid="p"`
	padded := func(n int) string { return report + strings.Repeat("\n", n-len(report)) }
	for _, test := range []struct {
		name, body string
		mediaType  string
		status     int
		code       problem.Code
	}{
		{"one report", report, "application/cmcd", http.StatusNoContent, ""},
		{"with a charset, in capitals", report, "Application/CMCD;charset=utf-8", http.StatusNoContent, ""},
		{"one report among what is none", "\nnonsense\n" + report + "\n", "application/cmcd", http.StatusNoContent, ""},
		{"64 KB", padded(api.MaxEvents), "application/cmcd", http.StatusNoContent, ""},
		{"a byte more", padded(api.MaxEvents + 1), "application/cmcd", http.StatusRequestEntityTooLarge, problem.BodyTooLarge},
		{"1 MB of another type", padded(1 << 20), "text/plain", http.StatusRequestEntityTooLarge, problem.BodyTooLarge},
		{"empty", "", "application/cmcd", http.StatusBadRequest, problem.InvalidBody},
		{"empty, of no type", "", "", http.StatusBadRequest, problem.InvalidBody},
		{"no report", "nonsense\n\n", "application/cmcd", http.StatusBadRequest, problem.InvalidBody},
		{"a beacon's type", report, "text/plain;charset=UTF-8", http.StatusUnsupportedMediaType, problem.UnsupportedMedia},
		{"a form's type", report, "application/x-www-form-urlencoded", http.StatusUnsupportedMediaType, problem.UnsupportedMedia},
		{"JSON", "{}", "application/json", http.StatusUnsupportedMediaType, problem.UnsupportedMedia},
		{"no type", report, "", http.StatusUnsupportedMediaType, problem.UnsupportedMedia},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := open(t)
			want, kept := 0, 0
			f.Store = keeping{f.Store, func() { kept++ }}
			if test.code == "" {
				want = 1
				f.call(test.status, events, test.body, typed(test.mediaType))
			} else {
				f.refused(test.status, test.code, events, test.body, typed(test.mediaType))
			}
			if kept != want {
				t.Errorf("%d guards are kept, want %d", kept, want)
			}
		})
	}
}

func TestEventsNeedACallerAndTheStore(t *testing.T) {
	for _, body := range []string{`sid="p"`, `sid="p",sta=e`, "sid=\"q\",sta=e\nsid=\"p\""} {
		f := open(t)
		f.callerErr = problem.New(problem.MissingUser, "no user")
		f.refused(http.StatusUnauthorized, problem.MissingUser, events, body, cmcd)
		f.callerErr = nil
		f.Store = away{}
		if p, _ := f.refused(http.StatusServiceUnavailable, problem.StoreUnavailable, events, body, cmcd); p.RetryAfter != 1 {
			t.Errorf("%+v", p)
		}
		if len(f.failed) != 1 || !errors.Is(f.failed[0], errAway) {
			t.Errorf("Failed heard %v", f.failed)
		}
	}
}

func TestEventsInEarlyDataChangeNothing(t *testing.T) {
	f := open(t)
	f.Store = nil // a call would panic
	f.refused(http.StatusTooEarly, problem.TooEarly, events, `sid="p"`, cmcd, func(r *http.Request) { r.TLS = &tls.ConnectionState{} })
}
