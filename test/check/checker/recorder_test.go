package checker

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/skald-io/skald/events"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// publish puts evidence on a broker, as it would stand there.
func publish(t *testing.T, ctx context.Context, cl *kgo.Client, e *Evidence) {
	t.Helper()
	adm := kadm.NewClient(cl)
	for p, l := range e.Logs {
		if _, err := adm.CreateTopic(ctx, 2, 1, nil, p.Topic); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			t.Fatal(err)
		}
		for i := range l.Records {
			m := &l.Records[i]
			rec := &kgo.Record{Topic: m.Topic, Partition: m.Partition, Key: m.Key, Value: m.Value}
			for _, h := range m.Headers {
				rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
			}
			if err := cl.ProduceSync(ctx, rec).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestARecorderKeepsWhatIsTrimmedAndFindsTheTopicsOfCommands(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	cl, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	w := clean(t)
	e := w.build()
	publish(t, ctx, cl, e)

	r, err := NewRecorder(ctx, app, cluster.ListenAddrs(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.CatchUp(ctx); err != nil {
		t.Fatal(err)
	}
	trim := kadm.Offsets{}
	trim.AddOffset(app+".journal", 1, 12, -1)
	trim.AddOffset(app+".replies", 1, 3, -1)
	if _, err := kadm.NewClient(cl).DeleteRecords(ctx, trim); err != nil {
		t.Fatal(err)
	}
	got, err := r.Finish(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got.Ledgers = e.Ledgers
	report := Check(got, quiescent)
	if !report.OK() || len(report.Limits) > 0 || report.Sent != 8 {
		t.Fatalf("\n%s", report)
	}

	late, err := NewRecorder(ctx, app, cluster.ListenAddrs(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err = late.Finish(ctx); err != nil {
		t.Fatal(err)
	}
	if first := got.Log(app+".journal", 1).First; first != 12 {
		t.Errorf("shard 1's journal is known from %d on", first)
	}
	if report := Check(got, quiescent); !report.OK() || len(report.Limits) == 0 {
		t.Errorf("of a trimmed journal:\n%s", report)
	}
}

func TestAHoleInALogIsNoticed(t *testing.T) {
	e := NewEvidence(app)
	for _, offset := range []int64{0, 1, 1, 5, 6} {
		e.Add(events.Message{Topic: "t", Offset: offset})
	}
	e.Skip("t", 0, 7)
	if l := e.Log("t", 0); l.First != 5 || l.End != 8 || len(l.Records) != 2 {
		t.Fatalf("%+v", l)
	}
}

func TestEvidenceIsTheSameWrittenAndReadAgain(t *testing.T) {
	e := clean(t).build()
	e.Settled[1] = 7
	var b bytes.Buffer
	if err := e.Write(&b); err != nil {
		t.Fatal(err)
	}
	got, err := ReadEvidence(&b)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := Check(e, quiescent).String(), Check(got, quiescent).String(); a != b || got.Settled[1] != 7 {
		t.Fatalf("%s\n%s", a, b)
	}
}
