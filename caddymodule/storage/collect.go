package storage

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/streamguard/streamguard/redisstore"
)

// What is counted is counted for the process: it outlives configs, and every
// store counts in the same place. No label grows with users.
var (
	storeDuration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "caddy_stream_guard_store_operation_duration_seconds",
		Help:    "Time that the store took for an operation; a batch is many refreshes in one.",
		Buckets: Durations,
	}, []string{"verb", "result"})
	batchSize = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "caddy_stream_guard_refresh_batch_size",
		Help:    "Refreshes in a batch.",
		Buckets: prometheus.ExponentialBuckets(1, 2, 10),
	})
	userGuards = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "caddy_stream_guard_user_guards",
		Help:    "Guards that a user holds, the new one among them, when a playback is admitted.",
		Buckets: prometheus.LinearBuckets(1, 1, 10),
	})
	localGrants = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "caddy_stream_guard_local_grants_total",
		Help: "Playbacks that this Caddy admitted by itself while the store was away.",
	})
	slotsTaken = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "caddy_stream_guard_slots_taken_total",
		Help: "Slots of closed or lapsed guards that starts have taken (reclaim).",
	})

	// Durations are the buckets of all histograms of time, in seconds.
	Durations = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}
)

// Collectors are the metrics of stores, for a config's registry.
func Collectors() []prometheus.Collector {
	return []prometheus.Collector{storeDuration, batchSize, userGuards, localGrants, slotsTaken, droppedEvents, theStores}
}

// theStores collects what the stores in use are like at the moment.
var theStores = new(storeCollector)

type storeCollector struct {
	mu    sync.Mutex
	nodes []redisstore.Node // as they were
	at    time.Time
}

const (
	nodesBound = 500 * time.Millisecond // servers that take longer are down
	nodesCache = time.Second            // scrapes within it share what servers say
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("caddy_stream_guard_"+name, help, labels, nil)
}

var (
	leasesDesc       = describe("leases", "Playbacks that this Caddy knows, and need not ask the store about.", "store")
	denialsDesc      = describe("denials", "Refusals that this Caddy remembers.", "store")
	breakerDesc      = describe("breaker_open", "1 while a server is held to be away and called once a second only.", "store", "server")
	deafDesc         = describe("store_deaf", "1 while a store does not hear of the endings at other Caddys.", "store")
	poolDesc         = describe("redis_pool_connections", "Connections to Redis.", "store", "state")
	poolTimeoutsDesc = describe("redis_pool_timeouts_total", "Times that no connection to Redis became free.", "store")
	upDesc           = describe("redis_up", "Whether a server does what the gate needs of it.", "node")
	nodeDescs        = []struct {
		*prometheus.Desc
		kind  prometheus.ValueType
		value func(redisstore.Node) float64
		label []string
	}{
		{describe("redis_memory_used_bytes", "Memory that Redis uses.", "node"), prometheus.GaugeValue, func(n redisstore.Node) float64 { return n.Memory }, nil},
		{describe("redis_memory_max_bytes", "Memory that Redis may use; 0 is no bound.", "node"), prometheus.GaugeValue, func(n redisstore.Node) float64 { return n.MaxMemory }, nil},
		{cpuDesc, prometheus.CounterValue, func(n redisstore.Node) float64 { return n.CPUUser }, []string{"user"}},
		{cpuDesc, prometheus.CounterValue, func(n redisstore.Node) float64 { return n.CPUSystem }, []string{"system"}},
		{describe("redis_commands_total", "Commands that Redis processed, those in scripts among them.", "node"), prometheus.CounterValue, func(n redisstore.Node) float64 { return n.Commands }, nil},
		{describe("redis_reads_total", "GET and MGET commands that Redis processed.", "node"), prometheus.CounterValue, func(n redisstore.Node) float64 { return n.Reads }, nil},
		{describe("redis_writes_total", "SET commands that Redis processed.", "node"), prometheus.CounterValue, func(n redisstore.Node) float64 { return n.Writes }, nil},
		{describe("redis_connected_clients", "Clients connected to Redis.", "node"), prometheus.GaugeValue, func(n redisstore.Node) float64 { return n.Clients }, nil},
		{describe("redis_replication_lag_bytes", "What the last of a server's replicas is behind.", "node"), prometheus.GaugeValue, func(n redisstore.Node) float64 { return n.ReplicationLag }, nil},
	}
	cpuDesc = describe("redis_cpu_seconds_total", "CPU time of Redis.", "node", "mode")
)

// Describe implements prometheus.Collector.
func (*storeCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{leasesDesc, denialsDesc, breakerDesc, deafDesc, poolDesc, poolTimeoutsDesc, upDesc} {
		ch <- d
	}
	for _, d := range nodeDescs {
		ch <- d.Desc
	}
}

// Collect implements prometheus.Collector.
func (c *storeCollector) Collect(ch chan<- prometheus.Metric) {
	// Two stores may go by one name, as when a password has just been changed.
	type key struct {
		*prometheus.Desc
		store, label string
	}
	sums := make(map[key]float64)
	var redises []*redisstore.Store
	for _, p := range InUse() {
		leases, denials := p.Keeper.Size()
		sums[key{leasesDesc, p.Name, ""}] += float64(leases)
		sums[key{denialsDesc, p.Name, ""}] += float64(denials)
		s, ok := p.Store.(*redisstore.Store)
		if !ok {
			continue
		}
		redises = append(redises, s)
		for server, away := range s.Away() {
			k := key{breakerDesc, p.Name, server}
			sums[k] += 0
			if away {
				sums[k] = 1
			}
		}
		deaf := key{deafDesc, p.Name, ""}
		sums[deaf] += 0
		if s.Deaf() {
			sums[deaf] = 1
		}
		pool := s.Pool()
		sums[key{poolDesc, p.Name, "idle"}] += float64(pool.Idle)
		sums[key{poolDesc, p.Name, "used"}] += float64(pool.Used)
		sums[key{poolTimeoutsDesc, p.Name, ""}] += float64(pool.Timeouts)
	}
	for k, v := range sums {
		kind, labels := prometheus.GaugeValue, []string{k.store}
		if k.Desc == poolTimeoutsDesc {
			kind = prometheus.CounterValue
		}
		if k.label != "" {
			labels = append(labels, k.label)
		}
		ch <- prometheus.MustNewConstMetric(k.Desc, kind, v, labels...)
	}
	up, told := make(map[string]float64), make(map[string]bool)
	for _, n := range c.ask(redises) { // two stores may have one server
		if n.Mute == nil && !told[n.Server] {
			told[n.Server] = true
			for _, d := range nodeDescs {
				ch <- prometheus.MustNewConstMetric(d.Desc, d.kind, d.value(n), append([]string{n.Server}, d.label...)...)
			}
		}
		switch _, known := up[n.Server]; {
		case n.Err != nil:
			up[n.Server] = 0
		case !known:
			up[n.Server] = 1
		}
	}
	for server, v := range up {
		ch <- prometheus.MustNewConstMetric(upDesc, prometheus.GaugeValue, v, server)
	}
}

// ask asks all servers what they are like, unless it was done just now.
func (c *storeCollector) ask(redises []*redisstore.Store) []redisstore.Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.at) < nodesCache {
		return c.nodes
	}
	ctx, cancel := context.WithTimeout(context.Background(), nodesBound)
	defer cancel()
	answers := make([][]redisstore.Node, len(redises))
	var wg sync.WaitGroup
	for i, s := range redises {
		wg.Go(func() { answers[i] = s.Nodes(ctx) })
	}
	wg.Wait()
	c.nodes, c.at = nil, time.Now()
	for _, nodes := range answers {
		c.nodes = append(c.nodes, nodes...)
	}
	return c.nodes
}
