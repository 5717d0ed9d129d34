package problem

import "net/http"

// Code is the word for a problem that programs go by.
type Code string

// The codes.
const (
	ReachedMaxGuards  Code = "REACHED_MAX_GUARDS_COUNT"
	ReplacedLately    Code = "REPLACED_LATELY"
	GuardRevoked      Code = "GUARD_REVOKED"
	GuardReplaced     Code = "GUARD_REPLACED"
	GuardDoesNotExist Code = "GUARD_DOES_NOT_EXIST"
	NotFound          Code = "NOT_FOUND"
	MissingUser       Code = "MISSING_USER"
	MissingDevice     Code = "MISSING_DEVICE"
	CrossOrigin       Code = "CROSS_ORIGIN"
	InvalidUser       Code = "INVALID_USER"
	InvalidGuardID    Code = "INVALID_GUARD_ID"
	InvalidBody       Code = "INVALID_BODY"
	BodyTooLarge      Code = "BODY_TOO_LARGE"
	UnsupportedMedia  Code = "UNSUPPORTED_MEDIA_TYPE"
	MethodNotAllowed  Code = "METHOD_NOT_ALLOWED"
	TooEarly          Code = "TOO_EARLY"
	StoreUnavailable  Code = "STORE_UNAVAILABLE"
)

// Codes are all codes, each with the status it comes with, in the order of
// docs/openapi.yaml.
var Codes = []struct {
	Code   Code
	Status int
}{
	{ReachedMaxGuards, http.StatusTooManyRequests},
	{ReplacedLately, http.StatusTooManyRequests},
	{GuardRevoked, http.StatusGone},  // Refused makes it a 429 where media was asked for
	{GuardReplaced, http.StatusGone}, // likewise
	{GuardDoesNotExist, http.StatusNotFound},
	{NotFound, http.StatusNotFound},
	{MissingUser, http.StatusUnauthorized},
	{MissingDevice, http.StatusUnauthorized},
	{CrossOrigin, http.StatusForbidden},
	{InvalidUser, http.StatusBadRequest},
	{InvalidGuardID, http.StatusBadRequest},
	{InvalidBody, http.StatusBadRequest},
	{BodyTooLarge, http.StatusRequestEntityTooLarge},
	{UnsupportedMedia, http.StatusUnsupportedMediaType},
	{MethodNotAllowed, http.StatusMethodNotAllowed},
	{TooEarly, http.StatusTooEarly},
	{StoreUnavailable, http.StatusServiceUnavailable},
}

func (c Code) status() int {
	for _, known := range Codes {
		if known.Code == c {
			return known.Status
		}
	}
	return http.StatusInternalServerError
}
