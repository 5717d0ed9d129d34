package caddymodule

import (
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

// named is a header, a cookie or a query parameter that names the user. A client
// that sends it twice would be any number of users: whoever verified one of them
// need not have read the one that counts.
type named struct {
	kind string // "header", "cookie" or "query"
	name string
}

// namesIn are those in a text's placeholders.
func namesIn(text string) (names []named) {
	for _, p := range placeholder.FindAllString(text, -1) {
		for kind, prefix := range map[string]string{"header": "{http.request.header.", "cookie": "{http.request.cookie.", "query": "{http.request.uri.query."} {
			if name, ok := strings.CutPrefix(strings.TrimSuffix(p, "}"), prefix); ok {
				names = append(names, named{kind, name})
			}
		}
	}
	return names
}

// values are all that a request has under the name, in any case where case does
// not matter.
func (n named) values(r *http.Request) (values []string) {
	switch n.kind {
	case "header":
		return r.Header[textproto.CanonicalMIMEHeaderKey(n.name)]
	case "cookie":
		for _, c := range r.Cookies() {
			if strings.EqualFold(c.Name, n.name) {
				values = append(values, c.Value)
			}
		}
	case "query":
		for name, more := range r.URL.Query() {
			if strings.EqualFold(name, n.name) {
				values = append(values, more...)
			}
		}
	}
	return values
}

// once makes sure that a request says once who asks. What is said twice alike
// is said once from then on; otherwise the error names it.
func once(r *http.Request, names []named) error {
	for _, n := range names {
		values := n.values(r)
		if len(values) < 2 {
			continue
		}
		if slices.ContainsFunc(values, func(v string) bool { return v != values[0] }) {
			return fmt.Errorf("the %s %s comes more than once, with different values", n.kind, n.name)
		}
		switch n.kind { // the placeholders of these have all values in them
		case "header":
			r.Header[textproto.CanonicalMIMEHeaderKey(n.name)] = values[:1]
		case "query":
			return fmt.Errorf("the query parameter %s comes more than once", n.name)
		}
	}
	return nil
}
