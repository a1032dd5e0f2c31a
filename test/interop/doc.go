// Package interop runs the demo's shop with a payments service that is not ours: payments.py, which is the
// text of README.md and docs/protocol.md, with Python's confluent-kafka (librdkafka), and
// PaymentsParticipant.java with the plain Java client. Both know the protocol and nothing of Skald.
//
// It needs Python with requirements.txt installed (SKALD_PYTHON names the interpreter, default python3) and
// a JDK. With SKALD_REAL_KAFKA=1 what is missing fails the tests, otherwise it skips them. It holds only
// tests. The rule that must not break: the services under test take nothing from this repository.
package interop
