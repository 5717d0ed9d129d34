package redisstore

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/streamguard/streamguard/guard"
	"github.com/streamguard/streamguard/redisstore/redistest"
)

const canary = "c4n4ry"

// Every way to ask a store says which option is at fault, and no secret.
func TestErrorsNameTheOptionAndNoSecret(t *testing.T) {
	dir, port := t.TempDir(), redistest.FreePort(t)
	ca, key := certificate(t, dir, "ca", nil, nil)
	certificate(t, dir, "server", ca, key)
	authority := x509.NewCertPool()
	authority.AddCert(ca)
	path := func(name string) string { return filepath.Join(dir, name) }
	redistest.Start(t, "--tls-port", port, "--tls-cert-file", path("server.crt"), "--tls-key-file", path("server.key"), "--tls-ca-cert-file", path("ca.crt"))
	withTLS := []string{"127.0.0.1:" + port}
	plain := []string{redistest.Start(t).Addr}
	locked := []string{redistest.Start(t, "--requirepass", "other").Addr}
	limited := []string{redistest.Start(t, strings.Fields("--user gate on >"+canary+" ~sg:* -@all +hello +ping +get")...).Addr}
	old := []string{redistest.Start(t, "--rename-command", "HELLO", "", "--rename-command", "AUTH", "").Addr}
	host, masterPort, _ := net.SplitHostPort(plain[0])
	replica := []string{redistest.Start(t, "--replicaof", host+" "+masterPort).Addr}
	proxy := []string{redistest.Start(t, "--rename-command", "EVALSHA", "").Addr}
	sentinel := []string{redistest.StartSentinel(t, sentinelConfig(t, plain[0])).Addr}
	lockedSentinel := []string{redistest.StartSentinel(t, sentinelConfig(t, plain[0], "requirepass other")).Addr}
	away := []string{"127.0.0.1:" + redistest.FreePort(t)}
	for name, c := range map[string]struct {
		options Options
		want    string
	}{
		"wrong password":             {Options{Addresses: locked, Password: canary}, "username, password: Redis does not take them: WRONGPASS"},
		"wrong password in the URL":  {Options{URL: "redis://u:" + canary + "@" + locked[0]}, "username, password: Redis does not take them: WRONGPASS"},
		"no password":                {Options{Addresses: locked}, "password: Redis wants one: "},
		"no rights":                  {Options{Addresses: limited, Username: "gate", Password: canary}, `username: "gate" lacks a right: NOPERM`},
		"AUTH is not known":          {Options{Addresses: old, Password: canary}, "lacks a command"},
		"scripts are not known":      {Options{Addresses: proxy}, "lacks a command"},
		"TLS, where is none":         {Options{Addresses: plain, TLS: &tls.Config{RootCAs: authority}}, "tls: the server hangs, or does not speak TLS"},
		"no TLS, where is some":      {Options{Addresses: withTLS, Password: canary}, "tls: the server hangs up at the first word"},
		"another authority":          {Options{Addresses: withTLS, TLS: &tls.Config{}}, "tls: the server's certificate is not accepted"},
		"no certificate":             {Options{Addresses: withTLS, TLS: &tls.Config{RootCAs: authority}}, "tls: the server does not accept the certificate, or wants one"},
		"another host":               {Options{Addresses: []string{"nowhere.invalid:6379"}, Password: canary}, `address: host "nowhere.invalid" is not known`},
		"a replica":                  {Options{Addresses: replica}, "address: leads to a replica, which takes no writes: READONLY"},
		"no such database":           {Options{Addresses: plain, DB: 99}, "db: Redis has no database 99"},
		"no Cluster":                 {Options{Addresses: plain, Cluster: true}, "address: several of them, or cluster, mean a Cluster"},
		"nothing listens":            {Options{Addresses: away, Password: canary}, "connection refused"},
		"a misspelled master":        {Options{Addresses: sentinel, MasterName: "gards", Password: canary}, `master_name: no Sentinel knows the master "gards"; asked: ` + sentinel[0]},
		"Sentinels: wrong password":  {Options{Addresses: lockedSentinel, MasterName: "guards", SentinelPassword: canary}, "sentinel_username, sentinel_password: the Sentinels do not take them"},
		"Sentinels: no password":     {Options{Addresses: lockedSentinel, MasterName: "guards"}, "sentinel_password: the Sentinels want one"},
		"Sentinels that are none":    {Options{Addresses: plain, MasterName: "guards", SentinelPassword: canary}, "these are none: " + plain[0]},
		"Sentinels, nothing listens": {Options{Addresses: away, MasterName: "guards", SentinelPassword: canary}, "address: no Sentinel answers"},
	} {
		t.Run(name, func(t *testing.T) {
			c.options.Timeout = 4 * time.Second
			s := open(t, c.options)
			says := func(by string, err error) {
				t.Helper()
				switch {
				case err == nil || !strings.Contains(err.Error(), c.want):
					t.Errorf("%s: %v, want %q", by, err, c.want)
				case strings.Contains(err.Error(), canary):
					t.Errorf("%s shows the password: %v", by, err)
				}
			}
			says("probe", s.Probe(t.Context())[0].Err)
			says("metrics", s.Nodes(t.Context())[0].Err)
			_, err := s.Acquire(t.Context(), claim("u", "1"), policy)
			says("acquire", err)
			says("acquire all", s.AcquireAll(t.Context(), []guard.Request{{Claim: claim("u", "1"), Policy: policy}})[0].Err)
			if where := c.options.String(); strings.Contains(where, canary) {
				t.Errorf("its name shows the password: %s", where)
			}
		})
	}
}
