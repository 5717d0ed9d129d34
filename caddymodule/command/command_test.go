package command

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// answers has an operator whose Caddy gives the same answer to every call.
func answers(t *testing.T, status int, body string) *operator {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(s.Close)
	return &operator{address: s.Listener.Addr().String(), patience: time.Minute}
}

func TestOperatorsAreToldWhatIsWrongWithAnAnswer(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		says   string
	}{
		{503, `{"error":"store redis: away"}`, "store redis: away"},
		{404, `{"message":"no such page"}`, "is built without stream_guard"},
		{404, `null`, "is built without stream_guard"},
		{502, `{}`, "502: {}"},
		{502, "<html>\x1b[31m", `"502: <html>\x1b[31m"`},
		{200, `<html>`, "reading what 127.0.0.1:"},
		{200, ``, "reading what 127.0.0.1:"},
		{200, `{"store":"memory"}`, "reading what 127.0.0.1:"},
		{200, `[{"store":"memory","error":"away\u001b"}]`, `store memory: "away\x1b"`},
	} {
		o := answers(t, c.status, c.body)
		for name, command := range map[string]func() error{"list": func() error { return o.list("u") }, "top": func() error { return o.top(3) }} {
			if err := command(); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s, answered %d %q: %v, want %q", name, c.status, c.body, err, c.says)
			}
			if o.out.Len() > 0 {
				t.Errorf("%s, answered %d %q, shows %q", name, c.status, c.body, &o.out)
			}
		}
	}
}

func TestOperatorsDoNotWaitWithoutEnd(t *testing.T) {
	done := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "[")
		http.NewResponseController(w).Flush()
		<-done
	}))
	defer s.Close()
	defer close(done)
	o := &operator{address: s.Listener.Addr().String(), patience: time.Millisecond}
	if err := o.list("u"); err == nil || !strings.HasPrefix(err.Error(), "no Caddy answers at "+o.address) {
		t.Errorf("error %v", err)
	}
}

// What comes on the standard input comes once.
func TestCheckFindsTheAddressInTheConfigItValidates(t *testing.T) {
	address := answers(t, 200, `[{"store":"memory","answers":true}]`).address
	config := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(config, []byte(`{"admin":{"listen":"`+address+`"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer func(stdin *os.File) { os.Stdin = stdin }(os.Stdin)
	os.Stdin = in
	o := &operator{config: "-", patience: time.Minute}
	if err := o.check(); err != nil || o.address != address || !strings.HasPrefix(o.out.String(), "- is valid.\nSTORE ") {
		t.Errorf("asked %s, want %s: %v\n%s", o.address, address, err, &o.out)
	}
}

// By default that address is another Caddy's.
func TestAConfigWithAdminOffIsNotAskedElsewhere(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(config, []byte(`{"admin":{"disabled":true}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, command := range map[string]func(*operator) error{
		"list": func(o *operator) error { return o.list("u") }, "revoke": func(o *operator) error { return o.revoke("u") },
		"top": func(o *operator) error { return o.top(3) }, "report": func(o *operator) error { return o.report(new(pageFlags)) }, "check": (*operator).check,
		"observe": func(o *operator) error { return o.observe(false, nil) },
	} {
		o := &operator{config: config, patience: time.Minute}
		if err := command(o); err == nil || err.Error() != "admin address: "+config+" says admin off: a Caddy that runs it cannot be asked" {
			t.Errorf("%s: %v", name, err)
		}
		// Whoever gives the address means it.
		o = answers(t, 404, `{"error":"somebody answers"}`)
		o.config = config
		if err := command(o); err == nil || err.Error() != "somebody answers" {
			t.Errorf("%s with an address: %v", name, err)
		}
	}
}

// Names of stores end in a colon.
func TestTitlesHaveOneColon(t *testing.T) {
	o := answers(t, 200, `[{"store":"redis 10.0.0.1:6379 tv:","users":2,"guards":3}]`)
	if err := o.top(3); err != nil || o.out.String() != "3 guards held by 2 users in redis 10.0.0.1:6379 tv:\n" {
		t.Errorf("%v, %q", err, &o.out)
	}
	o = answers(t, 200, `[{"store":"redis 10.0.0.1:6379 tv:","playbacks":7}]`)
	if err := o.report(new(pageFlags)); err != nil || !strings.HasPrefix(o.out.String(), "7 playbacks started since ") || strings.Contains(o.out.String(), "::") {
		t.Errorf("%v, %q", err, &o.out)
	}
}

func TestWhatCannotBeShownIsAnError(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	defer func(stdout *os.File) { os.Stdout = stdout }(os.Stdout)
	os.Stdout = full
	o := answers(t, 200, `[{"store":"memory","playbacks":7}]`)
	if err := o.show(func([]string) error { return o.report(new(pageFlags)) })(nil, nil); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("error %v", err)
	}
}

// One call, which says all that there is to say.
func TestObserveAsksForWhatItIsTold(t *testing.T) {
	var asked string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = fmt.Sprintf("%s %s %s", r.Method, r.RequestURI, body)
		fmt.Fprint(w, `[{"sites":["a.example.com","b\u001b.example.com"],"store":"memory","mode":"{http.vars.mode}","observingSince":"2026-11-23T20:18:30Z"},{"sites":[":80"],"store":"memory","mode":"enforce"}]`)
	}))
	defer s.Close()
	const rows = "STORE   MODE              OBSERVING SINCE      SITES\nmemory  {http.vars.mode}  "
	for _, c := range []struct {
		undo  bool
		sites []string
		store string
		json  bool
		asks  string
		says  string
	}{
		{asks: `PUT /stream_guard/mode {"mode":"observe"}`, says: "From now on nobody is refused by these, on this Caddy, until its config changes or caddy stream-guard observe --undo:\n" + rows},
		{sites: []string{"*.example.com", ":80"}, asks: `PUT /stream_guard/mode?site=%2A.example.com&site=%3A80 {"mode":"observe"}`, says: rows},
		{store: "memory one", asks: `PUT /stream_guard/mode?store=memory+one {"mode":"observe"}`, says: `"a.example.com b\x1b.example.com"`},
		{sites: []string{"a"}, store: "x", undo: true, asks: "DELETE /stream_guard/mode?site=a&store=x ", says: "From now on these do what the config says:\n" + rows},
		{json: true, asks: `PUT /stream_guard/mode {"mode":"observe"}`, says: "[\n\t{\n\t\t\"sites\": [\n"},
	} {
		o := &operator{address: s.Listener.Addr().String(), store: c.store, json: c.json, patience: time.Minute}
		if err := o.observe(c.undo, c.sites); err != nil || asked != c.asks || !strings.Contains(o.out.String(), c.says) || strings.Contains(o.out.String(), "\x1b") {
			t.Errorf("%v, asked %q, want %q; says\n%s\nwant\n%s", err, asked, c.asks, &o.out, c.says)
		}
	}
}

func TestCheckSaysWhichGatesObserveByCall(t *testing.T) {
	o := answers(t, 200, `[{"store":"memory","answers":true,"observing":[{"sites":["a.example.com"],"store":"memory","mode":"enforce","observingSince":"2026-11-23T20:18:30Z"}]},{"store":"redis","answers":true}]`)
	const line = "An operator has said that nobody is refused at a.example.com, since "
	if err := o.check(); err != nil || strings.Count(o.out.String(), line) != 1 {
		t.Errorf("%v\n%s", err, &o.out)
	}
	o = answers(t, 200, `[{"store":"memory","answers":true}]`)
	if err := o.check(); err != nil || strings.Contains(o.out.String(), "operator") {
		t.Errorf("%v\n%s", err, &o.out)
	}
}
