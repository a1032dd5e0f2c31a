package kafka

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/pavlo-v-chernykh/keystore-go/v4"
	"go.yaml.in/yaml/v4"
	"software.sslmate.com/src/go-pkcs12"
)

func write(t testing.TB, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func variables(kv ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(kv); i += 2 {
			if kv[i] == name {
				return kv[i+1]
			}
		}
		return ""
	}
}

func TestFlagsGoBeforeEnvironmentBeforeTheFileBeforeJavasPropertiesBeforeDefaults(t *testing.T) {
	props := write(t, "client.properties", "bootstrap.servers=java:1\nclient.id=java\nrequest.timeout.ms=1000\nsession.timeout.ms=7000\n")
	file := write(t, "skald.yaml", "kafka:\n  properties: "+props+"\n  brokers: [yaml:1, yaml:2]\n  client-id: yaml\n  session-timeout: 8s\n")
	l, err := Load(Sources{
		Flags:  map[string]string{"brokers": "flag:1"},
		Getenv: variables("SKALD_BROKERS", "env:1", "SKALD_CLIENT_ID", "env"), File: file,
	})
	if err != nil {
		t.Fatal(err)
	}
	c := l.Config
	if got := fmt.Sprintf("%v %s %s %s %s", c.Brokers, c.ClientID, c.Session, c.RequestTimeout, c.DialTimeout); got != "[flag:1] env 8s 1s 0s" {
		t.Error(got)
	}
	if got := l.Values["kafka.client-id"].Place + " " + strings.TrimPrefix(l.Values["kafka.session-timeout"].Place, file); got != "$SKALD_CLIENT_ID :5" {
		t.Error(got)
	}
	if l, err = Load(Sources{}); err != nil || !reflect.DeepEqual(l.Config.Brokers, []string{DefaultBroker}) {
		t.Error(l.Config.Brokers, err)
	}
	if l, err = Load(Sources{File: file, Getenv: variables("SKALD_PROPERTIES", write(t, "p", "request.timeout.ms=2000"))}); err != nil || l.Config.RequestTimeout != 2*time.Second {
		t.Error(l.Config.RequestTimeout, err)
	}
}

func TestABadYAMLFileIsRefusedWithLineAndCure(t *testing.T) {
	for text, want := range map[string]string{
		"":                                    "",
		"# nothing\n":                         "",
		"kafka:\n":                            "",
		"kafka:\n  brokers: a:1,b:2":          "",
		"kafka:\n  broker: a:1":               ":2: unknown key kafka.broker (did you mean kafka.brokers?)",
		"kafak:\n  brokers: a:1":              ":1: unknown key kafak (",
		"kafka:\n  tls:\n    ca: x\n":         ":3: unknown key kafka.tls.ca (",
		"kafka:\n  sasl:\n    user-name: x\n": "did you mean kafka.sasl.username?",
		"kafka:\n  brokers: a:1\n  brokers: b:1\n":        ":3: kafka.brokers stands twice",
		"kafka:\n  brokers: [a:1, [b:1]]\n":               ":2: an element of kafka.brokers",
		"kafka:\n  client-id: [a]\n":                      ":2: kafka.client-id is one value",
		"kafka:\n  client-id:\n":                          ":2: kafka.client-id has no value",
		"kafka: 7\n":                                      ":1: kafka has keys below it",
		"- a\n":                                           ":1: the file has keys below it",
		"kafka:\n  client-id: &x a\n  brokers: *x\n":      ":2: anchors",
		"kafka:\n  client-id: !!str a\n":                  ":2: anchors, aliases and tags",
		"kafka: {}\n---\nkafka: {}\n":                     "a second document",
		"kafka:\n\tbrokers: a:1\n":                        "it is no YAML",
		"kafka:\n  session-timeout: 10\n":                 ":2: kafka.session-timeout: \"10\" is no duration",
		"kafka:\n  session-timeout: 10h\n":                ":2: kafka.session-timeout: 10h0m0s is outside",
		"kafka:\n  brokers: a\n":                          ":2: kafka.brokers: \"a\" is no address",
		"kafka:\n  tls: {enabled: yes}\n":                 "neither true nor false",
		"kafka:\n  tls: {enabled: false, ca-file: x}\n":   "TLS is off",
		"kafka:\n  tls: {ca-file: /nowhere}\n":            ":2: kafka.tls.ca-file: open /nowhere",
		"kafka:\n  tls: {min-version: 1.1}\n":             "kafka.tls.min-version: \"1.1\"",
		"kafka:\n  sasl: {mechanism: GSSAPI}\n":           "\"GSSAPI\" is no mechanism",
		"kafka:\n  sasl: {username: a}\n":                 "no mechanism (name one of PLAIN",
		"kafka:\n  sasl: {mechanism: PLAIN, username: a}": "PLAIN needs a password (set kafka.sasl.password-file",
		"kafka:\n  sasl: {mechanism: PLAIN, username: a, password: b, password-file: c}": "and so is kafka.sasl.password-file",
		"kafka:\n  sasl: {mechanism: OAUTHBEARER}":                                       "and 0 are set",
		"kafka:\n  sasl: {mechanism: OAUTHBEARER, token: a, token-file: b}":              "and 2 are set",
		"kafka:\n  sasl: {mechanism: OAUTHBEARER, token-url: 'ftp://a'}":                 "is no address of an endpoint",
		"kafka:\n  sasl: {mechanism: OAUTHBEARER, token: a, extensions: [auth=x]}":       "is no extension",
		"kafka:\n  sasl: {mechanism: OAUTHBEARER, token: a, extensions: x}":              "is not NAME=VALUE",
	} {
		file := write(t, "skald.yaml", text)
		l, err := Load(Sources{File: file})
		got := fmt.Sprint(err)
		if want == "" && err != nil || !strings.Contains(got, want) {
			t.Errorf("%q: %s, want %q", text, got, want)
		}
		if e := (*Error)(nil); err != nil && (!errors.As(err, &e) || e.Code != CodeConfiguration || !strings.Contains(got, file+":")) {
			t.Errorf("%q: %s names no place", text, got)
		}
		_ = l
	}
}

func TestAllThatIsWrongIsSaidAtOnceEachWithItsPlace(t *testing.T) {
	file := write(t, "skald.yaml", "kafka:\n  linger: x\n")
	_, err := Load(Sources{File: file, Flags: map[string]string{"request-timeout": "y"}, Getenv: variables("SKALD_MAX_FETCH_BYTES", "z")})
	for _, want := range []string{file + ":2: kafka.linger", "--request-timeout: kafka.request-timeout", "$SKALD_MAX_FETCH_BYTES: kafka.max-fetch-bytes"} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	l, err := Load(Sources{Environ: []string{"SKALD_BROKERS=a:1", "SKALD_SASL_PASWORD=x", "SKALD_MINE=1", "HOME=/"}, Ignore: func(v string) bool { return v == "SKALD_MINE" }})
	if err != nil || len(l.Warnings) != 1 || !strings.Contains(l.Warnings[0].Error(), "did you mean SKALD_SASL_PASSWORD?") {
		t.Error(l.Warnings, err)
	}
}

func TestSecretsShowInNoKindOfOutput(t *testing.T) {
	const password = "correct horse"
	c := Config{Brokers: []string{"a:1"}, SASL: SASL{Mechanism: "PLAIN", User: "u", Password: password, Token: password, ClientSecret: password}, TLS: TLS{Own: Store{Password: password, PEM: password}}}
	l, err := Load(Sources{Getenv: variables("SKALD_SASL_PASSWORD", password, "SKALD_SASL_USERNAME", "u", "SKALD_SASL_MECHANISM", "NONE")})
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "secret", c.SASL.Password, "all", c.SASL, "err", err, "values", l.Values)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "secret", c.SASL.Password, "all", c.SASL)
	j, _ := json.Marshal(c.SASL)
	y, _ := yaml.Marshal(c.SASL)
	fmt.Fprintf(&out, "%v %+v %#v %v %q %s %s", c, c, c, c.SASL, c.SASL.Password, j, y)
	if strings.Contains(out.String(), "horse") {
		t.Error(out.String())
	}
	if !strings.Contains(out.String(), redacted) {
		t.Error("nothing was printed")
	}
	for _, s := range Settings() {
		if s.Secret && s.Flag() != "" {
			t.Errorf("%s has a flag", s.Key)
		}
	}
}

func TestEverySettingHasItsOwnNames(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Settings() {
		names := []string{s.Key, s.Env()}
		if f := s.Flag(); f != "" {
			names = append(names, "--"+f)
		}
		if s.Java != "" {
			names = append(names, "java "+s.Java)
		}
		for _, n := range names {
			if seen[n] {
				t.Errorf("%s stands twice", n)
			}
			seen[n] = true
		}
		if s.Help == "" || s.Arg == "" && !s.Secret || s.Set == nil {
			t.Errorf("%s is not described", s.Key)
		}
	}
}

func TestWeakSettingsAreWarnedAbout(t *testing.T) {
	for _, x := range []struct {
		c    Config
		want string
	}{
		{Config{SASL: SASL{Mechanism: "PLAIN"}}, "shows the credentials"},
		{Config{SASL: SASL{Mechanism: "SCRAM-SHA-256"}}, ""},
		{Config{SASL: SASL{Mechanism: "PLAIN"}, TLS: TLS{Enabled: true}}, ""},
		{Config{TLS: TLS{Enabled: true, AnyHost: true}}, "not checked against the host"},
		{Config{SASL: SASL{TokenURL: "http://example.org"}}, "unencrypted"},
		{Config{SASL: SASL{TokenURL: "http://127.0.0.1:80"}}, ""},
	} {
		if got := fmt.Sprint(x.c.Warnings()); x.want == "" && got != "[]" || !strings.Contains(got, x.want) {
			t.Errorf("%+v: %s", x.c, got)
		}
	}
}

// pki is an authority and what it signed.
type pki struct {
	ca, cert *x509.Certificate
	key      *ecdsa.PrivateKey
	caPEM    string
	certPEM  string
	keyPEM   string
}

func newPKI(t testing.TB, hosts ...string) *pki {
	t.Helper()
	p := &pki{}
	sign := func(serial int64, ca bool, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: fmt.Sprint("skald-", serial)}, NotBefore: time.Now().Add(-time.Hour),
			NotAfter: time.Now().Add(time.Hour), IsCA: ca, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
		for _, h := range hosts {
			if ip := net.ParseIP(h); ip != nil {
				tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
			} else {
				tmpl.DNSNames = append(tmpl.DNSNames, h)
			}
		}
		if parent == nil {
			parent, by = tmpl, key
		}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, by)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert, key, der
	}
	ca, caKey, caDER := sign(1, true, nil, nil)
	cert, key, der := sign(2, false, ca, caKey)
	p.ca, p.cert, p.key = ca, cert, key
	block := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	p.caPEM, p.certPEM = block("CERTIFICATE", caDER), block("CERTIFICATE", der)
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p.keyPEM = block("PRIVATE KEY", raw)
	return p
}

func (p *pki) pkcs12(t testing.TB, password string) (trust, own string) {
	t.Helper()
	a, err := pkcs12.Modern2023.EncodeTrustStore([]*x509.Certificate{p.ca}, password)
	if err != nil {
		t.Fatal(err)
	}
	b, err := pkcs12.Modern2023.Encode(p.key, p.cert, []*x509.Certificate{p.ca}, password)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "trust.p12", string(a)), write(t, "own.p12", string(b))
}

func (p *pki) jks(t testing.TB, password, keyPassword string) (trust, own string) {
	t.Helper()
	store := func(fill func(ks keystore.KeyStore) error) string {
		ks := keystore.New()
		if err := fill(ks); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := ks.Store(&b, []byte(password)); err != nil {
			t.Fatal(err)
		}
		return write(t, "store.jks", b.String())
	}
	raw, _ := x509.MarshalPKCS8PrivateKey(p.key)
	chain := []keystore.Certificate{{Type: "X509", Content: p.cert.Raw}, {Type: "X509", Content: p.ca.Raw}}
	return store(func(ks keystore.KeyStore) error {
			return ks.SetTrustedCertificateEntry("ca", keystore.TrustedCertificateEntry{CreationTime: time.Now(), Certificate: keystore.Certificate{Type: "X509", Content: p.ca.Raw}})
		}), store(func(ks keystore.KeyStore) error {
			return ks.SetPrivateKeyEntry("me", keystore.PrivateKeyEntry{CreationTime: time.Now(), PrivateKey: raw, CertificateChain: chain}, []byte(keyPassword))
		})
}

func TestCertificatesAreReadFromPEMAndPKCS12AndJKS(t *testing.T) {
	p := newPKI(t, "localhost")
	p12Trust, p12Own := p.pkcs12(t, "store")
	jksTrust, jksOwn := p.jks(t, "storepass", "keypass")
	caFile, certFile, keyFile := write(t, "ca.pem", p.caPEM), write(t, "cert.pem", p.certPEM), write(t, "key.pem", p.keyPEM)
	for name, x := range map[string]TLS{
		"PEM":             {Trust: Store{File: caFile}, Own: Store{File: certFile, KeyFile: keyFile}},
		"PEM in one":      {Trust: Store{File: caFile, Type: "pem"}, Own: Store{File: write(t, "both.pem", p.keyPEM+p.certPEM+p.caPEM)}},
		"PEM as text":     {Trust: Store{PEM: Secret(p.caPEM)}, Own: Store{PEM: Secret(p.certPEM + p.keyPEM)}},
		"PKCS12":          {Trust: Store{File: p12Trust, Password: "store"}, Own: Store{File: p12Own, PasswordFile: write(t, "pw", "store\n")}},
		"PKCS12 for both": {Trust: Store{File: p12Own, Password: "store"}, Own: Store{File: p12Own, Password: "store", Type: "PKCS12"}},
		"JKS":             {Trust: Store{File: jksTrust, Password: "storepass", Type: "JKS"}, Own: Store{File: jksOwn, Password: "storepass", KeyPassword: "keypass"}},
		"PKCS12 as JKS":   {Trust: Store{File: p12Trust, Password: "store", Type: "JKS"}, Own: Store{File: p12Own, Password: "store"}},
	} {
		x.Enabled = true
		conf, err := Config{Brokers: []string{"a:1"}, TLS: x}.tlsConfig()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := p.cert.Verify(x509.VerifyOptions{Roots: conf.RootCAs}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		own, err := conf.GetClientCertificate(nil)
		if err != nil || len(own.Certificate) == 0 || !bytes.Equal(own.Certificate[0], p.cert.Raw) || !p.key.Equal(own.PrivateKey) {
			t.Errorf("%s: another certificate: %v", name, err)
		}
	}
	for name, x := range map[string]struct {
		tls  TLS
		want string
	}{
		"wrong password":   {TLS{Trust: Store{File: p12Trust, Password: "nope"}}, "password"},
		"wrong JKS":        {TLS{Trust: Store{File: jksTrust, Password: "nope"}}, "kafka.tls.ca-file"},
		"wrong type":       {TLS{Trust: Store{File: caFile, Type: "JKS"}}, "it is not JKS but PEM"},
		"no type":          {TLS{Trust: Store{File: caFile, Type: "DER"}}, "no such type"},
		"no certificate":   {TLS{Trust: Store{File: keyFile}}, "no certificate in it"},
		"no key":           {TLS{Own: Store{File: certFile}}, "kafka.tls.cert-file"},
		"damaged PKCS12":   {TLS{Trust: Store{File: write(t, "d.p12", "0\x82\x01")}}, "d.p12"},
		"damaged JKS":      {TLS{Trust: Store{File: write(t, "d.jks", "\xfe\xed\xfe\xed\x00\x00")}}, "d.jks"},
		"encrypted key":    {TLS{Own: Store{File: certFile, KeyFile: write(t, "k.pem", strings.ReplaceAll(p.keyPEM, "PRIVATE KEY", "ENCRYPTED PRIVATE KEY"))}}, "decrypt it"},
		"two passwords":    {TLS{Trust: Store{File: p12Trust, Password: "store", PasswordFile: "x"}}, "as well as"},
		"file and text":    {TLS{Trust: Store{File: caFile, PEM: "x"}}, "as well"},
		"no password file": {TLS{Trust: Store{File: p12Trust, PasswordFile: "/nowhere"}}, "/nowhere"},
	} {
		x.tls.Enabled = true
		if err := (Config{Brokers: []string{"a:1"}, TLS: x.tls}).Validate(); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
