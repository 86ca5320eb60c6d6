package consume

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/internal/bus"
)

// TestDelivery_CarriesTheDeadline: each later message of a job has the deadline that
// its first message has, which is not later than that of any pipeline, and is
// kept until the margin after it.
func TestDelivery_CarriesTheDeadline(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	stored := make(chan time.Time, 1)
	b.run(t, b.loop(func(cfg *Config) {
		cfg.Open = func(d *Delivery) (err error) {
			if d.Job, err = subject.ParseFetches(d.Subject); err != nil {
				return err
			}
			return d.ReadDeadline(time.Minute)
		}
	}), 1, func(_ context.Context, d *Delivery) ([]bus.Message, error) {
		stored <- d.Stored
		return []bus.Message{{
			Subject: subject.Crops(subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: d.Job.ID}), Stream: streams.Crops,
			ID: v1.MsgID(d.Job.ID, "crops.0"), Header: bus.CopyHeaders(d.Header), Deadline: d.Deadline,
		}}, nil
	})
	nc := b.Connect(t)
	crops, err := nc.SubscribeSync(subject.AllCrops())
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		job       string
		says      time.Duration // 0 for no header
		wantAfter time.Duration // from when the message was stored
	}{
		{"none", 0, time.Minute},
		{"soon", time.Second, time.Second},
		{"late", 23 * time.Hour, 23 * time.Hour},
		{"too-late", 48 * time.Hour, pipeline.MaxDuration},
	} {
		m := &nats.Msg{Subject: subject.Fetches("text", c.job), Header: nats.Header{}}
		says := time.Now().Add(c.says)
		if c.says > 0 {
			m.Header.Set(v1.HeaderDeadline, says.Format(time.RFC3339Nano))
		}
		if _, err := b.js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		want := (<-stored).Add(c.wantAfter)
		if c.says == c.wantAfter {
			want = says
		}
		next, err := crops.NextMsg(testTimeout)
		if err != nil {
			t.Fatalf("%s: no next message: %v", c.job, err)
		}
		got, err := time.Parse(time.RFC3339Nano, next.Header.Get(v1.HeaderDeadline))
		if err != nil {
			t.Errorf("%s: the next message has no deadline: %v", c.job, err)
			continue
		}
		if !got.Equal(want) {
			t.Errorf("%s: the next message has the deadline %s, want %s", c.job, got, want)
		}
		ttl, err := time.ParseDuration(next.Header.Get(jetstream.MsgTTLHeader))
		if err != nil {
			t.Errorf("%s: the next message has no time to live: %v", c.job, err)
		}
		if kept := time.Until(got.Add(streams.DeadlineMargin)); (kept - ttl).Abs() > time.Minute {
			t.Errorf("%s: the next message is kept for %s, want about %s", c.job, ttl, kept)
		}
	}
}

func TestDelivery_ReadDeadlineRejectsAnInvalidTime(t *testing.T) {
	t.Parallel()
	d := Delivery{Header: nats.Header{v1.HeaderDeadline: {"tomorrow"}}}
	if err := d.ReadDeadline(time.Minute); err == nil {
		t.Error("no error")
	}
}
