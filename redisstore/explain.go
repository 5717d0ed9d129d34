package redisstore

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"
)

// explained is an error with a sentence in front that says which option is at
// fault, and without what nobody is to read.
type explained struct {
	text string
	error
}

func (e explained) Error() string { return e.text }
func (e explained) Unwrap() error { return e.error }

// explain says what an error of the client's means for who configures it.
func (s *Store) explain(err error) error {
	if _, done := errors.AsType[explained](err); done || err == nil {
		return err
	}
	text := Redact(err.Error(), s.given.Password, s.given.SentinelPassword)
	if sentence := s.given.meaning(err); sentence != "" {
		text = sentence + ": " + text
	} else if text == err.Error() {
		return err
	}
	return explained{text, err}
}

// Redact takes out of a text the secrets and whatever a server repeats of a
// command that it does not know, such as AUTH with the password.
func Redact(text string, secrets ...string) string {
	text, _, _ = strings.Cut(text, ", with args beginning with")
	for _, secret := range secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "xxxxx")
		}
	}
	return text
}

// meaning is what an error means in terms of the options; "" if its own text is
// all there is to say.
func (o *Options) meaning(err error) string {
	says := func(beginnings ...string) bool {
		for _, b := range beginnings {
			if redis.HasErrorPrefix(err, b) {
				return true
			}
		}
		return false
	}
	where := strings.Join(o.Addresses, ", ")
	unknown, isDNS := errors.AsType[*net.DNSError](err)
	_, isPlain := errors.AsType[tls.RecordHeaderError](err)
	_, isCertificate := errors.AsType[*tls.CertificateVerificationError](err)
	operation, _ := errors.AsType[*net.OpError](err)
	atSentinels := strings.Contains(err.Error(), "all sentinels specified in configuration")
	switch {
	case isDNS:
		return fmt.Sprintf("address: host %q is not known", unknown.Name)
	case isPlain:
		return "tls: the server does not speak TLS"
	case errors.Is(err, errNoHandshake):
		return "tls: the server hangs, or does not speak TLS"
	case isCertificate:
		return "tls: the server's certificate is not accepted"
	case operation != nil && operation.Op == "remote error", errors.Is(err, errHungUp) && o.TLS != nil:
		return "tls: the server does not accept the certificate, or wants one"
	case errors.Is(err, errHungUp):
		return "tls: the server hangs up at the first word, as one that wants TLS does"

	case atSentinels && errors.Is(err, redis.Nil), says("No such master"):
		return fmt.Sprintf("master_name: no Sentinel knows the master %q; asked: %s", o.MasterName, where)
	case atSentinels && says("WRONGPASS", "invalid password", "AUTH <password> called", "AUTH called"):
		return "sentinel_username, sentinel_password: the Sentinels do not take them"
	case atSentinels && says("NOAUTH"):
		return "sentinel_password: the Sentinels want one"
	case atSentinels && says("NOPERM"):
		return fmt.Sprintf("sentinel_username: %q lacks a right at the Sentinels", cmp.Or(o.SentinelUsername, "default"))
	case atSentinels && says("unknown command"):
		return fmt.Sprintf("master_name: needs the Sentinels as addresses, and these are none: %s", where)
	case atSentinels:
		return "address: no Sentinel answers"

	case says("WRONGPASS", "invalid password"):
		return "username, password: Redis does not take them"
	case says("AUTH <password> called", "AUTH called"):
		return "password: Redis has none for this user"
	case says("NOAUTH", "Protocol error: unauthenticated"):
		return "password: Redis wants one"
	case says("NOPERM", "The user executing the script"):
		return fmt.Sprintf("username: %q lacks a right", cmp.Or(o.Username, "default"))
	case says("SELECT is not allowed in cluster mode"):
		return fmt.Sprintf("db: %d, but a Cluster has only database 0", o.DB)
	case says("DB index is out of range"):
		return fmt.Sprintf("db: Redis has no database %d", o.DB)
	case says("This instance has cluster support disabled"):
		return "address: several of them, or cluster, mean a Cluster, and this server is of none"
	case says("READONLY") && o.MasterName == "":
		return "address: leads to a replica, which takes no writes"
	case says("OOM"):
		return "Redis is full"
	case says("MISCONF"):
		return "Redis takes no writes because it cannot save them"
	case says("NOREPLICAS"):
		return "Redis takes no writes because it has too few replicas"
	case says("unknown command"):
		return "Redis, or a proxy in front of it, lacks a command"
	}
	return ""
}
