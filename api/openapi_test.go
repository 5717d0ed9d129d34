package api_test

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/streamguard/streamguard/problem"
)

// document is docs/openapi.yaml, closed: to clients it leaves room for members
// to come, to these tests an answer's members are the ones described.
var document = sync.OnceValue(func() *openapi3.T {
	doc, err := openapi3.NewLoader().LoadFromFile("../docs/openapi.yaml")
	if err != nil {
		panic(err)
	}
	for _, schema := range doc.Components.Schemas {
		if schema.Value.Type.Is("object") {
			schema.Value.AdditionalProperties = openapi3.BoolSchema{Has: new(false)}
		}
	}
	return doc
})

// answered are the operations, with a status, that tests have brought about.
var answered struct {
	sync.Mutex
	seen map[string]bool
}

// TestMain holds a run of all tests to every answer that the document has.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 && ranAll() {
		for _, answer := range slices.Sorted(documented()) {
			if !answered.seen[answer] {
				fmt.Println("FAIL: no test brings about what docs/openapi.yaml has:", answer)
				code = 1
			}
		}
	}
	os.Exit(code)
}

func ranAll() bool {
	return !slices.ContainsFunc([]string{"run", "skip", "list", "fuzz"}, func(name string) bool {
		return flag.Lookup("test."+name).Value.String() != ""
	})
}

func documented() iter.Seq[string] {
	return func(yield func(string) bool) {
		for path, item := range document().Paths.Map() {
			for method, operation := range item.Operations() {
				for status := range operation.Responses.Map() {
					if !yield(method + " " + path + " " + status) {
						return
					}
				}
			}
		}
	}
}

// exchange serves a request and holds both it and its answer to the document:
// what the API takes, the document allows.
func exchange(t testing.TB, h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	t.Helper()
	w, input := answer(t, h, r)
	switch w.Code {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
		return w
	}
	if err := openapi3filter.ValidateRequest(r.Context(), input); err != nil {
		t.Errorf("%s %s is answered %d, but the document does not allow it: %v", r.Method, r.URL.Path, w.Code, err)
	}
	return w
}

// answer serves a request and holds the answer to the document. HEAD goes by the
// words on GET: it is net/http that takes the body off.
func answer(t testing.TB, h http.Handler, r *http.Request) (*httptest.ResponseRecorder, *openapi3filter.RequestValidationInput) {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)

	asked := r.Clone(r.Context())
	asked.Body = io.NopCloser(bytes.NewReader(body))
	if r.Method == http.MethodHead {
		asked.Method = http.MethodGet
	}
	route, params := find(asked)
	input := &openapi3filter.RequestValidationInput{Request: asked, PathParams: params, Route: route}
	err = openapi3filter.ValidateResponse(r.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input,
		Status:                 w.Code,
		Header:                 w.Header(),
		Body:                   io.NopCloser(bytes.NewReader(w.Body.Bytes())),
		Options:                &openapi3filter.Options{IncludeResponseStatus: true},
	})
	if err != nil {
		t.Fatalf("%s %s: answer %d is not as the document says: %v", r.Method, r.URL.Path, w.Code, err)
	}
	response := route.Operation.Responses.Status(w.Code).Value
	described := map[string]bool{"Content-Type": true, "Content-Length": true}
	for name := range response.Headers {
		described[http.CanonicalHeaderKey(name)] = true
	}
	for name := range w.Header() {
		if !described[name] {
			t.Errorf("%s %s: the document has no %s in answer %d", r.Method, r.URL.Path, name, w.Code)
		}
	}
	if len(response.Content) == 0 && w.Body.Len() > 0 {
		t.Errorf("%s %s: the document has no body in answer %d", r.Method, r.URL.Path, w.Code)
	}

	answered.Lock()
	defer answered.Unlock()
	if answered.seen == nil {
		answered.seen = make(map[string]bool)
	}
	answered.seen[fmt.Sprint(route.Method, " ", route.Path, " ", w.Code)] = true
	return w, input
}

// find returns the operation that a request is for, or one that has the only
// answer there is to a request for none.
func find(r *http.Request) (*routers.Route, map[string]string) {
	doc := document()
	none := "NotFound"
	got := strings.Split(strings.TrimRight(r.URL.Path, "/"), "/")
	for _, path := range doc.Paths.InMatchingOrder() { // /guards/cmcd before /guards/{guardId}
		item := doc.Paths.Value(path)
		want := strings.Split(path, "/")
		params := make(map[string]string)
		same := slices.EqualFunc(want, got, func(want, got string) bool {
			if name, ok := strings.CutPrefix(want, "{"); ok {
				params[strings.TrimSuffix(name, "}")] = got
				return true
			}
			return want == got
		})
		if !same {
			continue
		}
		if operation := item.GetOperation(r.Method); operation != nil {
			return &routers.Route{Spec: doc, Path: path, PathItem: item, Method: r.Method, Operation: operation}, params
		}
		none = "MethodNotAllowed"
		break
	}
	status := map[string]int{"NotFound": http.StatusNotFound, "MethodNotAllowed": http.StatusMethodNotAllowed}[none]
	only := openapi3.NewResponses(openapi3.WithStatus(status, doc.Components.Responses[none]))
	return &routers.Route{Spec: doc, PathItem: &openapi3.PathItem{}, Operation: &openapi3.Operation{Responses: only}}, nil
}

func TestDocumentIsValid(t *testing.T) {
	if err := document().Validate(t.Context(), openapi3.EnableExamplesValidation()); err != nil {
		t.Fatal(err)
	}
}

func TestDocumentHasTheErrorCodesOfTheCode(t *testing.T) {
	var codes []any
	for _, known := range problem.Codes {
		codes = append(codes, string(known.Code))
	}
	if enum := document().Components.Schemas["Problem"].Value.Properties["errorCode"].Value.Enum; !slices.Equal(codes, enum) {
		t.Errorf("package problem has\n%q\ndocs/openapi.yaml has\n%q", codes, enum)
	}
}
