package caddymodule

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2"

	"github.com/streamguard/streamguard/caddymodule/storage"
	"github.com/streamguard/streamguard/operate"
)

func init() { caddy.RegisterModule(Admin{}) }

// Admin is /stream_guard/ on Caddy's admin endpoint, for operators:
//
//	GET    /stream_guard/stores                    the stores and how they do
//	GET    /stream_guard/top?n=10                  totals, and who holds the most guards
//	GET    /stream_guard/users/{user}              a user's guards
//	DELETE /stream_guard/users/{user}              revokes them all
//	DELETE /stream_guard/users/{user}/guards/{id}  revokes one
//	GET    /stream_guard/report                    what mode observe has seen
//	GET    /stream_guard/mode                      the gates, and what they do
//	PUT    /stream_guard/mode                      has gates observe until the config changes
//	DELETE /stream_guard/mode                      has them do again what the config says
//
// It answers for the stores that the running config's handlers use; the
// parameter store picks one by its name. A user's "/" is %2F, and "." and ".."
// are %2E and %2E%2E.
//
// Where a store cannot answer, the others do, and its part says why.
type Admin struct{}

// CaddyModule returns the Caddy module information.
func (Admin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.stream_guard",
		New: func() caddy.Module { return new(Admin) },
	}
}

// Routes implements caddy.AdminRouter.
func (a *Admin) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: operate.Path, Handler: caddy.AdminHandlerFunc(a.serve)}}
}

// serve answers a call. Its error is a caddy.APIError.
func (*Admin) serve(w http.ResponseWriter, r *http.Request) error {
	answer, allow, err := operate.Answer(r, storesInUse())
	if err != nil {
		if allow != "" {
			w.Header().Set("Allow", allow)
		}
		status := http.StatusInternalServerError
		if e, ok := errors.AsType[*operate.Error](err); ok {
			status = e.Status
		}
		return caddy.APIError{HTTPStatus: status, Err: err}
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(answer)
}

// storesInUse are the stores of the running config's handlers.
func storesInUse() (stores []operate.Store) {
	gates := gatesInUse()
	for _, p := range storage.InUse() {
		s := operate.Store{Name: p.Name, Keeper: p.Keeper, Guards: p.Store, TTL: p.TTL(), Audience: p.Audience, Gates: gates[p]}
		if f := p.LastFailure(); f != nil {
			s.LastError = &operate.LastError{At: f.At, Error: f.Error}
		}
		stores = append(stores, s)
	}
	return stores
}

var _ caddy.AdminRouter = (*Admin)(nil)
