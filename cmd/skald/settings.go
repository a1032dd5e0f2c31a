package main

import (
	"fmt"
	"strings"

	"github.com/skald-io/skald/connectors/kafka"
)

//go:generate go test -run ^TestTheConfigurationPageIsCurrent$ . -update

// allSettings is the one table that help, the YAML file and docs/configuration.md follow.
func allSettings() []kafka.Setting {
	return append(append([]kafka.Setting(nil), ownSettings...), kafka.Settings()...)
}

const settingsIntro = `A setting is taken from the first place that makes it: flag, environment variable, YAML file (--config, or
$SKALD_CONFIG), Java client.properties (--properties, $SKALD_PROPERTIES, or kafka.properties in the YAML file), default.
Secrets have no flag: name a file, or set the variable. Durations are written 500ms, 10s, 1m. File names are relative to
the folder in which the program runs.`

// connectionHelp is `skald help connection`.
func connectionHelp() string {
	var b strings.Builder
	b.WriteString("How to reach Kafka.\n\n" + settingsIntro + "\n\n")
	for _, s := range allSettings() {
		left := "--" + s.Flag() + " " + s.Arg
		if s.Secret {
			left = "(no flag)"
		}
		fmt.Fprintf(&b, "  %-34s $%s\n      %s", left, s.Env(), s.Help)
		if s.Default != "" {
			fmt.Fprintf(&b, " (default %s)", s.Default)
		}
		b.WriteByte('\n')
	}
	b.WriteString("\ndocs/configuration.md has the same with an example of the YAML file.\n")
	return b.String()
}

// configurationPage is docs/configuration.md.
func configurationPage() string {
	var b strings.Builder
	b.WriteString(`# Configuration

<!-- Generated from the tables of connectors/kafka and cmd/skald by go generate ./cmd/skald. DO NOT EDIT. -->

` + strings.ReplaceAll(settingsIntro, "\n", "\n") + `

The YAML file is strict: a key that is not in this list, or stands twice, is an error that names file and line and the
nearest known key. It has no anchors and no tags.

` + "```yaml" + `
app: shop
kafka:
  brokers: [kafka-1.example.org:9093, kafka-2.example.org:9093]
  tls:
    ca-file: /etc/skald/ca.pem
  sasl:
    mechanism: SCRAM-SHA-512
    username: skald
    password-file: /run/secrets/kafka-password
` + "```" + `

A Java client.properties is read as Java reads it (ISO-8859-1, its escapes and continued lines), with
sasl.jaas.config and the stores of certificates in it. What concerns security is taken or refused; any other property that
Skald has no use for is named in a warning. Beside the properties below it knows security.protocol, sasl.jaas.config (the
login modules of PLAIN, SCRAM and OAUTHBEARER), ssl.endpoint.identification.algorithm, ssl.enabled.protocols,
ssl.keystore.key and ssl.keystore.certificate.chain.

Certificates of this client, password files, token files and secrets of a token endpoint are read anew when they are
needed, so they can be renewed under a running node. The authorities in kafka.tls.ca-file are read at the start.

`)
	b.WriteString("| key | flag | variable | Java property | default | |\n|---|---|---|---|---|---|\n")
	for _, s := range allSettings() {
		flag, java := "`--"+s.Flag()+"`", ""
		if s.Secret {
			flag = "none: a secret"
		}
		if s.Java != "" {
			java = "`" + s.Java + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s | %s | %s |\n", s.Key, flag, s.Env(), java, s.Default, s.Help)
	}
	return b.String()
}
