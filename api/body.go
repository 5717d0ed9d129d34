package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/streamguard/streamguard/problem"
)

// Bounds on the body of a request.
const (
	MaxBody    = 4 << 10          // bytes of JSON
	MaxEvents  = 64 << 10         // bytes of events: some hundred reports, what a player has kept of an hour without a network
	maxReading = 10 * time.Second // for the body to arrive
)

// readObject reads a JSON object, strictly; an empty body is an empty object.
func readObject(w http.ResponseWriter, r *http.Request, into any) error {
	body, err := readBody(w, r, MaxBody, "application/json")
	if err != nil || len(body) == 0 {
		return err
	}
	if !bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")) {
		return problem.New(problem.InvalidBody, "the body is not a JSON object")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return problem.New(problem.InvalidBody, "%s is a JSON %s, want a %s", clip(wrong.Field), wrong.Value, wrong.Type)
		}
		return problem.New(problem.InvalidBody, "the body is not the JSON object wanted: %s", clip(strings.TrimPrefix(err.Error(), "json: ")))
	}
	if _, err := dec.Token(); err != io.EOF {
		return problem.New(problem.InvalidBody, "more follows after the body's JSON object")
	}
	return nil
}

// readBody reads a body of at most so many bytes; a body that is not empty has
// to be of this type.
func readBody(w http.ResponseWriter, r *http.Request, limit int64, mediaType string) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return nil, problem.New(problem.BodyTooLarge, "the body has more than %d bytes", limit)
	}
	if err != nil {
		return nil, problem.New(problem.InvalidBody, "reading the body: %v", err)
	}
	contentType := r.Header.Get("Content-Type")
	if media, _, err := mime.ParseMediaType(contentType); len(body) > 0 && (err != nil || media != mediaType) {
		return nil, problem.New(problem.UnsupportedMedia, "Content-Type is %q, want %s", clip(contentType), mediaType)
	}
	return body, nil
}

// clip keeps what a client sent from filling its own error message.
func clip(s string) string {
	if len(s) <= 80 {
		return s
	}
	return fmt.Sprintf("%s… (%d bytes)", s[:80], len(s))
}
