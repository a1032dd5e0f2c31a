package kafka

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skald-io/skald/internal/mutant"
)

// Secret is a password, key or token. However it is printed, logged or encoded, it does not show.
type Secret string

const redacted = "[redacted]"

func (s Secret) String() string {
	if s == "" || mutant.On("kafka-secrets-shown") {
		return string(s)
	}
	return redacted
}

// GoString is what %#v prints.
func (s Secret) GoString() string { return `"` + s.String() + `"` }

// LogValue is what slog writes.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText is what JSON and YAML encoders write.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// TLS says how connections are encrypted, and who is at their ends. The zero value is no TLS.
type TLS struct {
	Enabled bool
	Trust   Store // who may sign the brokers' certificates; zero: whom the system trusts
	Own     Store // this client's certificate and key, for mTLS; read anew for each connection
	// ServerName is the name in the brokers' certificates, where it is not the host that is dialled.
	ServerName string
	// AnyHost leaves unchecked whether a certificate is that of the host that was dialled.
	AnyHost    bool
	MinVersion string // "1.2", which is the default, or "1.3"
}

// Store is a file of certificates, or of one certificate and its key: PEM, PKCS #12 or JKS. Types are told
// apart by the file's beginning.
type Store struct {
	File         string
	Type         string // "PEM", "PKCS12", "JKS"; "": whatever it is
	PEM          Secret // instead of File
	KeyFile      string // a key in a PEM file of its own
	Password     Secret
	PasswordFile string
	KeyPassword  Secret // JKS: of the key, where it is not the store's
}

func (s Store) zero() bool { return s == Store{} }

// SASL says how this client authenticates. The zero value is not at all.
type SASL struct {
	Mechanism string // "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"

	User            string
	Password        Secret
	PasswordFile    string // read anew at each authentication; instead of Password
	DelegationToken bool   // SCRAM: User and Password are a delegation token's id and HMAC

	// OAUTHBEARER takes its token from exactly one of Token, TokenFile and TokenURL.
	Token            Secret
	TokenFile        string // read anew at each authentication
	TokenURL         string // of an OAuth 2 endpoint that grants client credentials
	ClientID         string
	ClientSecret     Secret
	ClientSecretFile string // read anew with each grant; instead of ClientSecret
	Scope            string
	Extensions       map[string]string
	TokenTrust       Store // who may sign the endpoint's certificate; zero: whom the system trusts
}

// Ranges of what is configured.
const (
	minTimeout, maxTimeout = 10 * time.Millisecond, time.Hour
	maxMessage             = 256 << 20
)

// Validate says everything that is wrong with c, each as an *Error with CodeConfiguration that names the
// place where it was set. It reads the files that c names, and asks nothing of the network.
func (c Config) Validate() error {
	var errs []error
	bad := func(key, cure, format string, args ...any) {
		errs = append(errs, c.configError(key, cure, format, args...))
	}
	if len(c.Brokers) == 0 {
		bad("kafka.brokers", "name a broker, as host:port", "no broker named")
	}
	for _, b := range c.Brokers {
		if host, port, err := net.SplitHostPort(b); err != nil || host == "" || port == "" {
			bad("kafka.brokers", "write it as host:port, for instance kafka-1.example.org:9092", "%q is no address of a broker", b)
		}
	}
	duration := func(key string, d, low, high time.Duration) {
		if d != 0 && (d < low || d > high) {
			bad(key, "", "%s is outside %s to %s", d, low, high)
		}
	}
	duration("kafka.session-timeout", c.Session, minTimeout, maxTimeout)
	duration("kafka.append-timeout", c.AppendTimeout, minTimeout, maxTimeout)
	duration("kafka.request-timeout", c.RequestTimeout, minTimeout, maxTimeout)
	duration("kafka.dial-timeout", c.DialTimeout, minTimeout, maxTimeout)
	duration("kafka.metadata-max-age", c.MetadataMaxAge, minTimeout, maxTimeout)
	duration("kafka.linger", max(c.Linger, 0), 0, time.Minute)
	for key, n := range map[string]int{"kafka.max-message-bytes": c.MaxMessageBytes, "kafka.max-fetch-bytes": c.MaxFetchBytes} {
		if n < 0 || n > maxMessage {
			bad(key, "", "%d is outside 1 to %d bytes", n, maxMessage)
		}
	}
	errs = append(errs, c.checkTLS(), c.checkSASL())
	return errors.Join(errs...)
}

func (c Config) checkTLS() error {
	t := c.TLS
	if !t.Enabled {
		if t.AnyHost || t.ServerName != "" || t.MinVersion != "" || !t.Trust.zero() || !t.Own.zero() {
			return c.configError("kafka.tls.enabled", "switch TLS on, or remove what concerns it", "TLS is off, but there are settings for it")
		}
		return nil
	}
	_, err := c.tlsConfig()
	return err
}

func (c Config) checkSASL() error {
	s := c.SASL
	var errs []error
	bad := func(key, cure, format string, args ...any) {
		errs = append(errs, c.configError(key, cure, format, args...))
	}
	both := func(key string, a bool, other string, b bool) {
		if a && b {
			bad(key, "keep one of the two", "it is set, and so is %s", other)
		}
	}
	both("kafka.sasl.password", s.Password != "", "kafka.sasl.password-file", s.PasswordFile != "")
	both("kafka.sasl.client-secret", s.ClientSecret != "", "kafka.sasl.client-secret-file", s.ClientSecretFile != "")
	tokens := 0
	for _, set := range []bool{s.Token != "", s.TokenFile != "", s.TokenURL != ""} {
		if set {
			tokens++
		}
	}
	switch s.Mechanism {
	case "":
		if s.User != "" || s.Password != "" || s.PasswordFile != "" || tokens > 0 || s.ClientID != "" {
			bad("kafka.sasl.mechanism", "name one of "+strings.Join(mechanisms, ", "), "there are credentials, but no mechanism")
		}
		return errors.Join(errs...)
	case "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512":
		if s.User == "" {
			bad("kafka.sasl.username", "name the user", "%s needs a user", s.Mechanism)
		}
		if s.Password == "" && s.PasswordFile == "" {
			bad("kafka.sasl.password", "set kafka.sasl.password-file, or the variable SKALD_SASL_PASSWORD", "%s needs a password", s.Mechanism)
		}
		if tokens > 0 {
			bad("kafka.sasl.mechanism", "tokens are for OAUTHBEARER", "there is a token, but the mechanism is %s", s.Mechanism)
		}
	case "OAUTHBEARER":
		if tokens != 1 {
			bad("kafka.sasl.token-file", "set one of kafka.sasl.token-file, kafka.sasl.token-url and kafka.sasl.token", "OAUTHBEARER takes its token from one place, and %d are set", tokens)
		}
		if s.TokenURL != "" {
			if err := checkTokenURL(s.TokenURL); err != nil {
				bad("kafka.sasl.token-url", "write it as https://host/path", "%v", err)
			}
			if s.ClientID == "" || s.ClientSecret == "" && s.ClientSecretFile == "" {
				bad("kafka.sasl.client-id", "set kafka.sasl.client-id and kafka.sasl.client-secret-file", "the token endpoint needs a client's id and secret")
			}
			if _, err := s.TokenTrust.authorities(); err != nil {
				bad("kafka.sasl.token-ca-file", "name a file of certificates that this process may read", "%v", err)
			}
		}
		for k, v := range s.Extensions {
			if k == "" || k == "auth" || strings.ContainsFunc(k, func(r rune) bool { return r < 'A' || r > 'z' || r > 'Z' && r < 'a' }) ||
				strings.ContainsFunc(v, func(r rune) bool { return r == 1 || r == 0 || r > 126 }) {
				bad("kafka.sasl.extensions", "names are letters other than auth, values are printable ASCII", "%q is no extension of OAUTHBEARER", k)
			}
		}
	default:
		bad("kafka.sasl.mechanism", "use one of "+strings.Join(mechanisms, ", "), "%q is no mechanism that Skald knows", s.Mechanism)
	}
	for key, file := range map[string]string{"kafka.sasl.password-file": s.PasswordFile, "kafka.sasl.client-secret-file": s.ClientSecretFile, "kafka.sasl.token-file": s.TokenFile} {
		if file != "" {
			if _, err := readSecret(file); err != nil {
				bad(key, "name a file that this process may read, with the secret in its first line", "%v", err)
			}
		}
	}
	return errors.Join(errs...)
}

var mechanisms = []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"}

// Warnings are what one may choose to live with: each an *Error with CodeWeakSecurity.
func (c Config) Warnings() []error {
	var out []error
	weak := func(key, cure, detail string) {
		out = append(out, &Error{Code: CodeWeakSecurity, Detail: c.at(key) + detail, Cure: cure})
	}
	if !c.TLS.Enabled && (c.SASL.Mechanism == "PLAIN" || c.SASL.Mechanism == "OAUTHBEARER") {
		weak("kafka.sasl.mechanism", "use TLS, or SCRAM, which does not send the password", c.SASL.Mechanism+" without TLS shows the credentials to the network")
	}
	if c.TLS.Enabled && c.TLS.AnyHost {
		weak("kafka.tls.verify-hostname", "give the brokers certificates that name them, or set kafka.tls.server-name", "certificates are not checked against the host: whoever has one that is trusted can take a broker's place")
	}
	if strings.HasPrefix(c.SASL.TokenURL, "http:") && !loopbackURL(c.SASL.TokenURL) {
		weak("kafka.sasl.token-url", "use https", "the client's secret goes to the token endpoint unencrypted")
	}
	return out
}

// ClientOpts gives what any franz-go client needs to reach the cluster as c says: addresses, TLS,
// authentication, client id. c.Opts come last. An error is that of Validate.
func (c Config) ClientOpts() ([]kgo.Opt, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	opts, err := c.reach()
	if err != nil {
		return nil, err
	}
	if c.ClientID != "" {
		opts = append(opts, kgo.ClientID(c.ClientID))
	}
	return append(opts, c.Opts...), nil
}

// reach is what every client of a Client has in common.
func (c Config) reach() ([]kgo.Opt, error) {
	opts := []kgo.Opt{kgo.SeedBrokers(c.Brokers...), kgo.DialTimeout(5 * time.Second)}
	if c.DialTimeout > 0 {
		opts = append(opts, kgo.DialTimeout(c.DialTimeout))
	}
	if c.RequestTimeout > 0 {
		opts = append(opts, kgo.RequestTimeoutOverhead(c.RequestTimeout))
	}
	if c.MetadataMaxAge > 0 {
		opts = append(opts, kgo.MetadataMaxAge(c.MetadataMaxAge))
		if c.MetadataMaxAge < 5*time.Second {
			opts = append(opts, kgo.MetadataMinAge(min(c.MetadataMaxAge, 250*time.Millisecond)))
		}
	}
	if c.TLS.Enabled {
		conf, err := c.tlsConfig()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.DialTLSConfig(conf))
	}
	if c.SASL.Mechanism != "" {
		opts = append(opts, kgo.SASL(c.SASL.mechanism()))
	}
	return opts, nil
}

// configError names the place where a setting was made, when that is known, else the setting.
func (c Config) configError(key, cure, format string, args ...any) error {
	return &Error{Code: CodeConfiguration, Detail: c.at(key) + fmt.Sprintf(format, args...), Cure: cure}
}

func (c Config) at(key string) string {
	p := c.places[key]
	if p == "" { // what is missing is missed where its neighbours are
		level := key[:strings.LastIndexByte(key, '.')+1]
		for _, k := range slices.Sorted(maps.Keys(c.places)) {
			if strings.HasPrefix(k, level) && len(level) > len("kafka.") {
				p = c.places[k]
				break
			}
		}
	}
	if p == "" {
		return key + ": "
	}
	return p + ": " + key + ": "
}

const maxSecret = 64 << 10

// readSecret gives a file's content without the line's end that editors leave.
func readSecret(file string) (Secret, error) {
	b, err := readBounded(file, maxSecret)
	if err != nil {
		return "", err
	}
	s := strings.TrimRight(string(b), "\r\n")
	if s == "" {
		return "", fmt.Errorf("%s is empty", file)
	}
	return Secret(s), nil
}

// readBounded reads a file of at most limit bytes.
func readBounded(file string, limit int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(b)) > limit:
		return nil, fmt.Errorf("%s: more than %d bytes", file, limit)
	}
	return b, nil
}
