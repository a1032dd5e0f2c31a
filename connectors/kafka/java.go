package kafka

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/skald-io/skald/internal/mutant"
)

// java takes a Java client's properties as they are. What concerns security is taken or refused; of
// the rest, what Skald has no use for is named in a warning.
func (l *loader) java(file string, tlsMade bool) {
	data, err := readBounded(file, maxConfig)
	if err != nil {
		l.bad(file, err.Error(), "name a file that this process may read")
		return
	}
	props, err := parseProperties(data)
	if err != nil {
		place := file
		if pe := (*propertiesError)(nil); errors.As(err, &pe) {
			place, err = file+":"+strconv.Itoa(pe.line), pe.err
		}
		l.bad(place, err.Error(), "")
		return
	}
	if slices.ContainsFunc(data, func(b byte) bool { return b >= utf8.RuneSelf }) {
		l.warn(file, "it has characters beyond ASCII, read as ISO-8859-1, as Java does", `write them as \uXXXX`)
	}
	j := &javaProps{l: l, file: file, at: map[string]property{}}
	for _, p := range props {
		if old, twice := j.at[p.key]; twice {
			l.warn(j.place(p), fmt.Sprintf("%.60s stands in line %d as well; the last one counts, as in Java", p.key, old.line), "keep one")
		}
		j.at[p.key] = p
	}
	j.take(tlsMade)
}

type javaProps struct {
	l    *loader
	file string
	at   map[string]property
}

func (j *javaProps) place(p property) string { return j.file + ":" + strconv.Itoa(p.line) }

// durations are in milliseconds there.
var javaMillis = []string{"session.timeout.ms", "request.timeout.ms", "socket.connection.setup.timeout.ms", "metadata.max.age.ms", "delivery.timeout.ms"}

func (j *javaProps) take(tlsMade bool) {
	l := j.l
	used := map[string]bool{}
	get := func(key string) (property, bool) {
		p, ok := j.at[key]
		used[key] = true
		return p, ok && p.value != ""
	}
	// security.protocol rules the rest, as there.
	protocol, where := "PLAINTEXT", j.file
	if p, ok := get("security.protocol"); ok {
		protocol, where = strings.ToUpper(p.value), j.place(p)
	}
	tls, sasl := strings.HasSuffix(protocol, "SSL"), strings.HasPrefix(protocol, "SASL_")
	switch protocol {
	case "PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL":
	default:
		l.bad(where, fmt.Sprintf("security.protocol: there is no protocol %.40q", protocol), "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL")
		return
	}
	if tls && !tlsMade {
		l.set("kafka.tls.enabled", "true", where)
	}
	off := func(key string) bool {
		return strings.HasPrefix(key, "ssl.") && !tls || strings.HasPrefix(key, "sasl.") && !sasl
	}
	for _, s := range l.all {
		if s.Java == "" {
			continue
		}
		p, ok := get(s.Java)
		if !ok || off(s.Java) {
			continue
		}
		value := p.value
		if slices.Contains(javaMillis, s.Java) {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil || n < 0 || n > int64(24*time.Hour/time.Millisecond) {
				l.bad(j.place(p), fmt.Sprintf("%s: %.40q is no number of milliseconds", s.Java, value), "")
				continue
			}
			value = strconv.FormatInt(n, 10) + "ms"
		}
		l.set(s.Key, value, j.place(p))
	}
	if sasl {
		if _, ok := j.at["sasl.mechanism"]; !ok {
			l.bad(where, "security.protocol is "+protocol+", but sasl.mechanism is not set, and Java's default, GSSAPI, is not supported", "name PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER")
		}
		j.login(get)
	}
	if tls {
		j.ssl(get)
	}
	j.others(used, off)
}

// login takes sasl.jaas.config apart.
func (j *javaProps) login(get func(string) (property, bool)) {
	l := j.l
	p, ok := get("sasl.jaas.config")
	if !ok {
		return // Java would look into a file that a system property names; flags or the environment may say it here
	}
	entry, err := parseJAAS(p.value)
	if err != nil {
		l.bad(j.place(p), "sasl.jaas.config: "+err.Error(), `write it as org.apache.kafka.common.security.scram.ScramLoginModule required username="NAME" password="PASSWORD";`)
		return
	}
	var keys map[string]string
	const common = "org.apache.kafka.common.security."
	switch strings.Replace(entry.module, "org.apache.kafka.common.security.oauthbearer.secured.", common+"oauthbearer.", 1) {
	case common + "plain.PlainLoginModule":
		keys = map[string]string{"username": "kafka.sasl.username", "password": "kafka.sasl.password"}
	case common + "scram.ScramLoginModule":
		keys = map[string]string{"username": "kafka.sasl.username", "password": "kafka.sasl.password", "tokenauth": "kafka.sasl.delegation-token"}
	case common + "oauthbearer.OAuthBearerLoginModule":
		keys = map[string]string{"clientId": "kafka.sasl.client-id", "clientSecret": "kafka.sasl.client-secret", "scope": "kafka.sasl.scope"}
	default:
		l.bad(j.place(p), fmt.Sprintf("sasl.jaas.config: login module %.80s is not supported", entry.module), "use PlainLoginModule, ScramLoginModule or OAuthBearerLoginModule of Kafka")
		return
	}
	var extensions []string
	for name, value := range entry.options {
		if key, ok := keys[name]; ok {
			l.set(key, value, j.place(p))
			continue
		}
		if ext, ok := strings.CutPrefix(name, "extension_"); ok && strings.HasSuffix(entry.module, "OAuthBearerLoginModule") {
			extensions = append(extensions, ext+"="+value)
			continue
		}
		cure := "remove it"
		if strings.HasPrefix(name, "unsecuredLogin") {
			cure = "unsecured tokens are for tests: give one in kafka.sasl.token-file"
		}
		l.bad(j.place(p), fmt.Sprintf("sasl.jaas.config: option %.60s of %s is not supported", name, entry.module[strings.LastIndexByte(entry.module, '.')+1:]), cure)
	}
	if len(extensions) > 0 {
		slices.Sort(extensions)
		l.set("kafka.sasl.extensions", strings.Join(extensions, ","), j.place(p))
	}
	if h, ok := get("sasl.login.callback.handler.class"); ok {
		name := h.value[strings.LastIndexByte(h.value, '.')+1:]
		if !strings.HasPrefix(h.value, common) || name != "OAuthBearerLoginCallbackHandler" {
			l.bad(j.place(h), fmt.Sprintf("sasl.login.callback.handler.class: %.100s is Java code, which Skald cannot run", h.value), "have the token written to a file, and name it in kafka.sasl.token-file")
		}
	}
}

func (j *javaProps) ssl(get func(string) (property, bool)) {
	l := j.l
	if p, ok := j.at["ssl.endpoint.identification.algorithm"]; ok {
		get(p.key)
		switch strings.ToLower(p.value) {
		case "":
			l.set("kafka.tls.verify-hostname", "false", j.place(p))
		case "https":
		default:
			l.bad(j.place(p), fmt.Sprintf("ssl.endpoint.identification.algorithm: %.40q is not supported", p.value), "https, or nothing")
		}
	}
	// Certificate and key are two properties there when they stand in the file itself.
	key, hasKey := get("ssl.keystore.key")
	chain, hasChain := get("ssl.keystore.certificate.chain")
	switch {
	case hasKey && hasChain:
		l.set("kafka.tls.cert-pem", chain.value+"\n"+key.value+"\n", j.place(chain))
	case hasKey || hasChain:
		l.bad(j.file, "ssl.keystore.key and ssl.keystore.certificate.chain belong together, and one is missing", "")
	}
	if p, ok := get("ssl.enabled.protocols"); ok {
		low := ""
		for _, v := range splitList(p.value) {
			switch v {
			case "TLSv1.2":
				low = "1.2"
			case "TLSv1.3":
				if low == "" {
					low = "1.3"
				}
			default:
				l.bad(j.place(p), fmt.Sprintf("ssl.enabled.protocols: %.40q is not supported", v), "TLSv1.2, TLSv1.3, or both")
			}
		}
		if low != "" {
			l.set("kafka.tls.min-version", low, j.place(p))
		}
	}
	// What only repeats Java's own defaults may stay.
	for key, same := range map[string][]string{
		"ssl.protocol":               {"TLS", "TLSv1.2", "TLSv1.3"},
		"ssl.keymanager.algorithm":   {"SunX509", "PKIX"},
		"ssl.trustmanager.algorithm": {"PKIX", "SunX509"},
	} {
		if p, ok := j.at[key]; ok && slices.Contains(same, p.value) {
			get(key)
		}
	}
}

// others refuses what concerns security and was not understood, and warns of the rest.
func (j *javaProps) others(used map[string]bool, off func(string) bool) {
	l := j.l
	var known []string
	for _, s := range l.all {
		if s.Java != "" {
			known = append(known, s.Java)
		}
	}
	known = append(known, "security.protocol", "sasl.jaas.config", "ssl.endpoint.identification.algorithm", "ssl.keystore.key", "ssl.keystore.certificate.chain", "ssl.enabled.protocols")
	var rest []property
	for key, p := range j.at {
		if !used[key] {
			rest = append(rest, p)
		}
	}
	slices.SortFunc(rest, func(a, b property) int { return a.line - b.line })
	for _, p := range rest {
		security := strings.HasPrefix(p.key, "ssl.") || strings.HasPrefix(p.key, "sasl.") || strings.HasPrefix(p.key, "security.") || strings.HasPrefix(p.key, "config.providers")
		switch {
		case security && off(p.key):
			l.warn(j.place(p), fmt.Sprintf("%.80s has no effect with this security.protocol", p.key), "")
		case security && !saslTiming(p.key) && !mutant.On("kafka-unsupported-security-ignored"):
			cure := didYouMean(p.key, known)
			if strings.HasPrefix(p.key, "config.providers") {
				cure = "name the file of the secret in kafka.sasl.password-file or its like"
			}
			l.bad(j.place(p), fmt.Sprintf("%.80s concerns security and is not supported", p.key), cure)
		default:
			cure := ""
			if n := nearest(p.key, known); n != "" {
				cure = "did you mean " + n + "?"
			}
			l.warn(j.place(p), fmt.Sprintf("%.80s is not used by Skald", p.key), cure)
		}
	}
}

// saslTiming are about when to log in again, which this client knows by itself.
func saslTiming(key string) bool {
	return strings.HasPrefix(key, "sasl.login.refresh.") || strings.HasPrefix(key, "sasl.login.retry.") ||
		key == "sasl.login.connect.timeout.ms" || key == "sasl.login.read.timeout.ms"
}
