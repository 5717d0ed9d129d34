package caddymodule

import (
	"net/http"
	"time"

	"github.com/streamguard/streamguard/api"
)

// apiServer is a Handler as its API sees it.
type apiServer struct{ h *Handler }

// Caller implements api.Server.
func (s apiServer) Caller(r *http.Request) (api.Caller, error) { return s.h.caller(r) }

// RequestID implements api.Server.
func (apiServer) RequestID(r *http.Request) string { return requestID(r) }

// Failed implements api.Server.
func (s apiServer) Failed(r *http.Request, err error) { s.h.storeFailed(r, err) }

// Answered implements api.Server.
func (apiServer) Answered(endpoint, method string, status int, took time.Duration) {
	countAPI(endpoint, method, status, took)
}

var _ api.Server = apiServer{}
