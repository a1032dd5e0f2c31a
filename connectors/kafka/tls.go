package kafka

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/pavlo-v-chernykh/keystore-go/v4"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/skald-io/skald/internal/mutant"
)

const maxStore = 8 << 20 // bytes of a file of certificates

// tlsConfig reads the files that c names. Own is read again for each connection, so that a certificate can
// be renewed under a running node; when that fails, the last one that was good is presented.
func (c Config) tlsConfig() (*tls.Config, error) {
	t := c.TLS
	var errs []error
	bad := func(key, cure string, err error) {
		errs = append(errs, c.configError(key, cure, "%v", err))
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	switch t.MinVersion {
	case "", "1.2":
	case "1.3":
		conf.MinVersion = tls.VersionTLS13
	default:
		bad("kafka.tls.min-version", "1.2 or 1.3", fmt.Errorf("%q is no version", t.MinVersion))
	}
	var err error
	if conf.RootCAs, err = t.Trust.authorities(); err != nil {
		bad("kafka.tls.ca-file", "name a file of certificates (PEM, PKCS #12 or JKS) that this process may read, and its password", err)
	}
	if !t.Own.zero() {
		first, err := t.Own.certificate()
		if err != nil {
			bad("kafka.tls.cert-file", "name a file with a certificate and its key, or the key's own file in kafka.tls.key-file", err)
		}
		var mu sync.Mutex
		good := first
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			mu.Lock()
			defer mu.Unlock()
			if now, err := t.Own.certificate(); err == nil {
				good = now
			}
			return good, nil
		}
	}
	if t.AnyHost {
		roots := conf.RootCAs
		conf.InsecureSkipVerify = true // only the name is not checked: the chain is, below
		conf.VerifyConnection = func(s tls.ConnectionState) error {
			if mutant.On("kafka-any-host-is-any-certificate") {
				return nil
			}
			o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
			for _, cert := range s.PeerCertificates[1:] {
				o.Intermediates.AddCert(cert)
			}
			_, err := s.PeerCertificates[0].Verify(o)
			return err
		}
	}
	return conf, errors.Join(errs...)
}

// contents are a store's certificates, and its key and chain where it has one.
type contents struct {
	trusted []*x509.Certificate
	own     *tls.Certificate
}

// authorities is nil, for the system's, when the store is not set.
func (s Store) authorities() (*x509.CertPool, error) {
	if s.zero() {
		return nil, nil
	}
	c, err := s.read(false)
	if err != nil {
		return nil, err
	}
	if len(c.trusted) == 0 {
		return nil, fmt.Errorf("%s: no certificate in it", s.name())
	}
	pool := x509.NewCertPool()
	for _, cert := range c.trusted {
		pool.AddCert(cert)
	}
	return pool, nil
}

func (s Store) certificate() (*tls.Certificate, error) {
	c, err := s.read(true)
	if err != nil {
		return nil, err
	}
	if c.own == nil {
		return nil, fmt.Errorf("%s: no certificate with its key in it", s.name())
	}
	return c.own, nil
}

func (s Store) name() string {
	if s.File == "" {
		return "the certificates"
	}
	return s.File
}

func (s Store) read(own bool) (contents, error) {
	data := []byte(onLines(string(s.PEM)))
	switch {
	case s.File != "" && s.PEM != "":
		return contents{}, fmt.Errorf("%s: there are certificates in the configuration as well", s.File)
	case s.File != "":
		var err error
		if data, err = readBounded(s.File, maxStore); err != nil {
			return contents{}, err
		}
	case s.PEM == "":
		return contents{}, errors.New("no file named")
	}
	password := s.Password
	if s.PasswordFile != "" {
		if password != "" {
			return contents{}, fmt.Errorf("%s: there is a password as well as a file with one", s.name())
		}
		var err error
		if password, err = readSecret(s.PasswordFile); err != nil {
			return contents{}, err
		}
	}
	is := storeType(data)
	if want := strings.ToUpper(s.Type); want != "" && want != is {
		if want != "PEM" && want != "PKCS12" && want != "JKS" {
			return contents{}, fmt.Errorf("%s: no such type as %q: it is PEM, PKCS12 or JKS", s.name(), s.Type)
		}
		if !(want == "JKS" && is == "PKCS12") { // as Java: it has called its PKCS #12 files JKS since version 9
			return contents{}, fmt.Errorf("%s: it is not %s but %s", s.name(), want, is)
		}
	}
	var c contents
	var err error
	switch is {
	case "PEM":
		c, err = s.readPEM(data, own)
	case "JKS":
		c, err = readJKS(data, password, s.KeyPassword, own)
	default:
		c, err = readPKCS12(data, password, own)
	}
	if err != nil {
		return contents{}, fmt.Errorf("%s: %w", s.name(), err)
	}
	return c, nil
}

var pemBlock = regexp.MustCompile(`-----BEGIN ([A-Z0-9 ]+)-----([A-Za-z0-9+/=\s]+)-----END ([A-Z0-9 ]+)-----`)

// onLines puts the line ends back that PEM loses on its way into a property or a variable, and that Java
// does not miss.
func onLines(text string) string {
	return pemBlock.ReplaceAllStringFunc(text, func(block string) string {
		m := pemBlock.FindStringSubmatch(block)
		return "\n-----BEGIN " + m[1] + "-----\n" + strings.Join(strings.Fields(m[2]), "\n") + "\n-----END " + m[3] + "-----\n"
	})
}

func storeType(data []byte) string {
	switch {
	case bytes.HasPrefix(data, []byte{0xfe, 0xed, 0xfe, 0xed}), bytes.HasPrefix(data, []byte{0xce, 0xce, 0xce, 0xce}):
		return "JKS"
	case len(data) > 0 && data[0] == 0x30:
		return "PKCS12"
	}
	return "PEM"
}

func (s Store) readPEM(data []byte, own bool) (contents, error) {
	var c contents
	chain, key := data, data
	if s.KeyFile != "" {
		var err error
		if key, err = readBounded(s.KeyFile, maxStore); err != nil {
			return c, err
		}
	}
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return c, err
		}
		c.trusted = append(c.trusted, cert)
	}
	if !own {
		return c, nil
	}
	for rest := key; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
			return c, errors.New("its key is encrypted, which PEM files may be only for Java; decrypt it (openssl pkey -in KEY -out PLAIN), or make a PKCS #12 file of both (openssl pkcs12 -export)")
		}
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return c, err
	}
	c.own = &pair
	return c, nil
}

func readPKCS12(data []byte, password Secret, own bool) (c contents, err error) {
	defer noPanic(&err)
	if !own {
		if c.trusted, err = pkcs12.DecodeTrustStore(data, string(password)); err == nil {
			return c, nil
		}
		// One that was not written by Java has no mark of trust on its certificates.
		_, cert, more, err2 := pkcs12.DecodeChain(data, string(password))
		if err2 == nil {
			c.trusted, err = append(more, cert), nil
		}
		return c, err
	}
	key, cert, more, err := pkcs12.DecodeChain(data, string(password))
	if err != nil {
		return c, err
	}
	c.own = &tls.Certificate{PrivateKey: key, Leaf: cert, Certificate: [][]byte{cert.Raw}}
	for _, m := range more {
		c.own.Certificate = append(c.own.Certificate, m.Raw)
	}
	return c, nil
}

func readJKS(data []byte, password, keyPassword Secret, own bool) (c contents, err error) {
	defer noPanic(&err)
	if keyPassword == "" {
		keyPassword = password
	}
	ks := keystore.New()
	if err := ks.Load(bytes.NewReader(data), []byte(password)); err != nil {
		return c, err
	}
	for _, alias := range ks.Aliases() {
		switch {
		case ks.IsTrustedCertificateEntry(alias):
			e, err := ks.GetTrustedCertificateEntry(alias)
			if err != nil {
				return c, err
			}
			cert, err := x509.ParseCertificate(e.Certificate.Content)
			if err != nil {
				return c, fmt.Errorf("certificate %q: %w", alias, err)
			}
			c.trusted = append(c.trusted, cert)
		case own && ks.IsPrivateKeyEntry(alias):
			if c.own != nil {
				return c, errors.New("it has more than one key, and Skald cannot know which is meant: keep one")
			}
			e, err := ks.GetPrivateKeyEntry(alias, []byte(keyPassword))
			if err != nil {
				return c, fmt.Errorf("key %q: %w", alias, err)
			}
			key, err := x509.ParsePKCS8PrivateKey(e.PrivateKey)
			if err != nil {
				return c, fmt.Errorf("key %q: %w", alias, err)
			}
			c.own = &tls.Certificate{PrivateKey: key}
			for _, cert := range e.CertificateChain {
				c.own.Certificate = append(c.own.Certificate, cert.Content)
			}
			if len(c.own.Certificate) == 0 {
				return c, fmt.Errorf("key %q has no certificate", alias)
			}
		}
	}
	return c, nil
}

// noPanic turns a decoder's panic on a damaged file into an error.
func noPanic(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("it is damaged: %v", p)
	}
}
