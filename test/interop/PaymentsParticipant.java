import static java.nio.charset.StandardCharsets.UTF_8;

import java.time.Duration;
import java.time.Instant;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.*;

/** The shop's payments service with Java's plain client: the same as payments.py. */
public class PaymentsParticipant {
    record Answer(String outcome, String code, String value) {}

    // A real service keeps both in its database, in one transaction with its effects.
    static final Map<String, Answer> answers = new HashMap<>();
    static final Set<String> undone = new HashSet<>();

    static Answer execute(Map<String, String> h, String order) {
        String key = h.get("ce_idempotencykey");
        if (answers.containsKey(key)) {
            return answers.get(key); // the command came again: the same answer, no second effect
        }
        if (h.containsKey("ce_undoes")) {
            undone.add(h.get("ce_undoes")); // whether it was ever seen or not: it must not begin any more
        } else if (undone.contains(key)) {
            return new Answer("rejected", "undone", "{}");
        } else if (Instant.parse(h.get("ce_expirytime")).isBefore(Instant.now())) {
            return new Answer("rejected", "expired", "{}");
        }
        System.out.println(h.get("ce_type") + " " + order); // here it would move money
        Answer answer = new Answer("done", "", "{\"authorization\":\"auth-" + order + "\"}");
        answers.put(key, answer);
        return answer;
    }

    public static void main(String[] args) throws Exception {
        Set<String> types = Set.of("payments.authorize", "payments.void", "payments.capture");
        var producer = new KafkaProducer<String, String>(
                Map.of("bootstrap.servers", args[0]), new StringSerializer(), new StringSerializer());
        var consumer = new KafkaConsumer<String, String>(
                Map.of("bootstrap.servers", args[0], "group.id", "payments", "auto.offset.reset", "earliest", "enable.auto.commit", "false"),
                new StringDeserializer(), new StringDeserializer());
        consumer.subscribe(List.of("payments.commands"));
        while (true) {
            for (ConsumerRecord<String, String> m : consumer.poll(Duration.ofSeconds(1))) {
                Map<String, String> h = new HashMap<>();
                for (Header header : m.headers()) {
                    h.put(header.key(), new String(header.value(), UTF_8));
                }
                if (!types.contains(h.get("ce_type"))) {
                    continue;
                }
                Answer answer = execute(h, m.key()); // the demo's business key is the order
                var reply = new ProducerRecord<>(h.get("ce_replyto"), m.key(), answer.value());
                reply.headers().add("ce_causationid", h.get("ce_id").getBytes(UTF_8));
                reply.headers().add("ce_outcome", answer.outcome().getBytes(UTF_8));
                reply.headers().add("ce_errorcode", answer.code().getBytes(UTF_8));
                producer.send(reply).get(); // an exception ends the service before it commits: the command comes again
            }
            consumer.commitSync();
        }
    }
}
