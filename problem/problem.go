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

// Problem is an error answer (RFC 9457, application/problem+json).
type Problem struct {
	Status    int     `json:"status"`
	Title     string  `json:"title"`
	Detail    string  `json:"detail"`
	Message   string  `json:"message"` // the same as Detail, where older clients look for it
	ErrorCode Code    `json:"errorCode"`
	Refusal           // says more of REACHED_MAX_GUARDS_COUNT
	RetryIn   Seconds `json:"retryAfter,omitempty"` // as the Retry-After header; 0 where waiting does not help
	Instance  string  `json:"instance,omitempty"`   // urn:uuid: and the id of the request, as logs have it

	Allow string `json:"-"` // the Allow header of a 405
}

// Refusal says what stands in the way of a playback.
type Refusal struct {
	Limit  *int     `json:"limit,omitempty"`
	Per    string   `json:"per,omitempty"`    // what the limit is per, where it is not the user's own
	Guards []Holder `json:"guards,omitempty"` // oldest first, guard.MaxInTheWay at most
	Total  int      `json:"total,omitempty"`  // how many there are, where Guards are not all
}

// Holder is a guard as shown to the one it stands in the way of.
type Holder struct {
	GuardID   string      `json:"guardId"`
	StreamID  string      `json:"streamId,omitempty"`
	DeviceID  string      `json:"deviceId,omitempty"`
	State     guard.State `json:"state"`
	CreatedAt time.Time   `json:"createdAt"`
	RemovedAt time.Time   `json:"removedAt"` // its slot is free then, unless it is refreshed
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

// New returns the problem with this code and the status that belongs to it.
func New(code Code, format string, args ...any) *Problem {
	detail := fmt.Sprintf(format, args...)
	p := &Problem{Detail: detail, Message: detail, ErrorCode: code}
	p.setStatus(code.status())
	return p
}

func (p *Problem) setStatus(status int) { p.Status, p.Title = status, http.StatusText(status) }

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
	// The RFC has any value mean 1.
	if (r.TLS == nil || r.TLS.HandshakeComplete) && len(r.Header["Early-Data"]) == 0 {
		return nil
	}
	return New(TooEarly, "sent in early data, which could be a replay: repeat it")
}

// Ended returns the 410 of a playback that was revoked or replaced.
func Ended(o guard.Outcome) *Problem {
	if o == guard.Replaced {
		return New(GuardReplaced, "another playback has taken the place of this one; starting anew takes it back")
	}
	return New(GuardRevoked, "this playback was ended from elsewhere")
}

// Refused returns the 429 of a verdict that does not pass: media is refused
// with one status, whatever the reason.
func Refused(v guard.Verdict) *Problem {
	if v.Outcome.Ended() {
		p := Ended(v.Outcome)
		p.setStatus(http.StatusTooManyRequests)
		if v.Outcome == guard.Revoked { // a replacement stands for as long as it is asked about
			p.RetryIn = Seconds(v.FreeIn)
		}
		return p
	}
	r, held, per := v.Rule, v.Held, ""
	if r.Per != "" {
		held, per = v.Blocking, " per "+r.Per
	}
	retryIn, never := Seconds(max(v.FreeIn, 1)), ""
	if r.Limit == 0 {
		retryIn, never = 0, "; this plan allows none, so waiting does not help"
	}
	p := New(ReachedMaxGuards, "stream limit reached: %d of %d guards held%s%s", held, r.Limit, per, never)
	if v.Lately {
		p = New(ReplacedLately, "playbacks have taken this place from each other %d times: it is free when the one that has it stops", guard.MaxReturns)
	}
	p.Limit, p.Per, p.RetryIn = &r.Limit, r.Per, retryIn
	if v.Blocking > len(v.InTheWay) {
		p.Total = v.Blocking
	}
	for _, g := range v.InTheWay {
		p.Guards = append(p.Guards, Holder{GuardID: g.ID.String(), StreamID: g.Stream, DeviceID: g.Device, State: g.Listed(), CreatedAt: g.CreatedAt, RemovedAt: g.RemovedAt})
	}
	return p
}

// GuardIDs are those of the guards in the way.
func (r *Refusal) GuardIDs() (ids []string) {
	for _, g := range r.Guards {
		ids = append(ids, g.GuardID)
	}
	return ids
}

// Unavailable returns the 503 of a store that could not answer.
func Unavailable() *Problem {
	p := New(StoreUnavailable, "guards cannot be looked up at the moment")
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
		left := fmt.Sprintf(`"%s";r=0`, name)
		if p.RetryIn > 0 {
			left += ";t=" + p.RetryIn.String()
		}
		h.Set("RateLimit", left)
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
