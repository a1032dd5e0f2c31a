// Package kafka starts real Kafka 4.1.1 on loopback, for tests and tools, without a container: brokers in
// KRaft mode, each a Java process, from the jars that pom.xml names.
//
// It needs Java 17 or newer, and Maven the first time, when the jars are fetched into a cache that all
// packages share. It imports nothing of Skald, so that every test may use it. The rule that must not break:
// no broker outlives the process that started it.
package kafka
