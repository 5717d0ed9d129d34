package api_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/streamguard/streamguard/api"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/memstore"
	"github.com/streamguard/streamguard/problem"
)

// fixture is an API over a store in memory. Its fields are what tests change.
type fixture struct {
	testing.TB
	*api.API
	store     *memstore.Store
	caller    api.Caller
	callerErr error
	failed    []error  // what Failed heard
	answered  []string // what Answered heard
	requestID string
}

func open(t testing.TB) *fixture {
	f := &fixture{TB: t, store: memstore.New()}
	t.Cleanup(func() { f.store.Close() })
	f.caller = api.Caller{
		User:   "ann",
		Policy: guard.Policy{Limit: 2, Interval: guard.DefaultInterval, TTL: guard.DefaultTTL},
		Base:   "/guards",
	}
	f.API = &api.API{Store: keeper{f.store}, Server: server{f}, Prefix: "/guards", RefreshAfter: 20 * time.Second}
	return f
}

// server is the fixture as its API sees it.
type server struct{ f *fixture }

func (s server) Caller(*http.Request) (api.Caller, error) { return s.f.caller, s.f.callerErr }
func (s server) RequestID(*http.Request) string           { return s.f.requestID }
func (s server) Failed(_ *http.Request, err error)        { s.f.failed = append(s.f.failed, err) }

func (s server) Answered(endpoint, method string, status int, _ time.Duration) {
	s.f.answered = append(s.f.answered, fmt.Sprint(method, " ", endpoint, " ", status))
}

// keeper is a store that remembers nothing of what it keeps.
type keeper struct{ guard.Store }

func (k keeper) Keep(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	return k.Refresh(ctx, c.User, c.ID, p)
}

// request is "METHOD path", and a body that is JSON unless change says otherwise.
func request(call, body string, change ...func(*http.Request)) *http.Request {
	method, path, _ := strings.Cut(call, " ")
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, f := range change {
		f(r)
	}
	return r
}

// call makes a call and wants this status.
func (f *fixture) call(status int, call, body string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	f.Helper()
	w := exchange(f, f, request(call, body, change...))
	if w.Code != status {
		f.Fatalf("%s %.100s: %d, want %d; %s", call, body, w.Code, status, w.Body)
	}
	return w
}

// guard makes a call that is answered with a guard.
func (f *fixture) guard(status int, call, body string) api.Guard {
	f.Helper()
	return decode[api.Guard](f, f.call(status, call, body))
}

// held is what a user holds, as clients read it.
type held struct {
	Guards           []api.Guard
	Limit, Remaining int
}

// list is what the user holds.
func (f *fixture) list() held {
	f.Helper()
	return decode[held](f, f.call(http.StatusOK, "GET /guards", ""))
}

// errorBody is a Problem as clients read it.
type errorBody struct {
	Status                 int
	Title, Detail, Message string
	ErrorCode              problem.Code
	Limit                  int
	Per                    string
	Guards                 []problem.Holder
	Total                  int
	RetryAfter             int
}

// refused makes a call that is answered with a problem.
func (f *fixture) refused(status int, code problem.Code, call, body string, change ...func(*http.Request)) (errorBody, http.Header) {
	f.Helper()
	w := f.call(status, call, body, change...)
	p := decode[errorBody](f, w)
	if p.Status != status || p.Title != http.StatusText(status) || p.ErrorCode != code || p.Detail == "" || p.Message != p.Detail {
		f.Fatalf("%s %.100s: problem %+v, want %s", call, body, p, code)
	}
	return p, w.Header()
}

func decode[T any](t testing.TB, w *httptest.ResponseRecorder) (v T) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("%v in %s", err, w.Body)
	}
	return v
}

// calls are all that the API has, but for events. {id} is a guard's.
var calls = []string{
	"GET /guards", "HEAD /guards", "POST /guards",
	"GET /guards/{id}", "HEAD /guards/{id}", "PATCH /guards/{id}", "DELETE /guards/{id}", "POST /guards/{id}/release",
}

func onGuard(call, id string) string { return strings.ReplaceAll(call, "{id}", id) }

func changes(call string) bool {
	return !strings.HasPrefix(call, "GET") && !strings.HasPrefix(call, "HEAD")
}

var someID = guard.DeriveID("nobody", "", "").String()

func TestStartCreatesAGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := open(t)
		f.caller.Base = "/as/seen/from/outside"
		time.Sleep(250 * time.Millisecond)
		now := time.Now().UTC()
		w := f.call(http.StatusCreated, "POST /guards", `{"streamId": "movie", "deviceId": "tv"}`)
		got := decode[api.Guard](t, w)
		want := api.Guard{
			GuardID: got.GuardID, StreamID: "movie", DeviceID: "tv", State: guard.Active,
			CreatedAt: now, ExpiresAt: now.Add(time.Minute), RemovedAt: now.Add(90 * time.Second), RefreshAfter: 20,
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if location := w.Header().Get("Location"); location != "/as/seen/from/outside/"+got.GuardID {
			t.Errorf("Location %q", location)
		}
	})
}

func TestStartIsIdempotentByPlaybackID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := open(t)
		first := f.guard(http.StatusCreated, "POST /guards", `{"playbackId": "p", "streamId": "one"}`)
		time.Sleep(10 * time.Second)
		want := first
		want.StreamID, want.ExpiresAt, want.RemovedAt = "two", first.ExpiresAt.Add(10*time.Second), first.RemovedAt.Add(10*time.Second)
		if got := f.guard(http.StatusOK, "POST /guards", `{"playbackId": "p", "streamId": "two"}`); !reflect.DeepEqual(got, want) {
			t.Errorf("the second call got %+v, want %+v", got, want)
		}
	})
}

// The caller's base is a path as it means, not as it is written.
func TestLocationIsAURLReference(t *testing.T) {
	f := open(t)
	f.caller.Base = "/tenant ä%/guards"
	w := f.call(http.StatusCreated, "POST /guards", ``)
	u, err := url.Parse(w.Header().Get("Location"))
	if want := f.caller.Base + "/" + decode[api.Guard](t, w).GuardID; err != nil || u.Path != want || u.String() != w.Header().Get("Location") {
		t.Errorf("Location %q (%v), want the path %q", w.Header().Get("Location"), err, want)
	}
}

func TestStartTakesTheIDOfThePlayback(t *testing.T) {
	own := guard.DeriveID("ann", "", "of the request")
	for _, test := range []struct {
		name   string
		caller *guard.ID
		body   string
		want   guard.ID
	}{
		{"playbackId", nil, `{"playbackId": "p"}`, guard.DeriveID("ann", "", "p")},
		{"the request's", &own, ``, own},
		{"playbackId before the request's", &own, `{"playbackId": "p"}`, guard.DeriveID("ann", "", "p")},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := open(t)
			f.caller.ID = test.caller
			for _, status := range []int{http.StatusCreated, http.StatusOK} {
				if g := f.guard(status, "POST /guards", test.body); g.GuardID != test.want.String() {
					t.Errorf("guard %s, want %v", g.GuardID, test.want)
				}
			}
		})
	}
}

func TestStartOfANamelessPlaybackMakesARandomID(t *testing.T) {
	f := open(t)
	f.caller.Device = "tv"
	first, second := f.guard(http.StatusCreated, "POST /guards", `{}`), f.guard(http.StatusCreated, "POST /guards", ``)
	if first.GuardID == second.GuardID {
		t.Error("the same id twice")
	}
	if id, err := guard.ParseID(first.GuardID); err != nil || !id.Of("ann", "tv") {
		t.Errorf("id %s (%v) is not of the user and the device", first.GuardID, err)
	}
}

func TestDevice(t *testing.T) {
	for _, test := range []struct {
		name         string
		known, said  [2]string // to the server, in the body; of two calls with one playbackId
		first        string    // device of the first call's guard
		samePlayback bool
	}{
		{"unknown to the server is the body's", [2]string{}, [2]string{"tv", "tv"}, "tv", true},
		{"known to the server wins", [2]string{"tv", "tv"}, [2]string{"phone", ""}, "tv", true},
		{"known to the server tells playbacks apart", [2]string{"tv", "phone"}, [2]string{}, "tv", false},
		{"named in the body does not", [2]string{}, [2]string{"tv", "phone"}, "tv", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := open(t)
			var guards [2]api.Guard
			for i, status := range []int{http.StatusCreated, http.StatusOK} {
				if i == 1 && !test.samePlayback {
					status = http.StatusCreated
				}
				f.caller.Device = test.known[i]
				guards[i] = f.guard(status, "POST /guards", fmt.Sprintf(`{"playbackId": "p", "deviceId": %q}`, test.said[i]))
			}
			if guards[0].DeviceID != test.first || (guards[0].GuardID == guards[1].GuardID) != test.samePlayback {
				t.Errorf("got %+v", guards)
			}
		})
	}
}

func TestPagesOfOtherOriginsChangeNothing(t *testing.T) {
	f := open(t)
	f.CrossOrigin = http.NewCrossOriginProtection()
	if err := f.CrossOrigin.AddTrustedOrigin("https://player.example.com"); err != nil {
		t.Fatal(err)
	}
	from := func(site, origin string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("Sec-Fetch-Site", site)
			r.Header.Set("Origin", origin)
		}
	}
	id := guard.NewID("ann", "").String()
	for _, call := range []string{"POST /guards", "PATCH /guards/" + id, "DELETE /guards/" + id, "POST /guards/" + id + "/release"} {
		f.refused(http.StatusForbidden, problem.CrossOrigin, call, "", from("cross-site", "https://evil.example"))
	}
	f.refused(http.StatusForbidden, problem.CrossOrigin, events, `sid="p",sta=e`, cmcd, from("cross-site", "https://evil.example"))
	f.call(http.StatusOK, "GET /guards", "", from("cross-site", "https://evil.example"))
	f.call(http.StatusCreated, "POST /guards", "", from("same-origin", "https://example.com"))
	f.call(http.StatusCreated, "POST /guards", "", from("cross-site", "https://player.example.com"))
}

func TestRefusalSaysWhichRuleAndOnlyWhatIsInItsWay(t *testing.T) {
	f := open(t)
	f.caller.Policy.Rules = []guard.Rule{{Per: "class", Limit: 1}}
	class := func(name string) guard.Labels { return guard.Labels("").With("class", name) }
	f.caller.Labels = class("tv")
	first := f.guard(http.StatusCreated, "POST /guards", `{"streamId": "one"}`)
	if first.Labels["class"] != "tv" {
		t.Errorf("the guard has labels %v", first.Labels)
	}
	f.caller.Labels = class("phone")
	f.guard(http.StatusCreated, "POST /guards", `{"streamId": "two"}`)
	f.caller.Labels = class("tv")
	p, header := f.refused(http.StatusTooManyRequests, problem.ReachedMaxGuards, "POST /guards", ``)
	if p.Limit != 1 || p.Per != "class" || len(p.Guards) != 1 || p.Guards[0].StreamID != "one" {
		t.Errorf("refused with %+v", p)
	}
	if want := "stream limit reached: 1 of 1 guards held per class"; p.Message != want {
		t.Errorf("message %q, want %q", p.Message, want)
	}
	if want := `"guards-per-class";q=1;qu="concurrent-requests"`; header.Get("RateLimit-Policy") != want {
		t.Errorf("RateLimit-Policy %q, want %q", header.Get("RateLimit-Policy"), want)
	}
}

func TestStartMayReplaceTheOldest(t *testing.T) {
	f := open(t)
	f.caller.Policy.Limit = 1
	first := f.guard(http.StatusCreated, "POST /guards", `{"playbackId": "first"}`)
	f.refused(http.StatusTooManyRequests, problem.ReachedMaxGuards, "POST /guards", `{"onLimit": "reject"}`)
	f.refused(http.StatusTooManyRequests, problem.ReachedMaxGuards, "POST /guards", `{"onLimit": "replace_device", "deviceId": "tv"}`)
	f.refused(http.StatusBadRequest, problem.InvalidBody, "POST /guards", `{"onLimit": "replace_all"}`)
	second := f.guard(http.StatusCreated, "POST /guards", `{"onLimit": "replace_oldest"}`)
	if got := f.list().Guards; len(got) != 1 || got[0].GuardID != second.GuardID {
		t.Errorf("the user holds %+v, want the second playback", got)
	}
	f.refused(http.StatusGone, problem.GuardReplaced, "PATCH /guards/"+first.GuardID, ``)
	f.guard(http.StatusCreated, "POST /guards", `{"playbackId": "first", "onLimit": "replace_oldest"}`) // who starts anew may
}

func TestOnLimitStandsInPlaceOfTheUsersOwnLimitAlone(t *testing.T) {
	f := open(t)
	f.caller.Policy.Rules = []guard.Rule{{Per: "stream", Limit: 1}}
	f.caller.Policy.AtLimit = guard.ReplaceOldest
	f.guard(http.StatusCreated, "POST /guards", `{"streamId": "one"}`)
	p, _ := f.refused(http.StatusTooManyRequests, problem.ReachedMaxGuards, "POST /guards", `{"streamId": "one", "onLimit": "replace_oldest"}`)
	if p.Per != "stream" {
		t.Errorf("refused by the limit per %q", p.Per)
	}
	f.guard(http.StatusCreated, "POST /guards", `{"streamId": "two"}`)
	p, _ = f.refused(http.StatusTooManyRequests, problem.ReachedMaxGuards, "POST /guards", `{"streamId": "three", "onLimit": "reject"}`)
	if p.Per != "" {
		t.Errorf("refused by the limit per %q", p.Per)
	}
	f.guard(http.StatusCreated, "POST /guards", `{"streamId": "three"}`)
}

func TestStartAtTheLimitSaysWhatIsInTheWay(t *testing.T) {
	for _, test := range []struct {
		limit, retryAfter int
		wait              string // in the RateLimit field
	}{
		{2, 50, ";t=50"},
		{1, 80, ";t=80"}, // lowered meanwhile: both must go
		{0, 0, ""},       // lowered so far that no wait helps
	} {
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := open(t)
				first := f.guard(http.StatusCreated, "POST /guards", `{"streamId": "one", "deviceId": "tv"}`)
				time.Sleep(30 * time.Second)
				second := f.guard(http.StatusCreated, "POST /guards", ``)
				time.Sleep(10*time.Second + time.Millisecond) // Retry-After rounds up
				f.caller.Policy.Limit = test.limit
				p, header := f.refused(http.StatusTooManyRequests, problem.ReachedMaxGuards, "POST /guards", ``)

				for name, want := range map[string]string{
					"Retry-After":      strings.TrimPrefix(test.wait, ";t="),
					"RateLimit":        `"guards";r=0` + test.wait,
					"RateLimit-Policy": fmt.Sprintf(`"guards";q=%d;qu="concurrent-requests"`, test.limit),
					"Cache-Control":    "no-store",
				} {
					if got := header.Get(name); got != want {
						t.Errorf("%s: %s, want %s", name, got, want)
					}
				}
				if p.Limit != test.limit || p.RetryAfter != test.retryAfter || len(p.Guards) != 2 {
					t.Fatalf("%+v", p)
				}
				for i, g := range []api.Guard{first, second} {
					want := problem.Holder{GuardID: g.GuardID, StreamID: g.StreamID, DeviceID: g.DeviceID, State: "active", CreatedAt: g.CreatedAt, RemovedAt: g.RemovedAt}
					if p.Guards[i] != want {
						t.Errorf("in the way: %+v, want %+v", p.Guards[i], want)
					}
				}
				if got := f.list(); len(got.Guards) != 2 || got.Limit != test.limit || got.Remaining != 0 {
					t.Errorf("list: %+v", got)
				}
			})
		})
	}
}

// hold has the user hold this many guards.
func (f *fixture) hold(n int) {
	f.Helper()
	policy := f.caller.Policy
	policy.Limit = guard.Unlimited
	for i := range n {
		claim := guard.Claim{User: f.caller.User, ID: guard.DeriveID(f.caller.User, "", fmt.Sprint("held ", i))}
		if v, err := f.store.Acquire(f.Context(), claim, policy); v.Outcome != guard.Admitted || err != nil {
			f.Fatal(v.Outcome, err)
		}
	}
}

func TestRefusalShowsSomeOfManyAndHowManyThereAre(t *testing.T) {
	f := open(t)
	f.hold(40)
	p, _ := f.refused(http.StatusTooManyRequests, problem.ReachedMaxGuards, "POST /guards", ``)
	if len(p.Guards) != guard.MaxInTheWay || p.Total != 40 || p.Detail != "stream limit reached: 40 of 2 guards held" {
		t.Errorf("%d guards of %d in the way: %s", len(p.Guards), p.Total, p.Detail)
	}
}

func TestUnlimitedIsListedAndNeverRefused(t *testing.T) {
	f := open(t)
	f.caller.Policy.Limit = guard.Unlimited
	f.caller.Device = "tv"
	f.hold(guard.MaxLimit - 1)
	f.guard(http.StatusCreated, "POST /guards", ``)
	id := guard.DeriveID("ann", "tv", "p").String()
	want := api.Guard{GuardID: id, StreamID: "movie", DeviceID: "tv", RefreshAfter: 20}
	for range 2 {
		if got := f.guard(http.StatusOK, "POST /guards", `{"playbackId": "p", "streamId": "movie"}`); !reflect.DeepEqual(got, want) {
			t.Errorf("beyond what a store keeps: %+v, want %+v", got, want)
		}
	}
	f.refused(http.StatusNotFound, problem.GuardDoesNotExist, "PATCH /guards/"+id, ``)
	list := f.call(http.StatusOK, "GET /guards", ``)
	if held := decode[held](t, list); len(held.Guards) != guard.MaxLimit {
		t.Errorf("%d guards are listed", len(held.Guards))
	}
	if body := list.Body.String(); strings.Contains(body, `"limit"`) || strings.Contains(body, `"remaining"`) {
		t.Errorf("a limit is shown: …%s", body[len(body)-200:])
	}
}

func TestRefreshMovesBothTimesUntilTheGuardIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := open(t)
		want := f.guard(http.StatusCreated, "POST /guards", `{"streamId": "movie"}`)
		call := "PATCH /guards/" + want.GuardID
		for _, body := range []string{``, `{}`} {
			const lapsed = 89 * time.Second
			time.Sleep(lapsed)
			want.ExpiresAt, want.RemovedAt = want.ExpiresAt.Add(lapsed), want.RemovedAt.Add(lapsed)
			if got := f.guard(http.StatusOK, call, body); !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		}
		time.Sleep(90 * time.Second)
		f.refused(http.StatusNotFound, problem.GuardDoesNotExist, call, ``)
	})
}

func TestRevokedPlaybackIsGone(t *testing.T) {
	f := open(t)
	g := f.guard(http.StatusCreated, "POST /guards", `{"playbackId": "p"}`)
	id, err := guard.ParseID(g.GuardID)
	if err != nil {
		t.Fatal(err)
	}
	if found, err := f.store.Revoke(t.Context(), "ann", id, f.caller.Policy); !found || err != nil {
		t.Fatal(found, err)
	}
	f.refused(http.StatusGone, problem.GuardRevoked, "PATCH /guards/"+g.GuardID, ``)
	f.refused(http.StatusGone, problem.GuardRevoked, "POST /guards", `{"playbackId": "p"}`)
	f.refused(http.StatusNotFound, problem.GuardDoesNotExist, "GET /guards/"+g.GuardID, ``)
}

func TestReleaseFreesTheSlotOnce(t *testing.T) {
	beacon := func(r *http.Request) { r.Header.Set("Content-Type", "text/plain;charset=UTF-8") }
	for call, body := range map[string]string{
		"DELETE /guards/{id}":       "",
		"POST /guards/{id}/release": "anything " + strings.Repeat("at all", api.MaxBody),
	} {
		t.Run(call, func(t *testing.T) {
			f := open(t)
			f.caller.Policy.Limit = 1
			call := onGuard(call, f.guard(http.StatusCreated, "POST /guards", ``).GuardID)
			f.call(http.StatusNoContent, call, body, beacon)
			f.refused(http.StatusNotFound, problem.GuardDoesNotExist, call, body, beacon)
			f.call(http.StatusCreated, "POST /guards", ``)
		})
	}
}

func TestListAndGetShowWhatIsHeld(t *testing.T) {
	f := open(t)
	if w := f.call(http.StatusOK, "GET /guards", ``); !strings.HasPrefix(w.Body.String(), `{"guards":[],"limit":2,"remaining":2}`) {
		t.Errorf("nothing held: %s", w.Body)
	}
	var held []api.Guard
	for _, stream := range []string{"one", "two"} {
		g := f.guard(http.StatusCreated, "POST /guards", fmt.Sprintf(`{"streamId": %q}`, stream))
		held = append(held, g)
		if got := f.guard(http.StatusOK, "GET /guards/"+g.GuardID, ``); !reflect.DeepEqual(got, g) {
			t.Errorf("got %+v, want %+v", got, g)
		}
		if got := f.guard(http.StatusOK, "GET /guards/"+strings.ToUpper(g.GuardID), ``); !reflect.DeepEqual(got, g) {
			t.Errorf("in capitals: got %+v, want %+v", got, g)
		}
		got := f.list()
		if fmt.Sprint(got.Guards) != fmt.Sprint(held) || got.Limit != 2 || got.Remaining != 2-len(held) {
			t.Errorf("list: %+v, want %+v", got, held)
		}
	}
	f.call(http.StatusOK, "HEAD /guards", ``)
	f.call(http.StatusOK, "HEAD /guards/"+held[0].GuardID, ``)
	f.call(http.StatusNotFound, "HEAD /guards/"+someID, ``)
}

// A guard is shown with its state, and the slots that a start may take count as free.
func TestStateIsShownAndWhatMayBeTakenIsFree(t *testing.T) {
	for reclaim, remaining := range map[guard.Reclaim]int{guard.ReclaimClosed: 1, guard.ReclaimLapsed: 2, guard.ReclaimOff: 0} {
		synctest.Test(t, func(t *testing.T) {
			f := open(t)
			f.caller.Policy.Limit, f.caller.Policy.Reclaim = 3, reclaim
			lapsed := f.guard(http.StatusCreated, "POST /guards", `{"streamId": "lapsed"}`)
			time.Sleep(61 * time.Second)
			closed := f.guard(http.StatusCreated, "POST /guards", `{"streamId": "closed"}`)
			f.guard(http.StatusCreated, "POST /guards", `{"streamId": "active"}`)
			id, err := guard.ParseID(closed.GuardID)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if done, err := f.store.CloseGuard(t.Context(), f.caller.User, id); !done || err != nil {
				t.Fatal(done, err)
			}
			list := f.list()
			for _, g := range list.Guards {
				if string(g.State) != g.StreamID {
					t.Errorf("the guard of %s is shown as %s", g.StreamID, g.State)
				}
			}
			if got := list.Guards[1].ExpiresAt; !got.Equal(time.Now()) {
				t.Errorf("the closed guard was active until %v, want now", got)
			}
			if len(list.Guards) != 3 || list.Remaining != remaining {
				t.Errorf("reclaim %d: %d guards, %d remaining, want 3 and %d", reclaim, len(list.Guards), list.Remaining, remaining)
			}
			for _, g := range []api.Guard{lapsed, closed} {
				if got := f.guard(http.StatusOK, "PATCH /guards/"+g.GuardID, ``); got.State != guard.Active {
					t.Errorf("refreshed, the guard of %s is shown as %s", got.StreamID, got.State)
				}
			}
		})
	}
}

// What has just been started is there when it is asked for by its id.
func TestOnlyTheListMayBeAMomentOld(t *testing.T) {
	f := open(t)
	started := f.guard(http.StatusCreated, "POST /guards", ``)
	f.Store = lagging{f.API.Store}
	if held := f.list(); len(held.Guards) != 0 {
		t.Errorf("the list is the store's own: %+v", held)
	}
	f.guard(http.StatusOK, onGuard("GET /guards/{id}", started.GuardID), ``)
}

// lagging is a store with a copy that has not heard of anything yet.
type lagging struct{ api.Store }

func (l lagging) List(ctx context.Context, user string) ([]guard.Guard, error) {
	if guard.IsForDisplay(ctx) {
		return nil, nil
	}
	return l.Store.List(ctx, user)
}

func TestGuardOfAnotherUserDoesNotExist(t *testing.T) {
	for _, call := range calls {
		if !strings.Contains(call, "{id}") {
			continue
		}
		t.Run(call, func(t *testing.T) {
			f := open(t)
			g := f.guard(http.StatusCreated, "POST /guards", ``)
			f.caller.User = "bob"
			f.refused(http.StatusNotFound, problem.GuardDoesNotExist, onGuard(call, g.GuardID), ``)
			if got := f.list(); len(got.Guards) != 0 {
				t.Errorf("bob's list: %+v", got)
			}
			f.caller.User = "ann"
			if got := f.guard(http.StatusOK, "GET /guards/"+g.GuardID, ``); !reflect.DeepEqual(got, g) {
				t.Errorf("ann's guard is %+v, was %+v", got, g)
			}
		})
	}
}

func TestGuardIDMustBeAUUID(t *testing.T) {
	f := open(t)
	for _, call := range calls {
		if !strings.Contains(call, "{id}") {
			continue
		}
		for _, id := range []string{"x", "release", someID[1:], someID + "0", "{" + someID[2:] + "}", strings.Replace(someID, "-", "g", 1), strings.Repeat("0", 4000)} {
			p, _ := f.refused(http.StatusBadRequest, problem.InvalidGuardID, onGuard(call, id), ``)
			if len(p.Detail) > 200 {
				t.Errorf("a detail of %d bytes", len(p.Detail))
			}
		}
	}
}

func TestBody(t *testing.T) {
	typed := func(mediaType string) func(*http.Request) {
		return func(r *http.Request) { r.Header["Content-Type"] = strings.Fields(mediaType) }
	}
	padded := func(n int) string { return fmt.Sprintf("%-*s", n, "{}") }
	stream := func(value string) string { return fmt.Sprintf(`{"streamId": "%s"}`, value) }
	label := strings.Repeat("é", 127) + "x"
	for _, test := range []struct {
		name, body string
		mediaType  func(*http.Request)
		status     int
		code       problem.Code
	}{
		{name: "empty"},
		{name: "empty, of any media type", mediaType: typed("text/plain")},
		{name: "empty object", body: ` {} `},
		{name: "with a charset", body: `{}`, mediaType: typed("application/json;charset=utf-8")},
		{name: "media type in capitals", body: `{}`, mediaType: typed("Application/JSON")},
		{name: "4096 bytes", body: padded(api.MaxBody)},
		{"4097 bytes", padded(api.MaxBody + 1), nil, http.StatusRequestEntityTooLarge, problem.BodyTooLarge},
		{"another media type", `{}`, typed("text/plain"), http.StatusUnsupportedMediaType, problem.UnsupportedMedia},
		{"of JSON's family", `{}`, typed("application/merge-patch+json"), http.StatusUnsupportedMediaType, problem.UnsupportedMedia},
		{"no media type", `{}`, typed(""), http.StatusUnsupportedMediaType, problem.UnsupportedMedia},
		{"space only", ` `, nil, http.StatusBadRequest, problem.InvalidBody},
		{"array", `[]`, nil, http.StatusBadRequest, problem.InvalidBody},
		{"null", `null`, nil, http.StatusBadRequest, problem.InvalidBody},
		{"string", `"movie"`, nil, http.StatusBadRequest, problem.InvalidBody},
		{"cut off", `{"streamId": "mov`, nil, http.StatusBadRequest, problem.InvalidBody},
		{"two objects", `{} {}`, nil, http.StatusBadRequest, problem.InvalidBody},
		{"trailing text", `{}x`, nil, http.StatusBadRequest, problem.InvalidBody},
		{"unknown member", `{"stream": "movie"}`, nil, http.StatusBadRequest, problem.InvalidBody},
		{"user", `{"user": "bob"}`, nil, http.StatusBadRequest, problem.InvalidBody},
		{"number", `{"streamId": 1}`, nil, http.StatusBadRequest, problem.InvalidBody},
		{"object inside", `{"deviceId": {}}`, nil, http.StatusBadRequest, problem.InvalidBody},
		{"control character", stream(`a\u0000b`), nil, http.StatusBadRequest, problem.InvalidBody},
		{"control character of C1", stream("a\u0085b"), nil, http.StatusBadRequest, problem.InvalidBody},
		{"256 bytes in fewer characters", stream("y" + label), nil, http.StatusBadRequest, problem.InvalidBody},
		{"256 bytes of playback", fmt.Sprintf(`{"playbackId": %q}`, "y"+label), nil, http.StatusBadRequest, problem.InvalidBody},
		{"256 bytes of device", fmt.Sprintf(`{"deviceId": %q}`, "y"+label), nil, http.StatusBadRequest, problem.InvalidBody},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := open(t)
			g := f.guard(http.StatusCreated, "POST /guards", `{"streamId": "`+label+`"}`)
			change := test.mediaType
			if change == nil {
				change = func(*http.Request) {}
			}
			for call, good := range map[string]int{"POST /guards": http.StatusCreated, "PATCH /guards/" + g.GuardID: http.StatusOK} {
				if test.code == "" {
					f.call(good, call, test.body, change)
				} else {
					f.refused(test.status, test.code, call, test.body, change)
				}
			}
			if held := len(f.list().Guards); held == 2 && test.code != "" {
				t.Error("a refused call made a guard")
			}
		})
	}
}

func TestAMemberOfTheWrongTypeIsNamed(t *testing.T) {
	p, _ := open(t).refused(http.StatusBadRequest, problem.InvalidBody, "POST /guards", `{"deviceId": 1}`)
	if want := "deviceId is a JSON number, want a string"; p.Detail != want {
		t.Errorf("the problem is %q, want %q", p.Detail, want)
	}
}

func TestMethods(t *testing.T) {
	for path, allow := range map[string]string{
		"/guards":                           "GET, HEAD, POST, OPTIONS",
		"/guards/" + someID:                 "GET, HEAD, PATCH, DELETE, OPTIONS",
		"/guards/" + someID + "/release":    "POST, OPTIONS",
		"/guards/" + someID + "/release///": "POST, OPTIONS",
		"/guards/cmcd":                      "POST, OPTIONS",
	} {
		t.Run(path, func(t *testing.T) {
			f := open(t)
			f.callerErr = errors.New("nobody is asked who calls")
			for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"} {
				if strings.Contains(allow, method) {
					continue
				}
				if _, header := f.refused(http.StatusMethodNotAllowed, problem.MethodNotAllowed, method+" "+path, ``); header.Get("Allow") != allow {
					t.Errorf("%s: Allow %q, want %q", method, header.Get("Allow"), allow)
				}
			}
			if w := f.call(http.StatusNoContent, "OPTIONS "+path, ``); w.Header().Get("Allow") != allow {
				t.Errorf("OPTIONS: Allow %q, want %q", w.Header().Get("Allow"), allow)
			}
		})
	}
}

// Who may ask is for the server to say, before the API answers.
func TestPreflightSaysTheMethodsOfThePath(t *testing.T) {
	ask := map[string]string{"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "content-type"}
	all := http.Header{
		"Allow":                        {"GET, HEAD, PATCH, DELETE, OPTIONS"},
		"Access-Control-Allow-Origin":  {"https://player.example.com"},
		"Access-Control-Allow-Methods": {"GET, HEAD, PATCH, DELETE, OPTIONS"},
		"Access-Control-Allow-Headers": {"content-type"},
		"Access-Control-Max-Age":       {"600"},
	}
	for _, test := range []struct {
		name          string
		asks, allowed bool
		want          []string
	}{
		{"of an allowed origin", true, true, slices.Collect(maps.Keys(all))},
		{"of another", true, false, []string{"Allow"}},
		{"no preflight", false, true, []string{"Allow", "Access-Control-Allow-Origin"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := open(t)
			f.callerErr = errors.New("nobody is asked who calls")
			server := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if test.allowed {
					w.Header().Set("Access-Control-Allow-Origin", all.Get("Access-Control-Allow-Origin"))
				}
				f.ServeHTTP(w, r)
			})
			w := exchange(t, server, request("OPTIONS /guards/"+someID, ``, func(r *http.Request) {
				for name, value := range ask {
					if test.asks {
						r.Header.Set(name, value)
					}
				}
			}))
			want := http.Header{"Cache-Control": {"no-store"}}
			for _, name := range test.want {
				want[name] = all[name]
			}
			if w.Code != http.StatusNoContent || !reflect.DeepEqual(w.Header(), want) {
				t.Errorf("%d %v, want 204 %v", w.Code, w.Header(), want)
			}
		})
	}
}

func TestProblemsNameTheRequestAndAnswersTheEndpoint(t *testing.T) {
	f := open(t)
	f.requestID = "0b5e"
	for _, call := range []string{"GET /guards/" + someID, "PUT /guards/cmcd", "GET /elsewhere"} {
		if w := exchange(t, f, request(call, ``)); !strings.Contains(w.Body.String(), `"instance":"urn:uuid:0b5e"`) {
			t.Errorf("%s: %s", call, w.Body)
		}
	}
	want := []string{"GET /guards/{id} 404", "PUT /guards/cmcd 405", "GET other 404"}
	if !slices.Equal(f.answered, want) {
		t.Errorf("Answered heard %q, want %q", f.answered, want)
	}
}

func TestUnknownPath(t *testing.T) {
	f := open(t)
	for _, path := range []string{"/", "/other", "/guardsx", "/guards" + someID, "/guards/" + someID + "/other", "/guards/" + someID + "/release/x", "/guards/a/b/" + strings.Repeat("c", 4000)} {
		for _, method := range []string{"GET", "POST", "OPTIONS"} {
			if p, _ := f.refused(http.StatusNotFound, problem.NotFound, method+" "+path, ``); len(p.Detail) > 200 {
				t.Errorf("a detail of %d bytes", len(p.Detail))
			}
		}
	}
}

func TestTrailingSlashChangesNothing(t *testing.T) {
	f := open(t)
	w := f.call(http.StatusCreated, "POST /guards/", ``)
	location := w.Header().Get("Location")
	if want := "/guards/" + decode[api.Guard](t, w).GuardID; location != want {
		t.Errorf("Location %q, want %q", location, want)
	}
	f.call(http.StatusOK, "GET /guards/", ``)
	f.call(http.StatusOK, "GET "+location+"/", ``)
	f.call(http.StatusNoContent, "POST "+location+"/release/", ``)
}

func TestEveryCallNeedsACaller(t *testing.T) {
	missing := problem.New(problem.MissingUser, "no user")
	away := errors.New("user database is away")
	for _, test := range []struct {
		name   string
		err    error
		status int
		code   problem.Code
		heard  []error
	}{
		{"missing", missing, http.StatusUnauthorized, problem.MissingUser, nil},
		{"missing, with context", fmt.Errorf("asking who calls: %w", missing), http.StatusUnauthorized, problem.MissingUser, nil},
		{"invalid", problem.New(problem.InvalidUser, "user has 257 bytes"), http.StatusBadRequest, problem.InvalidUser, nil},
		{"not to be found out", away, http.StatusServiceUnavailable, problem.StoreUnavailable, []error{away}},
	} {
		for _, call := range calls {
			t.Run(test.name+"/"+call, func(t *testing.T) {
				f := open(t)
				f.callerErr = test.err
				f.refused(test.status, test.code, onGuard(call, someID), ``)
				if !slices.Equal(f.failed, test.heard) {
					t.Errorf("Failed heard %v, want %v", f.failed, test.heard)
				}
			})
		}
	}
}

// away is a store that cannot answer.
type away struct{ api.Store }

var errAway = errors.New("store is away")

func (away) Acquire(context.Context, guard.Claim, guard.Policy) (guard.Verdict, error) {
	return guard.Verdict{}, errAway
}

func (away) Refresh(context.Context, string, guard.ID, guard.Policy) (guard.Verdict, error) {
	return guard.Verdict{}, errAway
}

func (away) Keep(context.Context, guard.Claim, guard.Policy) (guard.Verdict, error) {
	return guard.Verdict{}, errAway
}

func (away) Release(context.Context, string, guard.ID, guard.Policy) (bool, error) {
	return false, errAway
}

func (away) List(context.Context, string) ([]guard.Guard, error) { return nil, errAway }

func TestStoreThatCannotAnswerIsNotARefusal(t *testing.T) {
	for _, call := range calls {
		t.Run(call, func(t *testing.T) {
			f := open(t)
			f.Store = away{}
			p, header := f.refused(http.StatusServiceUnavailable, problem.StoreUnavailable, onGuard(call, someID), ``)
			if p.RetryAfter != 1 || header.Get("Retry-After") != "1" {
				t.Errorf("retry after %d, Retry-After %s, want 1", p.RetryAfter, header.Get("Retry-After"))
			}
			if strings.Contains(p.Detail, errAway.Error()) {
				t.Errorf("the answer tells of the store: %s", p.Detail)
			}
			if len(f.failed) != 1 || !errors.Is(f.failed[0], errAway) {
				t.Errorf("Failed heard %v", f.failed)
			}
		})
	}
}

// heedful is a store that answers nobody who has gone.
type heedful struct{ api.Store }

func (s heedful) Acquire(ctx context.Context, c guard.Claim, p guard.Policy) (guard.Verdict, error) {
	if ctx.Err() != nil {
		return guard.Verdict{}, ctx.Err()
	}
	return s.Store.Acquire(ctx, c, p)
}

func (s heedful) Release(ctx context.Context, user string, id guard.ID, p guard.Policy) (bool, error) {
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	return s.Store.Release(ctx, user, id, p)
}

func TestClientThatHasGoneIsNoFailureOfTheStore(t *testing.T) {
	f := open(t)
	f.Store = heedful{f.API.Store}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.API.ServeHTTP(httptest.NewRecorder(), request("POST /guards", ``).WithContext(ctx))
	if want := []string{"POST /guards 499"}; len(f.failed) > 0 || !slices.Equal(f.answered, want) {
		t.Errorf("Failed heard %v, Answered %v, want nothing and %v", f.failed, f.answered, want)
	}
}

// A page that closes sends its release and is gone.
func TestReleaseByAClientThatHasGone(t *testing.T) {
	for call, change := range map[string]func(*http.Request){
		"DELETE /guards/{id}":       func(*http.Request) {},
		"POST /guards/{id}/release": func(*http.Request) {},
		events:                      cmcd,
	} {
		f := open(t)
		f.Store = heedful{f.API.Store}
		g := f.guard(http.StatusCreated, "POST /guards", `{"playbackId": "a"}`)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		f.API.ServeHTTP(httptest.NewRecorder(), request(onGuard(call, g.GuardID), `sid="a",sta=e`, change).WithContext(ctx))
		if held := f.list().Guards; len(held) > 0 {
			t.Errorf("%s: %+v is still held", call, held)
		}
	}
}

func TestEarlyDataChangesNothing(t *testing.T) {
	early := func(r *http.Request) { r.TLS = &tls.ConnectionState{} }
	atProxy := func(r *http.Request) { r.Header.Set("Early-Data", "1") }
	twice := func(r *http.Request) { r.Header["Early-Data"] = []string{"0", "1"} }
	late := func(r *http.Request) { r.TLS = &tls.ConnectionState{HandshakeComplete: true} }
	for _, call := range calls {
		t.Run(call, func(t *testing.T) {
			f := open(t)
			g := f.guard(http.StatusCreated, "POST /guards", ``)
			call := onGuard(call, g.GuardID)
			if !changes(call) {
				f.call(http.StatusOK, call, ``, early)
				return
			}
			f.refused(http.StatusTooEarly, problem.TooEarly, call, ``, early)
			f.refused(http.StatusTooEarly, problem.TooEarly, call, ``, atProxy)
			f.refused(http.StatusTooEarly, problem.TooEarly, call, ``, twice)
			if got := f.list(); len(got.Guards) != 1 || !reflect.DeepEqual(got.Guards[0], g) {
				t.Errorf("held after early data: %+v, want %+v", got, g)
			}
			if w := exchange(t, f, request(call, ``, late)); w.Code >= 300 {
				t.Errorf("after the handshake: %d", w.Code)
			}
		})
	}
}

// FuzzStartBody: whatever the body, the answer is one of the document's and
// bounded, and a guard that was made is of what the body said.
func FuzzStartBody(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, ` { } `, `{"streamId": "movie", "deviceId": "tv", "playbackId": "p"}`, `{"STREAMID": null}`, `{"streamId": "a", "streamId": "b"}`,
		`{"streamId": "\ud800"}`, "{\"streamId\": \"\xff\"}", `{"streamId": "\u0000"}`, `{"user": "bob"}`, `{"streamId": 1}`, `{}{}`, `[]`, `null`, `"`,
		`{"` + strings.Repeat("<", 4000) + `": 1}`, `{"streamId": ` + strings.Repeat("[", 4000), strings.Repeat(" ", api.MaxBody+1),
	} {
		f.Add([]byte(seed))
	}
	fix := open(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		w, _ := answer(t, fix, request("POST /guards", string(body)))
		if w.Body.Len() > 1<<11 {
			t.Errorf("an answer of %d bytes", w.Body.Len())
		}
		if w.Code != http.StatusCreated {
			if w.Code != http.StatusBadRequest && w.Code != http.StatusRequestEntityTooLarge {
				t.Errorf("answer %d", w.Code)
			}
			return
		}
		g := decode[struct{ StreamID, DeviceID string }](t, w)
		for _, label := range []string{g.StreamID, g.DeviceID} {
			if len(label) > guard.MaxLabel || strings.ContainsFunc(label, unicode.IsControl) {
				t.Errorf("label %q", label)
			}
		}
		if w, _ := answer(t, fix, request("DELETE "+w.Header().Get("Location"), "")); w.Code != http.StatusNoContent {
			t.Errorf("release: %d", w.Code)
		}
	})
}
