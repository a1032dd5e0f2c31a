package kafka

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Secure is what a client needs to know of a cluster that was started with Options.Secure. Beside the plain
// listener, whose anonymous clients may do everything, each broker has one for SASL_SSL, one for
// SASL_PLAINTEXT and one for TLS with certificates of clients; on those the authorizer forbids whatever no ACL
// allows. All mechanisms and the certificate authenticate one principal, User:skald.
type Secure struct {
	SASLSSL, SASLPlain, MTLS string // addresses of the first broker, host:port

	CAFile, CertFile, KeyFile string // PEM
	User, Password            string // of PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512; the password is also that of "participant", with PLAIN
	Token                     string // of OAUTHBEARER, unsecured, good for an hour
}

const (
	secureUser     = "skald"
	securePassword = `p=a"s\s, word`
)

// Secure tells how to reach the guarded listeners; nil without Options.Secure.
func (c *Cluster) Secure() *Secure { return c.secure }

// secureProperties are the broker's, over the others.
func (c *Cluster) secureProperties(b *broker, controller int, ports []int) (map[string]string, error) {
	if c.secure == nil {
		c.secure = &Secure{CAFile: filepath.Join(c.dir, "ca.pem"), CertFile: filepath.Join(c.dir, "client.pem"), KeyFile: filepath.Join(c.dir, "client-key.pem"),
			User: secureUser, Password: securePassword, Token: unsecuredToken(secureUser, time.Now().Add(time.Hour))}
		if err := c.secure.certificates(filepath.Join(c.dir, "broker.pem")); err != nil {
			return nil, err
		}
	}
	at := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
	if c.secure.SASLSSL == "" {
		c.secure.SASLSSL, c.secure.SASLPlain, c.secure.MTLS = at(ports[0]), at(ports[1]), at(ports[2])
	}
	guarded := fmt.Sprintf("SASLSSL://%s,SASLPLAIN://%s,MTLS://%s", at(ports[0]), at(ports[1]), at(ports[2]))
	props := map[string]string{
		"listeners":                      fmt.Sprintf("PLAINTEXT://%s,CONTROLLER://127.0.0.1:%d,%s", b.addr, controller, guarded),
		"advertised.listeners":           "PLAINTEXT://" + b.addr + "," + guarded,
		"listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASLSSL:SASL_SSL,SASLPLAIN:SASL_PLAINTEXT,MTLS:SSL",
		"inter.broker.listener.name":     "PLAINTEXT",
		"authorizer.class.name":          "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"super.users":                    "User:ANONYMOUS",
		"ssl.keystore.type":              "PEM", "ssl.keystore.location": filepath.Join(c.dir, "broker.pem"),
		"ssl.truststore.type": "PEM", "ssl.truststore.location": c.secure.CAFile,
		"listener.name.mtls.ssl.client.auth": "required",
		"ssl.principal.mapping.rules":        "RULE:^CN=([a-z]+)$/$1/,DEFAULT",
	}
	quoted := `p=a\"s\\s, word`
	for _, listener := range []string{"saslssl", "saslplain"} {
		name := "listener.name." + listener + "."
		props[name+"sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER"
		props[name+"plain.sasl.jaas.config"] = `org.apache.kafka.common.security.plain.PlainLoginModule required user_` + secureUser + `="` + quoted + `" user_participant="` + quoted + `";`
		for _, scram := range []string{"scram-sha-256", "scram-sha-512"} {
			props[name+scram+".sasl.jaas.config"] = `org.apache.kafka.common.security.scram.ScramLoginModule required;`
		}
		props[name+"oauthbearer.sasl.jaas.config"] = `org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";`
	}
	return props, nil
}

// users gives the SCRAM users their passwords, which the brokers keep themselves.
func (c *Cluster) users(ctx context.Context) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Addr()))
	if err != nil {
		return err
	}
	defer cl.Close()
	for _, m := range []kadm.ScramMechanism{kadm.ScramSha256, kadm.ScramSha512} { // a request takes one of a user
		done, err := kadm.NewClient(cl).AlterUserSCRAMs(ctx, nil, []kadm.UpsertSCRAM{{User: secureUser, Mechanism: m, Iterations: 4096, Password: securePassword}})
		if err == nil {
			err = done.Error()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// certificates signs one for the brokers and one for the client.
func (s *Secure) certificates(brokerFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	}
	ca := template(1, "authority")
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage, ca.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	if err != nil {
		return err
	}
	caPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	signed := func(t *x509.Certificate) (cert, private []byte, err error) {
		own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, nil, err
		}
		der, err := x509.CreateCertificate(rand.Reader, t, ca, &own.PublicKey, key)
		if err != nil {
			return nil, nil, err
		}
		raw, err := x509.MarshalPKCS8PrivateKey(own)
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), err
	}
	broker := template(2, "broker")
	broker.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	bCert, bKey, err := signed(broker)
	if err != nil {
		return err
	}
	cCert, cKey, err := signed(template(3, secureUser))
	if err != nil {
		return err
	}
	for file, content := range map[string][]byte{s.CAFile: caPEM, s.CertFile: cCert, s.KeyFile: cKey, brokerFile: append(bKey, bCert...)} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// unsecuredToken is a JWT that nobody signed, as brokers without other settings take it.
func unsecuredToken(subject string, until time.Time) string {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	return part(`{"alg":"none"}`) + "." + part(fmt.Sprintf(`{"sub":%q,"iat":%d,"exp":%d}`, subject, time.Now().Unix()-10, until.Unix())) + "."
}
