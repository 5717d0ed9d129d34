package redisstore

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Options say where Redis is and how to talk to it. The zero value is one
// server at 127.0.0.1:6379 without a password.
type Options struct {
	// URL is redis://, rediss:// or unix:// with user, password, host and
	// database, for a single server. It excludes Addresses.
	URL string

	// Addresses are host:port or the path of a Unix socket. Several of them are
	// seeds of a Cluster, or with MasterName the Sentinels.
	Addresses  []string
	MasterName string // the Sentinels' name for the master
	Cluster    bool   // the one address is a Cluster's configuration endpoint

	Username, Password                 string
	SentinelUsername, SentinelPassword string
	DB                                 int // not with a Cluster; default 0
	TLS                                *tls.Config

	PoolSize    int           // connections to each server; default 10 for each CPU
	Timeout     time.Duration // bound on a whole call; default DefaultTimeout
	DialTimeout time.Duration // bound on connecting; default Timeout
	KeyPrefix   string        // in front of the user, with a colon at its end, given or not; default DefaultKeyPrefix

	// ReadFrom is ReadFromReplica if replicas are to be asked for lists that
	// may be a moment old (guard.ForDisplay); default ReadFromMaster.
	ReadFrom string

	// OnAway, which may be nil, hears when a server (guard.Server.Name) no longer
	// answers, and when it does again. It must not block.
	OnAway func(server string, away bool)

	// OnDeaf, which may be nil, hears why Watch does not hear of anything: once,
	// until that changes.
	OnDeaf func(error)
}

// Defaults of Options.
const (
	DefaultTimeout   = 500 * time.Millisecond
	DefaultKeyPrefix = "sg:"
)

// What Options.ReadFrom may be.
const (
	ReadFromMaster  = "master"
	ReadFromReplica = "replica"
)

// Open returns a store on the Redis that the options name. It does not
// connect: Redis may be away and come later. The error names the option at
// fault.
func Open(o Options) (*Store, error) {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.DialTimeout == 0 {
		o.DialTimeout = o.Timeout
	}
	if o.KeyPrefix == "" {
		o.KeyPrefix = DefaultKeyPrefix
	}
	if !strings.HasSuffix(o.KeyPrefix, ":") {
		o.KeyPrefix += ":"
	}
	if err := o.readURL(); err != nil {
		return nil, err
	}
	for _, a := range o.Addresses {
		_, port, _ := net.SplitHostPort(a)
		if n, err := strconv.ParseUint(port, 10, 16); (err != nil || n == 0) && !strings.HasPrefix(a, "/") || strings.ContainsAny(a, " \t") {
			return nil, fmt.Errorf("address: %q is neither host:port nor the path of a Unix socket", a)
		}
	}
	clustered := o.MasterName == "" && (o.Cluster || len(o.Addresses) > 1)
	switch {
	case o.Cluster && o.MasterName != "":
		return nil, errors.New("master_name and cluster exclude each other")
	case o.MasterName != "" && (o.URL != "" || len(o.Addresses) == 0):
		return nil, fmt.Errorf("master_name: %q needs the Sentinels as addresses", o.MasterName)
	case o.MasterName == "" && (o.SentinelUsername != "" || o.SentinelPassword != ""):
		return nil, errors.New("sentinel_username and sentinel_password need master_name")
	case o.DB < 0:
		return nil, fmt.Errorf("db: %d is negative", o.DB)
	case o.DB != 0 && clustered:
		return nil, fmt.Errorf("db: %d, but a Cluster has only database 0", o.DB)
	case o.PoolSize < 0:
		return nil, fmt.Errorf("pool_size: %d is negative", o.PoolSize)
	case o.Timeout < 0:
		return nil, fmt.Errorf("timeout: %v is negative", o.Timeout)
	case o.DialTimeout < 0:
		return nil, fmt.Errorf("dial_timeout: %v is negative", o.DialTimeout)
	case !slices.Contains([]string{"", ReadFromMaster, ReadFromReplica}, o.ReadFrom):
		return nil, fmt.Errorf("read_from: %q is neither %s nor %s", o.ReadFrom, ReadFromMaster, ReadFromReplica)
	case o.ReadFrom == ReadFromReplica && o.MasterName == "" && !clustered:
		return nil, errors.New("read_from: replica, but a single server has none: this needs a Cluster or master_name")
	}
	s := &Store{
		given:   o,
		scripts: own,
		prefix:  o.KeyPrefix,
		channel: "ended:" + o.KeyPrefix,
		timeout: o.Timeout,
		where:   o.String(),

		readsReplicas: o.ReadFrom == ReadFromReplica,
		onAway:        o.OnAway,
		onDeaf:        o.OnDeaf,
	}
	if s.onAway == nil {
		s.onAway = func(string, bool) {}
	}
	if s.onDeaf == nil {
		s.onDeaf = func(error) {}
	}
	options := o.client()
	switch {
	case clustered:
		s.client = s.newCluster(options)
	case o.MasterName == "":
		s.options = options
		single := options.Simple()
		single.OnConnect = s.meet
		s.client = redis.NewClient(single)
	default:
		s.client = redis.NewFailoverClient(options.Failover())
	}
	if s.readsReplicas && o.MasterName != "" {
		options.ReadOnly = true
		options.ConnMaxLifetime = time.Minute // a failover may make its server the master
		s.replicas = redis.NewFailoverClient(options.Failover())
	}
	s.breakOn()
	return s, nil
}

// client is how all clients are made.
func (o *Options) client() *redis.UniversalOptions {
	return &redis.UniversalOptions{
		Addrs:            o.Addresses,
		MasterName:       o.MasterName,
		Username:         o.Username,
		Password:         o.Password,
		SentinelUsername: o.SentinelUsername,
		SentinelPassword: o.SentinelPassword,
		DB:               o.DB,
		Dialer:           (&dialer{Dialer: net.Dialer{Timeout: o.DialTimeout, KeepAliveConfig: keepAlive}, tls: o.TLS, timeout: o.Timeout}).dial,
		ConnMaxIdleTime:  idleTime,
		PoolSize:         o.PoolSize,
		PipelinePoolSize: -1, // no connections besides

		// Every wait is bounded by the call's own deadline. One immediate retry
		// replaces a connection that died while idle; repeating is harmless.
		ContextTimeoutEnabled: true,
		DialTimeout:           o.DialTimeout,
		ReadTimeout:           o.Timeout,
		WriteTimeout:          o.Timeout,
		PoolTimeout:           o.Timeout,
		DialerRetries:         1,
		MaxRetries:            1,
		MinRetryBackoff:       -1,
		MaxRetryBackoff:       -1,

		// Nothing that needs a right beyond the scripts themselves.
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

// String says where Redis is, without a password: "10.0.0.1:6379/2 prefix:".
func (o *Options) String() string {
	where := strings.Join(o.Addresses, ",")
	if u, err := url.Parse(o.URL); o.URL != "" && err == nil {
		where = u.Host + u.Path
	}
	where = cmp.Or(where, "127.0.0.1:6379")
	if o.MasterName != "" {
		where = o.MasterName + "@" + where
	}
	if o.DB != 0 {
		where += "/" + strconv.Itoa(o.DB)
	}
	if o.KeyPrefix != "" && o.KeyPrefix != DefaultKeyPrefix {
		where += " " + o.KeyPrefix
	}
	return where
}

func (o *Options) readURL() error {
	if o.URL == "" {
		return nil
	}
	if len(o.Addresses) > 0 {
		return errors.New("url and address exclude each other")
	}
	// go-redis' error would quote the URL, and with it the password.
	u, err := url.Parse(o.URL)
	if err != nil {
		return errors.New("url: not a URL like redis://user:password@host:6379/0")
	}
	if u.RawQuery != "" {
		return fmt.Errorf("url: %s has a query: options are lines of their own", u.Redacted())
	}
	if !slices.Contains([]string{"redis", "rediss", "unix"}, u.Scheme) {
		return fmt.Errorf("url: %s is not redis://, rediss:// or unix://", u.Redacted())
	}
	parsed, err := redis.ParseURL(o.URL)
	if err != nil {
		return fmt.Errorf("url: %s: %s", u.Redacted(), strings.TrimPrefix(err.Error(), "redis: "))
	}
	if parsed.DB != 0 && o.DB != 0 && parsed.DB != o.DB {
		return fmt.Errorf("db: %d, but the url says %d", o.DB, parsed.DB)
	}
	o.Addresses = []string{parsed.Addr}
	o.DB = max(o.DB, parsed.DB)
	if parsed.Username != "" {
		o.Username = parsed.Username
	}
	if parsed.Password != "" {
		o.Password = parsed.Password
	}
	if o.TLS == nil {
		o.TLS = parsed.TLSConfig
	}
	return nil
}
