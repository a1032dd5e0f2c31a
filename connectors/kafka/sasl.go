package kafka

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/skald-io/skald/internal/mutant"
)

// mechanism is called after Validate. Files are read at each authentication, so that what they hold can be
// renewed under a running node.
func (s SASL) mechanism() sasl.Mechanism {
	credentials := func() (user, pass string, err error) {
		p, err := s.password()
		return s.User, string(p), err
	}
	sc := func(context.Context) (scram.Auth, error) {
		u, p, err := credentials()
		return scram.Auth{User: u, Pass: p, IsToken: s.DelegationToken}, err
	}
	switch s.Mechanism {
	case "PLAIN":
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			u, p, err := credentials()
			return plain.Auth{User: u, Pass: p}, err
		})
	case "SCRAM-SHA-256":
		return scram.Sha256(sc)
	case "SCRAM-SHA-512":
		return scram.Sha512(sc)
	}
	token := func(context.Context) (Secret, error) { return s.Token, nil }
	switch {
	case s.TokenFile != "":
		read := func() (Secret, error) { return readSecret(s.TokenFile) }
		if mutant.On("kafka-token-file-read-once") {
			read = sync.OnceValues(read)
		}
		token = func(context.Context) (Secret, error) { return read() }
	case s.TokenURL != "":
		token = (&granter{sasl: s}).token
	}
	return oauth.Oauth(func(ctx context.Context) (oauth.Auth, error) {
		t, err := token(ctx)
		return oauth.Auth{Token: string(t), Extensions: maps.Clone(s.Extensions)}, err
	})
}

func (s SASL) password() (Secret, error) {
	if s.PasswordFile != "" {
		return readSecret(s.PasswordFile)
	}
	return s.Password, nil
}

// granter gets tokens from an OAuth 2 endpoint (RFC 6749, section 4.4, as Java's
// OAuthBearerLoginCallbackHandler does) and gives one to every connection until four fifths of its life
// have passed.
type granter struct {
	sasl SASL

	mu    sync.Mutex
	held  Secret
	until time.Time
}

const (
	grantTimeout = 10 * time.Second
	maxGrant     = 1 << 20 // bytes of an endpoint's answer
)

func (g *granter) token(ctx context.Context) (Secret, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held != "" && time.Now().Before(g.until) {
		return g.held, nil
	}
	t, life, err := g.grant(ctx)
	if err != nil {
		return "", fmt.Errorf("token endpoint %s: %w", withoutUser(g.sasl.TokenURL), err)
	}
	g.held, g.until = t, time.Now().Add(life*4/5)
	return t, nil
}

func (g *granter) grant(ctx context.Context) (Secret, time.Duration, error) {
	secret := g.sasl.ClientSecret
	if g.sasl.ClientSecretFile != "" {
		var err error
		if secret, err = readSecret(g.sasl.ClientSecretFile); err != nil {
			return "", 0, err
		}
	}
	roots, err := g.sasl.TokenTrust.authorities()
	if err != nil {
		return "", 0, err
	}
	form := url.Values{"grant_type": {"client_credentials"}}
	if g.sasl.Scope != "" {
		form.Set("scope", g.sasl.Scope)
	}
	ctx, cancel := context.WithTimeout(ctx, grantTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, g.sasl.TokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return "", 0, errors.New("it is no address")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(g.sasl.ClientID+":"+string(secret))))
	client := http.Client{
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true},
		// The client's secret goes nowhere but where it was configured to go.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		if ue := (*url.Error)(nil); errors.As(err, &ue) {
			err = ue.Err // without the address, which may hold a user
		}
		return "", 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxGrant))
	if err != nil {
		return "", 0, err
	}
	var answer struct {
		Token   Secret      `json:"access_token"`
		Expires json.Number `json:"expires_in"`
		Error   string      `json:"error"`
	}
	jerr := json.Unmarshal(body, &answer)
	switch {
	case resp.StatusCode != http.StatusOK:
		return "", 0, fmt.Errorf("it answers %s %.100q", resp.Status, answer.Error)
	case jerr != nil:
		return "", 0, errors.New("its answer is no JSON")
	case answer.Token == "":
		return "", 0, errors.New("its answer has no access_token")
	}
	life := time.Minute
	if n, err := answer.Expires.Float64(); err == nil && n > 0 {
		life = time.Duration(min(n, 24*60*60) * float64(time.Second))
	}
	return answer.Token, life, nil
}

func checkTokenURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("it is no address of an endpoint")
	case u.User != nil:
		return errors.New("it holds a user, which is for kafka.sasl.client-id")
	}
	return nil
}

func loopbackURL(s string) bool {
	u, err := url.Parse(s)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

func withoutUser(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "(no address)"
	}
	u.User, u.RawQuery = nil, ""
	return u.String()
}
