package redisstore

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

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
	Node        uint8         // which of the nodes asks, 1 to 255; default a random one, the same for all stores of the process
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
		if err := checkAddress(a); err != nil {
			return nil, err
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
	case o.Username != "" && o.Password == "":
		return nil, fmt.Errorf("username: %q comes without a password", o.Username)
	case o.SentinelUsername != "" && o.SentinelPassword == "":
		return nil, fmt.Errorf("sentinel_username: %q comes without a sentinel_password", o.SentinelUsername)
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
		prefix:  o.KeyPrefix,
		channel: "ended:" + o.KeyPrefix,
		timeout: o.Timeout,
		node:    cmp.Or(o.Node, node),
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

// checkAddress shows an address in its error only if there can be no password in it.
func checkAddress(a string) error {
	if strings.HasPrefix(a, "/") && strings.IndexFunc(a, unicode.IsSpace) < 0 {
		return nil
	}
	if strings.Contains(a, "@") {
		return errors.New("address: has an @: user and password are options of their own, and a URL is given as url")
	}
	host, port, err := net.SplitHostPort(a)
	n, none := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil || none != nil || n == 0 || strings.IndexFunc(a, unicode.IsSpace) >= 0:
		if strings.Contains(a, "://") || strings.ContainsAny(a, "?#=") || strings.Contains(a, "/") && a[0] != '/' {
			return errors.New("address: is neither host:port nor the path of a Unix socket; a URL is given as url")
		}
		return fmt.Errorf("address: %q is neither host:port nor the path of a Unix socket", a)
	case host == "":
		return fmt.Errorf("address: %q has no host", a)
	}
	return nil
}

// String says where Redis is, without a password: "10.0.0.1:6379/2 prefix:".
func (o *Options) String() string {
	where := strings.Join(o.Addresses, ",")
	if o.URL != "" {
		read := *o
		if read.readURL() != nil {
			return "at a url that is none" // and may have a password anywhere
		}
		u, _ := url.Parse(o.URL)
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

// readURL shows nothing of the URL in its errors: where it is not as it ought to
// be, any part may be one of the password.
func (o *Options) readURL() error {
	if o.URL == "" {
		return nil
	}
	if len(o.Addresses) > 0 {
		return errors.New("url and address exclude each other")
	}
	u, err := url.Parse(o.URL)
	switch {
	case err != nil:
		return errors.New("url: not a URL like redis://user:password@host:6379/0; what is special in a password is escaped, such as / as %2F")
	case !slices.Contains([]string{"redis", "rediss", "unix"}, u.Scheme):
		return errors.New("url: does not begin with redis://, rediss:// or unix://")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return errors.New("url: has something after a ? or a #: options are lines of their own")
	case u.Scheme == "unix" && (u.Host != "" || u.Path == ""):
		return errors.New("url: unix:// takes the path of a socket, as in unix:///run/redis.sock")
	case u.Scheme != "unix" && u.Hostname() == "":
		return errors.New("url: has no host")
	case strings.Contains(u.Path, "@"):
		return errors.New("url: has an @ behind the host: what is special in a password is escaped, such as / as %2F")
	}
	parsed, err := redis.ParseURL(o.URL)
	if err != nil {
		return errors.New("url: the path is no number of a database")
	}
	if parsed.DB < 0 {
		return errors.New("url: the number of the database is negative")
	}
	if parsed.Username != "" && parsed.Password == "" {
		return errors.New("url: has a user without a password; a password alone is redis://:password@host")
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

// node is which of the nodes this process is.
var node = uint8(1 + rand.IntN(255))
