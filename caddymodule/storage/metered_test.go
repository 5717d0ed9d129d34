package storage

import (
	"context"
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/streamguard/streamguard/audience"
	"github.com/streamguard/streamguard/guard"
)

var errAway = errors.New("away")

// away is a store that cannot list.
type away struct{ guard.Store }

func (away) List(context.Context, string) ([]guard.Guard, error) { return nil, errAway }

func TestOperationsOfClientsThatHaveGoneAreNoErrors(t *testing.T) {
	count := func(result string) uint64 {
		var m dto.Metric
		if err := storeDuration.WithLabelValues("list", result).(prometheus.Histogram).Write(&m); err != nil {
			t.Fatal(err)
		}
		return m.GetHistogram().GetSampleCount()
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	for _, c := range []struct {
		ctx            context.Context
		result, failed string
	}{{gone, "canceled", ""}, {late, "error", errAway.Error()}, {t.Context(), "error", errAway.Error()}} {
		failed := ""
		before := count(c.result)
		meter(away{}, func(err error) { failed += err.Error() }, audience.New(), nil).List(c.ctx, "u")
		if n := count(c.result) - before; n != 1 || failed != c.failed {
			t.Errorf("%v: %d %s more, and heard %q, want %q", c.ctx.Err(), n, c.result, failed, c.failed)
		}
	}
}
