package api_test

import (
	"bytes"
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
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

// answers are the operations with the statuses that tests have seen.
var answers struct {
	sync.Mutex
	seen map[string]bool
}

// unseen are the answers in the document that no test brings about, and why.
var unseen = map[string]string{}

// TestMain also holds a run of all tests to every answer in the document.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 && allRan() {
		for _, answer := range documented() {
			if (unseen[answer] != "") == answers.seen[answer] {
				fmt.Printf("FAIL: docs/openapi.yaml has %q: seen by a test: %v; why not: %q\n", answer, answers.seen[answer], unseen[answer])
				code = 1
			}
		}
	}
	os.Exit(code)
}

func documented() (list []string) {
	for path, item := range document().Paths.Map() {
		for method, operation := range item.Operations() {
			for status := range operation.Responses.Map() {
				list = append(list, method+" "+path+" "+status)
			}
		}
	}
	slices.Sort(list)
	return list
}

// exchange serves a request and fails the test where the answer, or a request
// that the API did not find fault with, is not as the document says. HEAD is held
// to the words on GET: it is net/http that takes the body off.
func exchange(t testing.TB, h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)

	request := httptest.NewRequestWithContext(r.Context(), r.Method, r.URL.Path, bytes.NewReader(body))
	request.Header = r.Header
	if r.Method == http.MethodHead {
		request.Method = http.MethodGet
	}
	route, params := find(request)
	input := &openapi3filter.RequestValidationInput{Request: request, PathParams: params, Route: route}
	switch w.Code {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
	default:
		if err := openapi3filter.ValidateRequest(r.Context(), input); err != nil {
			t.Errorf("%s %s was answered %d, but the document does not allow it: %v", r.Method, r.URL.Path, w.Code, err)
		}
	}
	err = openapi3filter.ValidateResponse(r.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input,
		Status:                 w.Code,
		Header:                 w.Header(),
		Body:                   io.NopCloser(bytes.NewReader(w.Body.Bytes())),
		Options:                &openapi3filter.Options{IncludeResponseStatus: true},
	})
	if err != nil {
		t.Errorf("%s %s: answer %d is not as the document says: %v", r.Method, r.URL.Path, w.Code, err)
	} else {
		response := route.Operation.Responses.Status(w.Code).Value
		for name := range w.Header() {
			if response.Headers[name] == nil && name != "Content-Type" && name != "Content-Length" {
				t.Errorf("%s %s: the document does not give answer %d the header %s", r.Method, r.URL.Path, w.Code, name)
			}
		}
		if len(response.Content) == 0 && w.Body.Len() > 0 {
			t.Errorf("%s %s: the document does not give answer %d a body", r.Method, r.URL.Path, w.Code)
		}
	}
	answers.Lock()
	defer answers.Unlock()
	if answers.seen == nil {
		answers.seen = make(map[string]bool)
	}
	answers.seen[fmt.Sprint(route.Method, " ", route.Path, " ", w.Code)] = true
	return w
}

// find returns the operation that a request is for, or one that has the only
// answer there is to a request for none.
func find(r *http.Request) (*routers.Route, map[string]string) {
	doc := document()
	none := "NotFound"
	got := strings.Split(strings.TrimRight(r.URL.Path, "/"), "/")
	for path, item := range doc.Paths.Map() {
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
	file, err := parser.ParseFile(token.NewFileSet(), "problem.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	for spec := range specs(file) {
		if id, ok := spec.Type.(*ast.Ident); ok && id.Name == "Code" {
			codes = append(codes, strings.Trim(spec.Values[0].(*ast.BasicLit).Value, `"`))
		}
	}
	var enum []string
	for _, code := range document().Components.Schemas["Problem"].Value.Properties["errorCode"].Value.Enum {
		enum = append(enum, code.(string))
	}
	if !slices.Equal(codes, enum) {
		t.Errorf("problem.go has\n%q\ndocs/openapi.yaml has\n%q", codes, enum)
	}
}
