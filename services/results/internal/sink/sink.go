// Package sink writes every answer into PostgreSQL, once, in batches.
//
// It reads RESULTS through a durable consumer of its own, so that a slow or
// dead database delays nobody; what it missed it catches up with, as long as
// the stream keeps it. An answer is acknowledged after its transaction, and
// one that comes a second time changes nothing. docs/results.md has the
// tables.
package sink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/clock"
	"github.com/sightmesh/sightmesh/services/internal/consume"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// Sink writes answers into a database.
type Sink struct {
	js     jetstream.JetStream
	clock  *clock.Clock
	config *pgx.ConnConfig
	tracer trace.Tracer
	log    *slog.Logger

	written prometheus.Counter
	batches prometheus.Histogram
	lag     prometheus.Gauge
}

// New reads the address of the database, a URL or the words of libpq. The
// error does not contain it: it may have a password.
func New(js jetstream.JetStream, c *clock.Clock, address string, t trace.Tracer, log *slog.Logger, r prometheus.Registerer) (*Sink, error) {
	cfg, err := pgx.ParseConfig(address)
	if err != nil {
		return nil, errors.New("postgres: the address cannot be read")
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 5 * time.Second
	}
	f := promauto.With(r)
	return &Sink{
		js: js, clock: c, config: cfg, tracer: t, log: log,
		written: f.NewCounter(prometheus.CounterOpts{
			Name: "sightmesh_sink_results_total",
			Help: "Results that were committed to the database, with those that it had before; only with --postgres.",
		}),
		batches: f.NewHistogram(prometheus.HistogramOpts{
			Name: "sightmesh_sink_batch_seconds", Buckets: telemetry.LatencyBuckets(),
			Help: "Duration of the transaction of a batch; only with --postgres.",
		}),
		lag: f.NewGauge(prometheus.GaugeOpts{
			Name: "sightmesh_sink_lag", Help: "Number of results that wait to be written; only with --postgres.",
		}),
	}, nil
}

const (
	batchSize = 500
	// writeTimeout bounds a transaction.
	writeTimeout = 20 * time.Second
)

// backoff is the delay before a database that is away is tried again, and
// before a result is written again.
var backoff = retry.Exponential(time.Second, 30*time.Second, 2)

// Run writes until ctx ends. A database that is away is tried again for ever.
func (s *Sink) Run(ctx context.Context) error {
	c, err := s.js.Consumer(ctx, streams.Results, streams.SinkConsumer)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // it ended before it began
	}
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("open consumer %s: %w: run sightmesh setup --sink", streams.SinkConsumer, err)
	}
	if err != nil {
		return fmt.Errorf("open consumer %s: %w", streams.SinkConsumer, err)
	}
	for failures := 1; ctx.Err() == nil; failures++ {
		s.updateLag(ctx, c) // also while the database is away
		worked, err := s.writeOverConnection(ctx, c)
		if err == nil {
			break // ctx has ended
		}
		if worked {
			failures = 1
		}
		delay := backoff.Delay(failures)
		s.log.Warn("the database cannot be written to", "error", err, "again_in", delay.String())
		_ = retry.Sleep(ctx, delay) // which ends with ctx
	}
	return nil
}

// writeOverConnection writes over one connection until ctx or the connection ends, and
// reports whether anything was written.
func (s *Sink) writeOverConnection(ctx context.Context, c jetstream.Consumer) (worked bool, err error) {
	conn, err := pgx.ConnectConfig(ctx, s.config)
	if err != nil {
		return false, fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it may be broken
	if err := migrate(ctx, conn); err != nil {
		return false, err
	}
	batches := consume.Batches{Consumer: c, Size: batchSize, Timeout: writeTimeout, Backoff: backoff, Clock: s.clock, Tracer: s.tracer, Logger: s.log}
	err = batches.Run(ctx, func(ctx context.Context) { s.updateLag(ctx, c) }, func(ctx context.Context, batch []*consume.Delivery) ([]error, error) {
		each, err := s.write(ctx, conn, batch)
		worked = worked || err == nil
		return each, err
	})
	return worked, err
}

// updateLag counts what waits to be written.
func (s *Sink) updateLag(ctx context.Context, c jetstream.Consumer) {
	if info, err := c.Info(ctx); err == nil {
		s.lag.Set(float64(info.NumPending) + float64(info.NumAckPending))
	}
}

// write commits a batch, and returns what is wrong with each of its results.
// When the database rejects a row itself, each is written alone.
func (s *Sink) write(ctx context.Context, conn *pgx.Conn, batch []*consume.Delivery) (each []error, err error) {
	each = make([]error, len(batch))
	var rows []row
	var of []int // the delivery of each row
	for i, d := range batch {
		r, err := newRow(d)
		if err != nil {
			each[i] = consume.Drop(err)
			continue
		}
		rows, of = append(rows, r), append(of, i)
	}
	err = s.insert(ctx, conn, rows)
	if !isRejected(err) {
		return each, err
	}
	for i := range rows {
		err := s.insert(ctx, conn, rows[i:i+1])
		switch {
		case isRejected(err):
			each[of[i]] = consume.Drop(err)
		case err != nil:
			return nil, err
		}
	}
	return each, nil
}

// isRejected reports whether the database objects to what is written: data
// exceptions and violated constraints (classes 22 and 23 of SQLSTATE), and
// what is too large (54).
func isRejected(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (strings.HasPrefix(pg.Code, "22") || strings.HasPrefix(pg.Code, "23") || strings.HasPrefix(pg.Code, "54"))
}

// row is what is written of an answer.
type row struct {
	result v1.Result
	stored time.Time
	body   []byte
}

// newRow reads a result.
func newRow(d *consume.Delivery) (row, error) {
	body, err := withoutNUL(d.Body)
	if err != nil {
		return row{}, fmt.Errorf("read result: %w", err)
	}
	r := row{stored: d.Stored, body: body}
	if err := json.Unmarshal(body, &r.result); err != nil {
		return row{}, fmt.Errorf("read result: %w", err)
	}
	// The body may say anything: a client can publish to RESULTS.
	job, err := subject.ParseResults(d.Subject)
	if err != nil {
		return row{}, fmt.Errorf("read result: %w", err)
	}
	if r.result.ID != job.ID {
		return row{}, fmt.Errorf("read result: it says that it is of job %.64q, and not of %s", r.result.ID, job.ID)
	}
	r.result.Pipeline = job.Pipeline
	if i := r.result.Image; i != nil && (max(i.Width, i.Height) > math.MaxInt32 || min(i.Width, i.Height) < 0) {
		// Not even sent: it would end the connection, and all that is in its batch.
		return row{}, fmt.Errorf("read result: an image of %d x %d", i.Width, i.Height)
	}
	return r, nil
}

// insertOne writes an answer and its labels, unless it is there.
const insertOne = `
with one as (
	insert into results (id, pipeline, status, problem, stored_at, trace_id, sha256, width, height, body)
	values ($1, $2, $3, nullif($4, ''), $5, nullif($6, ''), nullif($7, ''), nullif($8, 0), nullif($9, 0), $10)
	on conflict (id) do nothing
	returning id
)
insert into labels (result, region, label, score)
select one.id, l.region, l.label, max(l.score)
from one, unnest($11::integer[], $12::text[], $13::real[]) as l (region, label, score)
group by one.id, l.region, l.label`

// insert writes rows in one transaction.
func (s *Sink) insert(ctx context.Context, conn *pgx.Conn, rows []row) error {
	begin := time.Now()
	defer func() { s.batches.Observe(time.Since(begin).Seconds()) }()
	var b pgx.Batch
	for _, r := range rows {
		var image v1.Image
		if r.result.Image != nil {
			image = *r.result.Image
		}
		problem := ""
		if r.result.Problem != nil {
			problem = string(r.result.Problem.Code)
		}
		regions, labels, scores := flattenLabels(r.result)
		b.Queue(insertOne, r.result.ID, r.result.Pipeline, string(r.result.Status), problem, r.stored, r.result.TraceID,
			image.SHA256, image.Width, image.Height, r.body, regions, labels, scores)
	}
	// pgx runs a batch as one transaction.
	if err := conn.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("write %d results: %w", len(rows), err)
	}
	s.written.Add(float64(len(rows)))
	return nil
}

func flattenLabels(r v1.Result) (regions []int32, labels []string, scores []float32) {
	add := func(i int, label string, score float64) {
		if label != "" {
			regions, labels, scores = append(regions, int32(i)), append(labels, label), append(scores, float32(score))
		}
	}
	for i, region := range r.Regions {
		add(i, region.Label, region.Score)
		for _, l := range region.Labels {
			add(i, l.Label, l.Score)
		}
	}
	return regions, labels, scores
}
