package caddymodule

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/streamguard/streamguard/redisstore/redistest"
)

// A bucket is the same on every Caddy, and stays so.
func TestBucketsOfUsersStay(t *testing.T) {
	for user, want := range map[string]string{"alice": "79", "bob": "44", "carol": "62", "": "61", "user-0007": "20"} {
		if got := bucket(user); got != want {
			t.Errorf("the bucket of %q is %s, want %s", user, got, want)
		}
	}
	// Whatever names users have, a hundredth of them is in each.
	for name, of := range map[string]func(n int) string{
		"numbers":   func(n int) string { return fmt.Sprint(n) },
		"addresses": func(n int) string { return fmt.Sprintf("viewer%d@example.com", n) },
		"hashes":    func(n int) string { return fmt.Sprintf("%08x-%04x", uint32(n)*2654435761, n*40503%65536) },
		"even":      func(n int) string { return fmt.Sprint(n * 1000) },
	} {
		const users = 30_000
		in := make(map[string]int)
		for n := range users {
			in[bucket(of(n))]++
		}
		if fewest, most := slices.Min(slices.Collect(maps.Values(in))), slices.Max(slices.Collect(maps.Values(in))); len(in) != 100 || fewest < users/100*3/4 || most > users/100*5/4 {
			t.Errorf("%s: %d buckets of %d to %d users", name, len(in), fewest, most)
		}
	}
}

// One per cent of the users are enforced, then ten, and these among them: always the
// same, at each Caddy, over a reload, and in all that the gate answers.
func TestACanaryIsAlwaysTheSameUsers(t *testing.T) {
	redis := redistest.Start(t).Addr
	answered := 200
	recipe := func(buckets string) string {
		answered++
		site := func(path, timeout string) string { // another timeout is another store: it knows nothing of the other's leases
			return "handle_path " + path + "/* {\nmap {http.stream_guard.bucket} {guard_mode} {\n" + buckets + " enforce\ndefault observe\n}\nstream_guard {\n" + user +
				"limit 1\nmode {guard_mode}\nstore redis redis://" + redis + " {\ntimeout " + timeout + "\n}\n}\nrespond {http.stream_guard.bucket}\n}\n"
		}
		return "SITE {\n" + site("/one", "10s") + site("/two", "11s") + fmt.Sprintf("respond /answered %d\n}", answered)
	}
	s := serve(t, recipe("0"))
	const users = 300
	name := func(n int) string { return fmt.Sprintf("user-%04d", n) }
	status := func(method, path, user string, fields ...string) (int, http.Header) {
		t.Helper()
		r, err := http.NewRequest(method, "http://"+s.addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-User-Id", user)
		for i := 0; i < len(fields); i += 2 {
			r.Header.Set(fields[i], fields[i+1])
		}
		resp := s.send(r)
		resp.Body.Close()
		return resp.StatusCode, resp.Header
	}
	for n := range users {
		s.call(200, "GET", "/one/v/first/1.ts", "X-User-Id", name(n), sid, `sid="first"`)
	}
	round := 0
	// enforced are the users whose second playback is refused, half of them at either
	// Caddy.
	enforced := func() (refused []string) {
		t.Helper()
		round++
		for n := range users {
			at := []string{"/one", "/two"}[(n+round)%2]
			if code, _ := status("GET", fmt.Sprintf("%s/v/more%d/1.ts", at, round), name(n), sid, fmt.Sprintf(`sid="%d"`, round)); code == 429 {
				refused = append(refused, name(n))
			}
		}
		return refused
	}
	outcome := func(mode, outcome string) float64 { return measured(starts.WithLabelValues(mode, outcome)) }
	before := [4]float64{outcome("enforce", "refused"), outcome("enforce", "admitted"), outcome("observe", "refused"), outcome("observe", "admitted")}

	one := enforced()
	if len(one) < users/300 || len(one) > users/40 {
		t.Errorf("%d of %d users are enforced, want about one per cent", len(one), users)
	}
	// Of the canary's starts all were refused, and the others would have been.
	after := [4]float64{outcome("enforce", "refused"), outcome("enforce", "admitted"), outcome("observe", "refused"), outcome("observe", "admitted")}
	if int(after[0]-before[0]) != len(one) || after[1] != before[1] || int(after[2]-before[2]) != users-len(one) || after[3] != before[3] {
		t.Errorf("counted %v, before %v; %d were refused", after, before, len(one))
	}
	expect(t, "at the other Caddy", enforced(), one...)
	alike := func(refused []string) {
		t.Helper()
		for n := range users {
			user, want := name(n), [2]int{200, 201}
			if slices.Contains(refused, user) {
				want = [2]int{429, 429}
			} else if n%25 > 0 {
				continue
			}
			code, h := status("GET", "/two/v/film/master.m3u8", user)
			if code != 302 {
				t.Fatalf("%s: a manifest is answered %d", user, code)
			}
			at := "/two/v/film/" + h.Get("Location")
			if code, _ := status("GET", strings.Replace(at, "master.m3u8", "1.ts", 1), user); code != want[0] {
				t.Errorf("%s, in bucket %s: %d under a token, want %d", user, bucket(user), code, want[0])
			}
			if code, _ := status("POST", "/one/guards", user); code != want[1] {
				t.Errorf("%s, in bucket %s: POST /guards: %d, want %d", user, bucket(user), code, want[1])
			}
		}
	}
	alike(one)

	reload := func(buckets string) {
		t.Helper()
		config := recipe(buckets)
		s.reload(config, answered)
	}
	reload("0")
	expect(t, "after a reload", enforced(), one...)
	reload("~^[0-9]$")
	ten := enforced()
	if len(ten) < users*7/100 || len(ten) > users*13/100 {
		t.Errorf("%d of %d users are enforced, want about ten per cent", len(ten), users)
	}
	for _, user := range one {
		if !slices.Contains(ten, user) {
			t.Errorf("%s is enforced no more", user)
		}
	}
	alike(ten)
	reload("~^[1-4]?[0-9]$")
	if half := enforced(); len(half) < users*4/10 || len(half) > users*6/10 || !slices.Contains(half, ten[0]) {
		t.Errorf("%d of %d users are enforced, want about half", len(half), users)
	}
}
