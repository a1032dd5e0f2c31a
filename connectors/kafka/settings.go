package kafka

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Setting describes one thing that can be set. Flags, environment, the YAML file and the page
// docs/configuration.md all follow the one table, Settings, and what a program adds to it.
type Setting struct {
	Key     string // in the YAML file, with a dot between levels; flag and variable follow from it
	Java    string // in a client.properties; "": none
	Arg     string // what stands for the value in help: FILE, DURATION
	Help    string // half a sentence
	Default string
	Secret  bool // has no flag: arguments of a process can be seen by others
	List    bool // values with commas between them, or a YAML list
	// Set checks and keeps a value, nil for a program's own settings: those are found in Loaded.Values.
	Set func(c *Config, value string) error
}

// Flag is the name of its flag, without dashes; "" for secrets.
func (s Setting) Flag() string {
	if s.Secret {
		return ""
	}
	return strings.ReplaceAll(strings.TrimPrefix(s.Key, "kafka."), ".", "-")
}

// Env is the name of its environment variable.
func (s Setting) Env() string {
	return "SKALD_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(strings.TrimPrefix(s.Key, "kafka.")))
}

// Settings are those of a connection, in the order in which they are documented.
func Settings() []Setting { return slices.Clone(settings) }

var settings = []Setting{
	{Key: "kafka.brokers", Java: "bootstrap.servers", Arg: "ADDR", List: true, Default: DefaultBroker, Help: "some brokers, host:port, with commas between several",
		Set: func(c *Config, v string) error { c.Brokers = splitList(v); return nil }},
	{Key: "kafka.client-id", Java: "client.id", Arg: "NAME", Default: "skald", Help: "what the brokers' logs and quotas call this client", Set: text(func(c *Config) *string { return &c.ClientID })},
	{Key: "kafka.session-timeout", Java: "session.timeout.ms", Arg: "DURATION", Default: "10s", Help: "after how long of silence the group gives a node's shards to others", Set: span(func(c *Config) *time.Duration { return &c.Session })},
	{Key: "kafka.request-timeout", Java: "request.timeout.ms", Arg: "DURATION", Default: "10s", Help: "how long a broker may take for an answer, beyond what the request itself allows it", Set: span(func(c *Config) *time.Duration { return &c.RequestTimeout })},
	{Key: "kafka.dial-timeout", Java: "socket.connection.setup.timeout.ms", Arg: "DURATION", Default: "5s", Help: "how long a connection may take to open", Set: span(func(c *Config) *time.Duration { return &c.DialTimeout })},
	{Key: "kafka.metadata-max-age", Java: "metadata.max.age.ms", Arg: "DURATION", Default: "30s", Help: "after how long what is known of topics and leaders is asked anew", Set: span(func(c *Config) *time.Duration { return &c.MetadataMaxAge })},
	{Key: "kafka.append-timeout", Java: "delivery.timeout.ms", Arg: "DURATION", Default: "30s", Help: "how long an append to the journal may go without an answer before its outcome counts as unknown", Set: span(func(c *Config) *time.Duration { return &c.AppendTimeout })},
	{Key: "kafka.linger", Arg: "DURATION", Default: "adaptive", Help: "how long a produced record waits for company; adaptive: while the answer to what was sent before is awaited, at most 2 ms",
		Set: func(c *Config, v string) error {
			if v == "adaptive" {
				c.Linger = 0
				return nil
			}
			err := span(func(c *Config) *time.Duration { return &c.Linger })(c, v)
			switch {
			case err == nil && c.Linger < 0:
				return fmt.Errorf("%.40q is negative", v)
			case err == nil && c.Linger == 0:
				c.Linger = NoLinger
			}
			return err
		}},
	{Key: "kafka.max-message-bytes", Arg: "BYTES", Default: "1048576", Help: "the largest batch that is produced, before compression; at most the topics' max.message.bytes", Set: number(func(c *Config) *int { return &c.MaxMessageBytes })},
	{Key: "kafka.max-fetch-bytes", Arg: "BYTES", Default: "2097152", Help: "the largest fetch from one broker", Set: number(func(c *Config) *int { return &c.MaxFetchBytes })},

	{Key: "kafka.tls.enabled", Arg: "BOOL", Default: "true when any other kafka.tls setting is made", Help: "encrypt connections and check the brokers' certificates", Set: yes(func(c *Config) *bool { return &c.TLS.Enabled })},
	{Key: "kafka.tls.ca-file", Java: "ssl.truststore.location", Arg: "FILE", Default: "whom the system trusts", Help: "who may sign the brokers' certificates: PEM, PKCS #12 or JKS", Set: text(func(c *Config) *string { return &c.TLS.Trust.File })},
	{Key: "kafka.tls.ca-type", Java: "ssl.truststore.type", Arg: "TYPE", Default: "told by the file's beginning", Help: "PEM, PKCS12 or JKS", Set: text(func(c *Config) *string { return &c.TLS.Trust.Type })},
	{Key: "kafka.tls.ca-pem", Java: "ssl.truststore.certificates", Secret: true, Help: "the same as text, in PEM, instead of a file", Set: secret(func(c *Config) *Secret { return &c.TLS.Trust.PEM })},
	{Key: "kafka.tls.ca-password", Java: "ssl.truststore.password", Secret: true, Help: "of that file", Set: secret(func(c *Config) *Secret { return &c.TLS.Trust.Password })},
	{Key: "kafka.tls.ca-password-file", Arg: "FILE", Help: "a file with that password", Set: text(func(c *Config) *string { return &c.TLS.Trust.PasswordFile })},
	{Key: "kafka.tls.cert-file", Java: "ssl.keystore.location", Arg: "FILE", Help: "mTLS: this client's certificate, with its key: PEM, PKCS #12 or JKS; read anew for each connection", Set: text(func(c *Config) *string { return &c.TLS.Own.File })},
	{Key: "kafka.tls.cert-type", Java: "ssl.keystore.type", Arg: "TYPE", Default: "told by the file's beginning", Help: "PEM, PKCS12 or JKS", Set: text(func(c *Config) *string { return &c.TLS.Own.Type })},
	{Key: "kafka.tls.cert-pem", Secret: true, Help: "certificate and key as text, in PEM, instead of a file", Set: secret(func(c *Config) *Secret { return &c.TLS.Own.PEM })},
	{Key: "kafka.tls.cert-password", Java: "ssl.keystore.password", Secret: true, Help: "of that file", Set: secret(func(c *Config) *Secret { return &c.TLS.Own.Password })},
	{Key: "kafka.tls.cert-password-file", Arg: "FILE", Help: "a file with that password", Set: text(func(c *Config) *string { return &c.TLS.Own.PasswordFile })},
	{Key: "kafka.tls.key-file", Arg: "FILE", Help: "the key, where it stands in a PEM file of its own", Set: text(func(c *Config) *string { return &c.TLS.Own.KeyFile })},
	{Key: "kafka.tls.key-password", Java: "ssl.key.password", Secret: true, Help: "of the key in a JKS file, where it is not the file's", Set: secret(func(c *Config) *Secret { return &c.TLS.Own.KeyPassword })},
	{Key: "kafka.tls.server-name", Arg: "NAME", Default: "the host that is dialled", Help: "the name in the brokers' certificates", Set: text(func(c *Config) *string { return &c.TLS.ServerName })},
	{Key: "kafka.tls.verify-hostname", Arg: "BOOL", Default: "true", Help: "whether a certificate has to be of the host that was dialled; false is a weak setting, and warned about",
		Set: func(c *Config, v string) error {
			b, err := parseBool(v)
			c.TLS.AnyHost = !b
			return err
		}},
	{Key: "kafka.tls.min-version", Arg: "VERSION", Default: "1.2", Help: "1.2 or 1.3", Set: text(func(c *Config) *string { return &c.TLS.MinVersion })},

	{Key: "kafka.sasl.mechanism", Java: "sasl.mechanism", Arg: "NAME", Help: "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER", Set: text(func(c *Config) *string { return &c.SASL.Mechanism })},
	{Key: "kafka.sasl.username", Arg: "NAME", Help: "the user", Set: text(func(c *Config) *string { return &c.SASL.User })},
	{Key: "kafka.sasl.password", Secret: true, Help: "the user's password", Set: secret(func(c *Config) *Secret { return &c.SASL.Password })},
	{Key: "kafka.sasl.password-file", Arg: "FILE", Help: "a file with that password, read anew at each authentication", Set: text(func(c *Config) *string { return &c.SASL.PasswordFile })},
	{Key: "kafka.sasl.delegation-token", Arg: "BOOL", Default: "false", Help: "user and password are a delegation token's id and HMAC", Set: yes(func(c *Config) *bool { return &c.SASL.DelegationToken })},
	{Key: "kafka.sasl.token", Secret: true, Help: "OAUTHBEARER: a token that does not change", Set: secret(func(c *Config) *Secret { return &c.SASL.Token })},
	{Key: "kafka.sasl.token-file", Arg: "FILE", Help: "OAUTHBEARER: a file with the token, read anew at each authentication", Set: text(func(c *Config) *string { return &c.SASL.TokenFile })},
	{Key: "kafka.sasl.token-url", Java: "sasl.oauthbearer.token.endpoint.url", Arg: "URL", Help: "OAUTHBEARER: an OAuth 2 endpoint that grants client credentials",
		Set: func(c *Config, v string) error {
			// As in Java: a file is an endpoint too.
			if file, ok := strings.CutPrefix(v, "file://"); ok {
				c.SASL.TokenFile = file
				return nil
			}
			c.SASL.TokenURL = v
			return nil
		}},
	{Key: "kafka.sasl.token-ca-file", Arg: "FILE", Default: "whom the system trusts", Help: "who may sign that endpoint's certificate", Set: text(func(c *Config) *string { return &c.SASL.TokenTrust.File })},
	{Key: "kafka.sasl.client-id", Java: "sasl.oauthbearer.client.credentials.client.id", Arg: "ID", Help: "the client's id at that endpoint", Set: text(func(c *Config) *string { return &c.SASL.ClientID })},
	{Key: "kafka.sasl.client-secret", Java: "sasl.oauthbearer.client.credentials.client.secret", Secret: true, Help: "the client's secret there", Set: secret(func(c *Config) *Secret { return &c.SASL.ClientSecret })},
	{Key: "kafka.sasl.client-secret-file", Arg: "FILE", Help: "a file with that secret, read anew with each grant", Set: text(func(c *Config) *string { return &c.SASL.ClientSecretFile })},
	{Key: "kafka.sasl.scope", Java: "sasl.oauthbearer.scope", Arg: "SCOPE", Help: "the scope to ask for", Set: text(func(c *Config) *string { return &c.SASL.Scope })},
	{Key: "kafka.sasl.extensions", Arg: "K=V", List: true, Help: "SASL extensions of OAUTHBEARER",
		Set: func(c *Config, v string) error {
			c.SASL.Extensions = map[string]string{}
			for _, kv := range splitList(v) {
				k, x, ok := strings.Cut(kv, "=")
				if !ok {
					return fmt.Errorf("%.40q is not NAME=VALUE", kv)
				}
				c.SASL.Extensions[k] = x
			}
			return nil
		}},
}

func text(at func(*Config) *string) func(*Config, string) error {
	return func(c *Config, v string) error { *at(c) = v; return nil }
}

func secret(at func(*Config) *Secret) func(*Config, string) error {
	return func(c *Config, v string) error { *at(c) = Secret(v); return nil }
}

func span(at func(*Config) *time.Duration) func(*Config, string) error {
	return func(c *Config, v string) error {
		d, err := time.ParseDuration(v)
		if err != nil {
			return fmt.Errorf("%.40q is no duration: write a number and its unit, for instance 500ms or 10s", v)
		}
		*at(c) = d
		return nil
	}
}

func number(at func(*Config) *int) func(*Config, string) error {
	return func(c *Config, v string) error {
		n, err := strconv.Atoi(v)
		if err != nil {
			return fmt.Errorf("%.40q is no whole number", v)
		}
		*at(c) = n
		return nil
	}
}

func yes(at func(*Config) *bool) func(*Config, string) error {
	return func(c *Config, v string) (err error) {
		*at(c), err = parseBool(v)
		return err
	}
}

func parseBool(v string) (bool, error) {
	switch strings.ToLower(v) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("%.40q is neither true nor false", v)
}

func splitList(v string) []string {
	var out []string
	for x := range strings.SplitSeq(v, ",") {
		if x = strings.TrimSpace(x); x != "" {
			out = append(out, x)
		}
	}
	return out
}

// nearest is the known name that a misspelt one was most likely meant to be; "" when none is near.
func nearest(name string, known []string) string {
	best, at := "", len(name)/3+2
	for _, k := range known {
		if d := distance(name, k, at); d < at {
			best, at = k, d
		}
	}
	return best
}

// distance is Levenshtein's, or at least limit when it is not below that.
func distance(a, b string, limit int) int {
	if d := len(a) - len(b); d >= limit || -d >= limit || len(a) > 200 {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
