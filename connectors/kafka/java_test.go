package kafka

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPropertiesAreReadAsJavaReadsThem(t *testing.T) {
	got, err := parseProperties([]byte("# c\n! c\r\n\n a = b \\\n   c\nk\\=1\\:2\\ 3:v\rspace d\tx\nempty\nonly=\nx==y\nesc=\\t\\n\\u00e4\\ud83d\\ude00\\q\\\\\nlatin=\xe4\ncont=a\\\\\\\n  b\nlast=\\"))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, p := range got {
		out = append(out, fmt.Sprintf("%d %q=%q", p.line, p.key, p.value))
	}
	want := []string{`4 "a"="b c"`, `6 "k=1:2 3"="v"`, `7 "space"="d\tx"`, `8 "empty"=""`, `9 "only"=""`, `10 "x"="=y"`, `11 "esc"="\t\nä😀q\\"`, `12 "latin"="ä"`, `13 "cont"="a\\b"`, `15 "last"=""`}
	if !reflect.DeepEqual(out, want) {
		t.Errorf("%s\nwant\n%s", strings.Join(out, "\n"), strings.Join(want, "\n"))
	}
	for text, want := range map[string]string{"a=\\u12\n": "line 1: a \\u has fewer", "\n\nb=\\u12xy": "line 3: a \\u has no four"} {
		if _, err := parseProperties([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestJAASIsReadAsKafkaReadsIt(t *testing.T) {
	const module = "org.apache.kafka.common.security.scram.ScramLoginModule"
	for text, want := range map[string]string{
		module + ` required username="a b" password='it\'s';`:                           "map[password:it's username:a b]",
		module + ` required username=alice.b-c password="a;b=\"\\\n\101\q";`:            "map[password:a;b=\"\\\nAq username:alice.b-c]",
		module + " required\n  username=\"a\" // name\n /* pass */ password=\"b\" ; \n": "map[password:b username:a]",
		module + ` REQUIRED ;`:                         "map[]",
		module + ` required username="a"`:              "does not end with a semicolon",
		module + ` required username="a`:               "a quote is not closed",
		module + ` required username=;`:                `option "username" has no value`,
		module + ` required password=123abc;`:          `option "password" has no value; quote it`,
		module + ` required password=-x;`:              "has no value",
		module + ` required; other.Module required;`:   "more than one login module",
		module + ` username="a";`:                      `"required" does not stand`,
		``:                                             "does not begin",
		`;`:                                            "does not begin",
		module + ` required username="a` + "\n" + `";`: "not closed on its line",
	} {
		j, err := parseJAAS(text)
		got := fmt.Sprint(j.options)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) || err == nil && j.module != module {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func load(t testing.TB, properties string) (Loaded, error) {
	t.Helper()
	return Load(Sources{Properties: write(t, "client.properties", properties)})
}

func TestAJavaClientsPropertiesAreTakenAsTheyAre(t *testing.T) {
	p := newPKI(t, "localhost")
	trust, own := p.pkcs12(t, "store")
	oneLine := func(pem string) string { return strings.ReplaceAll(strings.TrimSpace(pem), "\n", "\\\n ") }
	for name, x := range map[string]struct {
		text string
		want func(c Config) bool
	}{
		"SASL_SSL": {"bootstrap.servers=a:1,b:2\nsecurity.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\nsasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \\\n   username=\"alice\" \\\n   password=\"s\\\\\"ecret\";\n" +
			"ssl.truststore.location=" + trust + "\nssl.truststore.password=store\nssl.truststore.type=PKCS12\nssl.keystore.location=" + own + "\nssl.keystore.password=store\nclient.id=x\nrequest.timeout.ms=1500\nssl.protocol=TLSv1.3\nssl.enabled.protocols=TLSv1.3\n",
			func(c Config) bool {
				return c.TLS.Enabled && c.SASL.User == "alice" && c.SASL.Password == `s"ecret` && c.TLS.Own.File == own && c.ClientID == "x" && c.TLS.MinVersion == "1.3" && len(c.Brokers) == 2
			}},
		"SSL with PEM in it": {"security.protocol=SSL\nssl.truststore.type=PEM\nssl.truststore.certificates=" + oneLine(p.caPEM) + "\nssl.keystore.type=PEM\nssl.keystore.certificate.chain=" + oneLine(p.certPEM) + "\nssl.keystore.key=" + oneLine(p.keyPEM) + "\nssl.endpoint.identification.algorithm=\n",
			func(c Config) bool { return c.TLS.Enabled && c.TLS.AnyHost && c.SASL.Mechanism == "" }},
		"PLAINTEXT": {"ssl.truststore.location=/nowhere\nsasl.mechanism=PLAIN\n", func(c Config) bool { return !c.TLS.Enabled && c.SASL.Mechanism == "" }},
		"OAUTHBEARER": {"security.protocol=SASL_PLAINTEXT\nsasl.mechanism=OAUTHBEARER\nsasl.login.callback.handler.class=org.apache.kafka.common.security.oauthbearer.secured.OAuthBearerLoginCallbackHandler\nsasl.oauthbearer.token.endpoint.url=https://idp/token\n" +
			"sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required clientId=\"id\" clientSecret=\"s\" scope=\"x y\" extension_logicalCluster=\"lkc-1\";\n",
			func(c Config) bool {
				return c.SASL.TokenURL == "https://idp/token" && c.SASL.ClientID == "id" && c.SASL.ClientSecret == "s" && c.SASL.Scope == "x y" && c.SASL.Extensions["logicalCluster"] == "lkc-1"
			}},
		"OAUTHBEARER from a file": {"security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.token.endpoint.url=file://" + write(t, "token", "abc") + "\n", func(c Config) bool { return c.SASL.TokenFile != "" && c.TLS.Enabled }},
		"delegation token":        {"security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-256\nsasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=\"id\" password=\"mac\" tokenauth=\"true\";", func(c Config) bool { return c.SASL.DelegationToken }},
	} {
		l, err := load(t, x.text)
		if err != nil || !x.want(l.Config) {
			t.Errorf("%s: %+v %v", name, l.Config, err)
		}
		if _, err := l.Config.ClientOpts(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSecurityThatIsNotSupportedIsRefusedAndWhatIsUnknownIsWarnedAbout(t *testing.T) {
	const scram = "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-256\n"
	for text, want := range map[string]string{
		"security.protocol=TLS": "client.properties:1: security.protocol: there is no protocol",
		"security.protocol=SASL_PLAINTEXT\nsasl.mechanism=GSSAPI\nsasl.kerberos.service.name=kafka": "client.properties:3: sasl.kerberos.service.name concerns security",
		"security.protocol=SASL_PLAINTEXT":                                                                      "Java's default, GSSAPI",
		scram + "sasl.jaas.config=software.amazon.msk.auth.iam.IAMLoginModule required;":                        ":3: sasl.jaas.config: login module software.amazon",
		scram + "sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required user=\"a\";": "option user of ScramLoginModule",
		scram + "sasl.jaas.config=x":                                                                            ":3: sasl.jaas.config:",
		scram + "sasl.login.callback.handler.class=com.example.X\nsasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=\"a\" password=\"b\";": "is Java code",
		"security.protocol=SSL\nssl.engine.factory.class=x":              ":2: ssl.engine.factory.class concerns security",
		"security.protocol=SSL\nssl.enabled.protocols=TLSv1.1":           "TLSv1.1",
		"security.protocol=SSL\nssl.truststore.locaton=x":                "did you mean ssl.truststore.location?",
		"security.protocol=SSL\nssl.keystore.key=x":                      "belong together",
		"security.protocol=SSL\nssl.endpoint.identification.algorithm=x": "https, or nothing",
		"config.providers=file":                                          "config.providers concerns security",
		"security.providers=x":                                           "security.providers concerns security",
		"request.timeout.ms=1s":                                          "is no number of milliseconds",
		"a=\\u1":                                                         ":1: a \\u has fewer",
	} {
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	l, err := load(t, "acks=all\nbootstrap.server=a:1\nclient.id=a\nclient.id=\xe4\nssl.cipher.suites=x\n")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range l.Warnings {
		got = append(got, w.Error())
	}
	all := strings.Join(got, "\n")
	for _, want := range []string{":1: acks is not used", ":2: bootstrap.server is not used by Skald (did you mean bootstrap.servers?)", ":4: client.id stands in line 3 as well", "ISO-8859-1", ":5: ssl.cipher.suites has no effect"} {
		if !strings.Contains(all, want) {
			t.Errorf("%s\ndoes not say %s", all, want)
		}
	}
	if len(got) != 5 {
		t.Error(all)
	}
}

func FuzzProperties(f *testing.F) {
	f.Add([]byte("a=b\\\n c\nk\\=1:v\\u00e4\n"))
	f.Add([]byte("security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.jaas.config=a.B required c=\"d\\101\";\nssl.keystore.key=x"))
	f.Add([]byte("security.protocol=SSL\nssl.truststore.certificates=x\nrequest.timeout.ms=9\\\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		props, err := parseProperties(data)
		last := 0
		for _, p := range props {
			if p.line <= last || !utf8.ValidString(p.key) || !utf8.ValidString(p.value) {
				t.Fatalf("%+v", props)
			}
			last = p.line
			if j, err := parseJAAS(p.value); err == nil && j.module == "" {
				t.Fatalf("%q has no module", p.value)
			}
		}
		if err != nil {
			return
		}
		at := map[string]property{}
		for _, p := range props {
			at[p.key] = p
		}
		// Nothing that concerns security is passed over in silence, whatever else is in the file.
		l := loader{out: Loaded{Values: map[string]Value{}}, all: Settings()}
		(&javaProps{l: &l, file: "f", at: at}).take(false)
		for _, e := range slices.Concat(l.errs, l.out.Warnings) {
			if !strings.HasPrefix(e.Error(), CodeConfiguration+": f") {
				t.Fatal(e)
			}
		}
	})
}

func FuzzYAML(f *testing.F) {
	f.Add([]byte("kafka:\n  brokers: [a:1]\n  tls: {enabled: true}\n"))
	f.Add([]byte("kafka: &a {client-id: *a}\n---\n- x"))
	f.Add([]byte("? [a]\n: b\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l := loader{out: Loaded{Values: map[string]Value{}}, all: Settings()}
		values, errs := l.parseYAML("f", data)
		seen := map[string]bool{}
		for _, v := range values {
			if _, known := l.setting(v.key); !known && v.key != keyProperties || seen[v.key] || !strings.HasPrefix(v.place, "f:") {
				t.Fatalf("%+v", values)
			}
			seen[v.key] = true
		}
		for _, e := range errs {
			if !strings.HasPrefix(e.Error(), CodeConfiguration+": f:") {
				t.Fatal(e)
			}
		}
		_ = maps.Keys(seen)
	})
}
