// Command chaos kills Skald on a real Kafka, and asks the external checker (test/check/checker) what it cost.
//
//	SKALD_REAL_KAFKA=1 go test ./test/chaos
//	go run ./test/chaos -duration 10m
//	go run ./test/chaos -duration 2h -brokers 3                          a soak, brokers are killed as well
//	go run ./test/chaos -strikes random,pause -rounds 100 -duration 0    a hundred kills and a hundred pauses
//	go run ./test/chaos -brokers localhost:9092 -json
//
// Three nodes of one application with twelve shards, and two processes of participants, are copies of this very
// program in other roles (role.go). A load of mixed sagas with every kind of node, about two in five of which
// compensate (world.go), with events that come early, late and on other shards' partitions, and with operators who
// act through two nodes under one id (operate.go), runs while nodes and participants are killed and started again
// (run.go). Two thirds of the kills hit a node at a chosen instruction: a node's connection to Kafka is wrapped
// (faults.go), and holds the node still, between an append and its acknowledgement or between an acknowledgement and
// what follows from it, until it is killed there. In between come troubles that kill nobody (trouble.go): a node stands
// still until others own its shards, or hears nothing from the brokers for so long, its connections break or are 200 ms
// late (wire.go), bits of its stores flip, nodes leave and come back in a row; with three brokers one is killed, and the
// controller. Each says by what it is proven to have happened, and a run in which one did not fails. A node that is
// stopped, loses its shards, and wakes after their journals were trimmed is the last of it.
//
// A shorter run has nodes that emit in transactions, and kills them around the request that ends one; somebody who
// reads committed records only counts what there is (transactional.go).
// Beside that, nodes of two builds are rolled forward, back and forward again (rolling.go), and killed on sessions of
// the default length (takeover.go).
//
// Not here: clocks that jump, a disk that is full, a topic of commands that takes nothing (test/sim and test/engine).
//
// It may import everything; nothing imports it. The rule that must not break: what is wrong is said by the checker,
// which shares nothing with the engine, and a run that did not do what it is for fails.
package main
