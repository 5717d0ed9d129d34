package storage

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/streamguard/streamguard/caddymodule/block"
	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/redisstore"
)

func init() {
	caddy.RegisterModule(Redis{})
	redis.SetLogger(clientLog{})
}

// Redis keeps guards in Redis 6.2 or later, or Valkey: one server, a master
// that Sentinels watch, or a Cluster. Every text may be a global placeholder
// such as `{env.REDIS_PASSWORD}`.
type Redis struct {
	// A single server: redis://user:password@host:port/db, rediss:// for TLS,
	// or unix:///path. Excludes addresses.
	URL string `json:"url,omitempty"`

	// host:port, or the path of a Unix socket. One is a server, several are
	// seeds of a Cluster, or with master_name the Sentinels. Default
	// 127.0.0.1:6379.
	Addresses []string `json:"addresses,omitempty"`

	// The Sentinels' name for the master.
	MasterName string `json:"master_name,omitempty"`

	// Whether the one address is a Cluster's configuration endpoint. Default false.
	Cluster bool `json:"cluster,omitempty"`

	// User and password (ACL, AUTH). Default none.
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`

	// User and password of the Sentinels. Default none.
	SentinelUsername string `json:"sentinel_username,omitempty"`
	SentinelPassword string `json:"sentinel_password,omitempty"`

	// The database's number. Default 0; a Cluster has no other.
	DB int `json:"db,omitempty"`

	// TLS to Redis and the Sentinels. Default none; an empty object is TLS
	// with the system's authorities.
	TLS *RedisTLS `json:"tls,omitempty"`

	// Connections to each server. Default 10 for each CPU.
	PoolSize int `json:"pool_size,omitempty"`

	// The bound on a whole call. Default 500ms.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// The bound on connecting. Default timeout.
	DialTimeout caddy.Duration `json:"dial_timeout,omitempty"`

	// What stands in front of the user in a key. Default `sg:`.
	KeyPrefix string `json:"key_prefix,omitempty"`

	// Who is asked for lists of guards that decide nothing: `master`, or
	// `replica` of a Cluster or behind Sentinels. Default `master`.
	ReadFrom string `json:"read_from,omitempty"`

	options redisstore.Options
	key     [sha256.Size]byte
}

// RedisTLS is how to speak TLS to Redis.
type RedisTLS struct {
	// A PEM file with the authorities that sign the servers' certificates.
	// Default the system's.
	CA string `json:"ca,omitempty"`

	// PEM files of the client's certificate and its key. Default none.
	Certificate string `json:"certificate,omitempty"`
	Key         string `json:"key,omitempty"`

	// The name in the servers' certificates. Default the host in the address.
	ServerName string `json:"server_name,omitempty"`

	// Whether any certificate will do. For tests only. Default false.
	InsecureSkipVerify bool `json:"insecure_skip_verify,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (Redis) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "stream_guard.stores.redis",
		New: func() caddy.Module { return new(Redis) },
	}
}

// secret are the options of which an error shows no part.
var secret = map[string]bool{"url": true, "password": true, "sentinel_password": true}

// Provision reads placeholders and files. It does not connect.
func (s *Redis) Provision(caddy.Context) error {
	repl := caddy.NewReplacer()
	plain := *s
	tlsOptions := RedisTLS{}
	if s.TLS != nil {
		tlsOptions = *s.TLS
		plain.TLS = &tlsOptions
	}
	texts := []struct {
		option string
		value  *string
	}{
		{"url", &plain.URL},
		{"master_name", &plain.MasterName},
		{"username", &plain.Username},
		{"password", &plain.Password},
		{"sentinel_username", &plain.SentinelUsername},
		{"sentinel_password", &plain.SentinelPassword},
		{"key_prefix", &plain.KeyPrefix},
		{"tls ca", &tlsOptions.CA},
		{"tls certificate", &tlsOptions.Certificate},
		{"tls key", &tlsOptions.Key},
		{"tls server_name", &tlsOptions.ServerName},
	}
	plain.Addresses = make([]string, len(s.Addresses))
	for i, a := range s.Addresses {
		if a == "" {
			return errors.New("address: empty")
		}
		plain.Addresses[i] = a
		texts = append(texts, struct {
			option string
			value  *string
		}{"address", &plain.Addresses[i]})
	}
	for _, t := range texts {
		value, err := repl.ReplaceOrErr(*t.value, true, true)
		if err != nil {
			if secret[t.option] && !strings.Contains(err.Error(), "{env.") && !strings.Contains(err.Error(), "{file.") {
				err = errors.New(`what stands in braces is no placeholder or has no value; a brace in a password is written \{ or \}`)
			}
			return fmt.Errorf("%s: %w", t.option, err)
		}
		*t.value = value
	}
	s.options = redisstore.Options{
		URL:              plain.URL,
		Addresses:        plain.Addresses,
		MasterName:       plain.MasterName,
		Cluster:          plain.Cluster,
		Username:         plain.Username,
		Password:         plain.Password,
		SentinelUsername: plain.SentinelUsername,
		SentinelPassword: plain.SentinelPassword,
		DB:               plain.DB,
		PoolSize:         plain.PoolSize,
		Timeout:          time.Duration(plain.Timeout),
		DialTimeout:      time.Duration(plain.DialTimeout),
		KeyPrefix:        plain.KeyPrefix,
		ReadFrom:         plain.ReadFrom,
	}
	var files [][]byte
	if plain.TLS != nil {
		var err error
		if s.options.TLS, files, err = plain.TLS.load(); err != nil {
			return fmt.Errorf("tls: %w", err)
		}
	}
	// New contents of a file, such as a renewed certificate, are a new store too.
	resolved, err := json.Marshal([]any{plain, files})
	if err != nil {
		return err
	}
	s.key = sha256.Sum256(resolved)
	return nil
}

// CheckOptions finds what is wrong with the options as far as they are known when
// a Caddyfile is read, where its line is: without global placeholders, and
// without files.
func (s *Redis) CheckOptions() error {
	c := *s
	if b, err := json.Marshal(c); err != nil || c.TLS != nil || strings.Contains(string(b), "{env.") || strings.Contains(string(b), "{file.") || strings.Contains(string(b), "{system.") {
		return err
	}
	if err := c.Provision(caddy.Context{}); err != nil {
		return err
	}
	opened, err := redisstore.Open(c.options)
	if err != nil {
		return err
	}
	return opened.Close() // it has connected to nothing
}

// load returns the configuration and the contents of the files it was read from.
func (t *RedisTLS) load() (*tls.Config, [][]byte, error) {
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         t.ServerName,
		InsecureSkipVerify: t.InsecureSkipVerify,
	}
	var files [][]byte
	read := func(option, name string) ([]byte, error) {
		if strings.Contains(name, "-----") {
			return nil, fmt.Errorf("%s: takes the name of a file, not what is in it", option)
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", option, err)
		}
		files = append(files, b)
		return b, nil
	}
	if t.CA != "" {
		pem, err := read("ca", t.CA)
		if err != nil {
			return nil, nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, nil, fmt.Errorf("ca: %s has no certificate in PEM", t.CA)
		}
	}
	if t.Certificate != "" && t.Key == "" {
		return nil, nil, fmt.Errorf("certificate: %s comes without a key", t.Certificate)
	}
	if t.Key != "" && t.Certificate == "" {
		return nil, nil, errors.New("key: comes without a certificate")
	}
	if t.Certificate != "" {
		certPEM, err := read("certificate", t.Certificate)
		if err != nil {
			return nil, nil, err
		}
		keyPEM, err := read("key", t.Key)
		if err != nil {
			return nil, nil, err
		}
		cert, err := tls.X509KeyPair(certPEM, keyPEM)
		if err != nil {
			return nil, nil, fmt.Errorf("certificate %s, key %s: %w", t.Certificate, t.Key, err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	return config, files, nil
}

// Key implements Opener.
func (s *Redis) Key() any { return s.key }

// Open implements Opener.
func (s *Redis) Open(onAway func(server string, away bool)) (guard.Store, error) {
	o, name := s.options, s.String()
	o.OnAway = onAway
	o.OnDeaf = func(err error) {
		storeLog().Warn("Redis does not tell what other Caddys end: it is felt with the next refresh only", zap.String("store", name), zap.Error(err))
	}
	return redisstore.Open(o)
}

// String implements Opener.
func (s *Redis) String() string { return "redis " + s.options.String() }

// UnmarshalCaddyfile reads
//
//	redis [<url>] {
//		url               <url>
//		address           <host:port...>
//		master_name       <name>
//		cluster
//		username          <name>
//		password          <password>
//		sentinel_username <name>
//		sentinel_password <password>
//		db                <number>
//		pool_size         <number>
//		timeout           <duration>
//		dial_timeout      <duration>
//		key_prefix        <prefix>
//		read_from         master|replica
//		tls {
//			ca          <file>
//			certificate <file>
//			key         <file>
//			server_name <name>
//			insecure_skip_verify
//		}
//	}
func (s *Redis) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // redis
	words := map[string]*string{
		"url":               &s.URL,
		"master_name":       &s.MasterName,
		"username":          &s.Username,
		"password":          &s.Password,
		"sentinel_username": &s.SentinelUsername,
		"sentinel_password": &s.SentinelPassword,
		"key_prefix":        &s.KeyPrefix,
		"read_from":         &s.ReadFrom,
	}
	if d.NextArg() {
		if s.URL = d.Val(); s.URL == "" {
			return d.Err("url: empty")
		}
		delete(words, "url")
	}
	if d.NextArg() {
		return d.Err("redis: takes one URL: several servers are given by address") // what follows may be of a password
	}
	return block.Options(d, words, func(option string) error {
		switch option {
		case "url":
			return d.Err("url is given twice")
		case "address":
			more := d.RemainingArgs()
			if len(more) == 0 {
				return d.Err("address: takes at least one host:port")
			}
			s.Addresses = append(s.Addresses, more...)
		case "cluster":
			return block.Flag(d, &s.Cluster)
		case "db":
			return block.Number(d, &s.DB)
		case "pool_size":
			return block.Number(d, &s.PoolSize)
		case "timeout":
			return block.Duration(d, &s.Timeout)
		case "dial_timeout":
			return block.Duration(d, &s.DialTimeout)
		case "tls":
			s.TLS = new(RedisTLS)
			return s.TLS.unmarshalCaddyfile(d)
		default:
			return d.Errf("the redis store has no option %q", option)
		}
		return nil
	}, nil, "address")
}

func (t *RedisTLS) unmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.Errf("tls: takes a block, not %q", d.Val())
	}
	words := map[string]*string{"ca": &t.CA, "certificate": &t.Certificate, "key": &t.Key, "server_name": &t.ServerName}
	return block.Options(d, words, func(option string) error {
		if option != "insecure_skip_verify" {
			return d.Errf("tls has no option %q", option)
		}
		return block.Flag(d, &t.InsecureSkipVerify)
	}, nil)
}

// clientLog hands what go-redis logs to Caddy's log of the moment.
type clientLog struct{}

func (clientLog) Printf(_ context.Context, format string, v ...any) {
	caddy.Log().Named("stream_guard.stores.redis").Debug("redis client", zap.String("message", redisstore.Redact(fmt.Sprintf(format, v...))))
}

var (
	_ Opener                = (*Redis)(nil)
	_ caddy.Provisioner     = (*Redis)(nil)
	_ caddyfile.Unmarshaler = (*Redis)(nil)
)
