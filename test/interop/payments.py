import json, sys
from datetime import datetime, timezone
from confluent_kafka import Consumer, Producer

kafka = {"bootstrap.servers": sys.argv[1]}
producer = Producer(kafka | {"linger.ms": 0})
consumer = Consumer(kafka | {"group.id": "payments", "auto.offset.reset": "earliest", "enable.auto.commit": False})
consumer.subscribe(["payments.commands"])
answers, undone = {}, set()  # a real service keeps both in its database, in one transaction with its effects

def execute(h, command):
    key, now = h["ce_idempotencykey"], datetime.now(timezone.utc).isoformat()
    if key in answers:
        return answers[key]  # the command came again: the same answer, no second effect
    if "ce_undoes" in h:
        undone.add(h["ce_undoes"])  # whether it was ever seen or not: it must not begin any more
    elif key in undone or h["ce_expirytime"] < now:
        return {"ce_outcome": "rejected", "ce_errorcode": "undone" if key in undone else "expired"}, {}
    print(h["ce_type"], command["order"], flush=True)  # here it would move money
    answers[key] = {"ce_outcome": "done"}, {"authorization": "auth-" + command["order"]}
    return answers[key]

def sent(error, _):
    if error:
        raise RuntimeError(error)  # not committed: after a restart the command comes again

while True:
    m = consumer.poll(1)
    h = {k: v.decode() for k, v in m.headers() or []} if m and not m.error() else {}
    if h.get("ce_type") in ("payments.authorize", "payments.void", "payments.capture"):
        reply, result = execute(h, json.loads(m.value()))
        producer.produce(h["ce_replyto"], json.dumps(result), m.key(), on_delivery=sent,
                         headers=reply | {"ce_causationid": h["ce_id"]})
        producer.flush()
        consumer.commit(m)
