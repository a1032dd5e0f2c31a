package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"testing"
)

// serve answers TLS handshakes with the certificate, and tells each client's.
func serve(t *testing.T, p *pki, clients *x509.Certificate) (addr string, seen <-chan *x509.Certificate) {
	t.Helper()
	conf := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{p.cert.Raw}, PrivateKey: p.key}}}
	if clients != nil {
		conf.ClientCAs = x509.NewCertPool()
		conf.ClientCAs.AddCert(clients)
		conf.ClientAuth = tls.RequireAndVerifyClientCert
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	ch := make(chan *x509.Certificate, 10)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			tc := conn.(*tls.Conn)
			if tc.Handshake() == nil && len(tc.ConnectionState().PeerCertificates) > 0 {
				ch <- tc.ConnectionState().PeerCertificates[0]
			}
			conn.Close()
		}
	}()
	return l.Addr().String(), ch
}

func shakeHands(addr string, conf *tls.Config) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	conf = conf.Clone()
	if conf.ServerName == "" {
		conf.ServerName, _, _ = net.SplitHostPort(addr)
	}
	return tls.Client(conn, conf).Handshake()
}

func TestACertificateOfAnotherHostIsTakenOnlyWhenToldAndOfAnotherAuthorityNever(t *testing.T) {
	elsewhere, stranger := newPKI(t, "elsewhere.example.org"), newPKI(t, "127.0.0.1")
	for _, x := range []struct {
		what string
		tls  TLS
		of   *pki
		ok   bool
	}{
		{"another host", TLS{}, elsewhere, false},
		{"another host, told so", TLS{AnyHost: true}, elsewhere, true},
		{"another host, named", TLS{ServerName: "elsewhere.example.org"}, elsewhere, true},
		{"another authority", TLS{}, stranger, false},
		{"another authority, any host", TLS{AnyHost: true}, stranger, false},
	} {
		addr, _ := serve(t, x.of, nil)
		x.tls.Enabled, x.tls.Trust = true, Store{PEM: Secret(elsewhere.caPEM)}
		conf, err := Config{TLS: x.tls}.tlsConfig()
		if err != nil {
			t.Fatal(err)
		}
		if err := shakeHands(addr, conf); (err == nil) != x.ok {
			t.Errorf("%s: %v", x.what, err)
		}
	}
}

func TestARenewedCertificateIsPresentedToTheNextConnection(t *testing.T) {
	old, renewed := newPKI(t, "127.0.0.1"), newPKI(t, "127.0.0.1")
	file := write(t, "own.pem", old.certPEM+old.keyPEM)
	conf, err := Config{TLS: TLS{Enabled: true, Trust: Store{PEM: Secret(old.caPEM)}, Own: Store{File: file}}}.tlsConfig()
	if err != nil {
		t.Fatal(err)
	}
	addr, seen := serve(t, old, old.ca)
	if err := shakeHands(addr, conf); err != nil || !(<-seen).Equal(old.cert) {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("half writ"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := conf.GetClientCertificate(nil); err != nil || string(c.Certificate[0]) != string(old.cert.Raw) {
		t.Errorf("a file that cannot be read ended the use of the last good certificate: %v", err)
	}
	if err := os.WriteFile(file, []byte(renewed.certPEM+renewed.keyPEM), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := conf.GetClientCertificate(nil); err != nil || string(c.Certificate[0]) != string(renewed.cert.Raw) {
		t.Errorf("the renewed certificate is not presented: %v", err)
	}
}
