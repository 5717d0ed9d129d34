// Package problem is the answer that says why a request was not served: an RFC
// 9457 problem document, with the header fields that belong to it.
package problem

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/streamguard/streamguard/guard"
)

// Code is the word for a problem that programs go by.
type Code string

// The codes, and the status each comes with.
const (
	ReachedMaxGuards  Code = "REACHED_MAX_GUARDS_COUNT" // 429
	GuardRevoked      Code = "GUARD_REVOKED"            // 410; 429 where media was asked for
	GuardDoesNotExist Code = "GUARD_DOES_NOT_EXIST"     // 404
	NotFound          Code = "NOT_FOUND"                // 404
	MissingUser       Code = "MISSING_USER"             // 401
	CrossOrigin       Code = "CROSS_ORIGIN"             // 403
	InvalidUser       Code = "INVALID_USER"             // 400
	InvalidGuardID    Code = "INVALID_GUARD_ID"         // 400
	InvalidBody       Code = "INVALID_BODY"             // 400
	BodyTooLarge      Code = "BODY_TOO_LARGE"           // 413
	UnsupportedMedia  Code = "UNSUPPORTED_MEDIA_TYPE"   // 415
	MethodNotAllowed  Code = "METHOD_NOT_ALLOWED"       // 405
	TooEarly          Code = "TOO_EARLY"                // 425
	StoreUnavailable  Code = "STORE_UNAVAILABLE"        // 503
)

// Problem is an error answer (RFC 9457, application/problem+json).
type Problem struct {
	Status    int     `json:"status"`
	Title     string  `json:"title"`
	Detail    string  `json:"detail"`
	Message   string  `json:"message"` // the same as Detail, where older clients look for it
	ErrorCode Code    `json:"errorCode"`
	Refusal           // of REACHED_MAX_GUARDS_COUNT
	RetryIn   Seconds `json:"retryAfter,omitempty"` // until the Retry-After header says
	Instance  string  `json:"instance,omitempty"`   // urn:uuid: and the id of the request, as logs have it

	Allow string `json:"-"` // the Allow header of a 405
}

// Refusal says what stands in the way of a playback.
type Refusal struct {
	Limit  *int     `json:"limit,omitempty"`
	Per    string   `json:"per,omitempty"`    // what the limit is per, where it is not the user's own
	Guards []Holder `json:"guards,omitempty"` // oldest first
}

// Holder is a guard as shown to the one it stands in the way of.
type Holder struct {
	GuardID   string    `json:"guardId,omitempty"` // where the configuration reveals it
	StreamID  string    `json:"streamId,omitempty"`
	DeviceID  string    `json:"deviceId,omitempty"`
	CreatedAt time.Time `json:"createdAt"`
	RemovedAt time.Time `json:"removedAt"` // unless it is refreshed
}

// Seconds is a duration in whole seconds, rounded up.
type Seconds time.Duration

// String returns the number of seconds, as Retry-After has it.
func (s Seconds) String() string { return strconv.Itoa(int(math.Ceil(time.Duration(s).Seconds()))) }

// MarshalJSON implements json.Marshaler.
func (s Seconds) MarshalJSON() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalJSON implements json.Unmarshaler.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	n, err := strconv.Atoi(string(b))
	*s = Seconds(time.Duration(n) * time.Second)
	return err
}

// New returns the problem with this status and code.
func New(status int, code Code, format string, args ...any) *Problem {
	detail := fmt.Sprintf(format, args...)
	return &Problem{Status: status, Title: http.StatusText(status), Detail: detail, Message: detail, ErrorCode: code}
}

// SetInstance names the request by its UUID.
func (p *Problem) SetInstance(uuid string) {
	if uuid != "" {
		p.Instance = "urn:uuid:" + uuid
	}
}

// Error implements error.
func (p *Problem) Error() string { return p.Message }

// Early returns the 425 of a request that came in TLS early data, here or at a
// proxy in front, and could be a replay (RFC 8470); nil of any other.
func Early(r *http.Request) *Problem {
	// Any value means 1, says the RFC.
	if (r.TLS == nil || r.TLS.HandshakeComplete) && len(r.Header["Early-Data"]) == 0 {
		return nil
	}
	return New(http.StatusTooEarly, TooEarly, "sent in early data, which could be a replay: repeat it")
}

// Refused returns the 429 of a Rejected or Revoked verdict.
func Refused(v guard.Verdict, revealGuards bool) *Problem {
	if v.Outcome == guard.Revoked {
		p := New(http.StatusTooManyRequests, GuardRevoked, "this playback was ended from elsewhere")
		p.RetryIn = Seconds(v.FreeIn)
		return p
	}
	r, held, per := v.Rule, v.Held, ""
	if r.Per != "" {
		held, per = v.Blocking, " per "+r.Per
	}
	p := New(http.StatusTooManyRequests, ReachedMaxGuards, "stream limit reached: %d of %d guards held%s", held, r.Limit, per)
	p.RetryIn = Seconds(max(v.FreeIn, 1))
	p.Limit, p.Per = &r.Limit, r.Per
	for _, g := range v.InTheWay {
		h := Holder{StreamID: g.Stream, DeviceID: g.Device, CreatedAt: g.CreatedAt, RemovedAt: g.RemovedAt}
		if revealGuards {
			h.GuardID = g.ID.String()
		}
		p.Guards = append(p.Guards, h)
	}
	return p
}

// Unavailable returns the 503 of a store that could not answer.
func Unavailable() *Problem {
	p := New(http.StatusServiceUnavailable, StoreUnavailable, "guards cannot be looked up at the moment")
	p.RetryIn = Seconds(time.Second)
	return p
}

// SetHeader sets the header fields that go with the problem: they say when to
// try again and keep caches from keeping it.
func (p *Problem) SetHeader(h http.Header) {
	h.Set("Cache-Control", "no-store")
	if p.RetryIn > 0 {
		h.Set("Retry-After", p.RetryIn.String())
	}
	if p.Allow != "" {
		h.Set("Allow", p.Allow)
	}
	if p.Limit != nil {
		// draft-ietf-httpapi-ratelimit-headers-10.
		name := "guards"
		if p.Per != "" {
			name += "-per-" + p.Per
		}
		h.Set("RateLimit-Policy", fmt.Sprintf(`"%s";q=%d;qu="concurrent-requests"`, name, *p.Limit))
		h.Set("RateLimit", fmt.Sprintf(`"%s";r=0;t=%s`, name, p.RetryIn))
	}
}

// Write answers with the problem.
func (p *Problem) Write(w http.ResponseWriter) {
	p.SetHeader(w.Header())
	WriteJSON(w, p.Status, "application/problem+json", p)
}

// WriteJSON answers with v as JSON of this media type.
func WriteJSON(w http.ResponseWriter, status int, contentType string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}
