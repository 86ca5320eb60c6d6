// Package sink writes every result into PostgreSQL, once, in batches.
//
// It reads RESULTS with its own durable consumer, so that a slow or unavailable database
// delays nothing else. When the database is available again, the sink writes all results
// that the stream has kept. A result is acknowledged after its transaction. A result that
// is delivered twice is written once. docs/results.md describes the tables.
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

// Sink writes results into a database.
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

// New returns a Sink. address is a URL or a connection string of libpq. The error does not
// contain the address, because that may have a password.
func New(
	js jetstream.JetStream, c *clock.Clock, address string, t trace.Tracer, log *slog.Logger, r prometheus.Registerer,
) (*Sink, error) {
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
	// writeTimeout limits a transaction.
	writeTimeout = 20 * time.Second
)

// backoff is the delay before the next attempt to reach an unavailable database, and
// before a result is redelivered.
var backoff = retry.Exponential(time.Second, 30*time.Second, 2)

// Run writes results until ctx ends. It retries without limit while the database is
// unavailable.
func (s *Sink) Run(ctx context.Context) error {
	c, err := s.js.Consumer(ctx, streams.Results, streams.SinkConsumer)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // ended before it started
	}
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("open consumer %s: %w: run sightmesh setup --sink", streams.SinkConsumer, err)
	}
	if err != nil {
		return fmt.Errorf("open consumer %s: %w", streams.SinkConsumer, err)
	}
	for failures := 1; ctx.Err() == nil; failures++ {
		s.updateLag(ctx, c) // also while the database is unavailable
		worked, err := s.writeOverConnection(ctx, c)
		if err == nil {
			break // ctx has ended
		}
		if worked {
			failures = 1
		}
		delay := backoff.Delay(failures)
		s.log.Warn("the database cannot be written to", "error", err, "retry_in", delay.String())
		_ = retry.Sleep(ctx, delay) // the loop checks ctx
	}
	return nil
}

// writeOverConnection writes over one connection until ctx or the connection ends. worked
// reports whether it wrote a batch.
func (s *Sink) writeOverConnection(ctx context.Context, c jetstream.Consumer) (worked bool, err error) {
	conn, err := pgx.ConnectConfig(ctx, s.config)
	if err != nil {
		return false, fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // it may be broken
	if err := migrate(ctx, conn); err != nil {
		return false, err
	}
	batches := consume.Batches{
		Consumer: c, Size: batchSize, Timeout: writeTimeout, Backoff: backoff,
		Clock: s.clock, Tracer: s.tracer, Logger: s.log,
	}
	updateLag := func(ctx context.Context) { s.updateLag(ctx, c) }
	err = batches.Run(ctx, updateLag, func(ctx context.Context, batch []*consume.Delivery) ([]error, error) {
		each, err := s.write(ctx, conn, batch)
		worked = worked || err == nil
		return each, err
	})
	return worked, err
}

// updateLag sets the metric of the number of results that are not written yet.
func (s *Sink) updateLag(ctx context.Context, c jetstream.Consumer) {
	if info, err := c.Info(ctx); err == nil {
		s.lag.Set(float64(info.NumPending) + float64(info.NumAckPending))
	}
}

// write commits a batch, and returns the error of each of its results. When the database
// rejects the data of a row, write commits each row separately.
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

// isRejected reports whether the database rejects the data: data exceptions, violated
// constraints and exceeded limits (classes 22, 23 and 54 of SQLSTATE).
func isRejected(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) &&
		(strings.HasPrefix(pg.Code, "22") || strings.HasPrefix(pg.Code, "23") || strings.HasPrefix(pg.Code, "54"))
}

// row has the data of a result that is written.
type row struct {
	result v1.Result
	stored time.Time
	body   []byte
}

// newRow returns the row of a RESULTS message.
func newRow(d *consume.Delivery) (row, error) {
	body, err := withoutNUL(d.Body)
	if err != nil {
		return row{}, fmt.Errorf("read result: %w", err)
	}
	r := row{stored: d.Stored, body: body}
	if err := json.Unmarshal(body, &r.result); err != nil {
		return row{}, fmt.Errorf("read result: %w", err)
	}
	// The body may be wrong, because a client can publish to RESULTS.
	job, err := subject.ParseResults(d.Subject)
	if err != nil {
		return row{}, fmt.Errorf("read result: %w", err)
	}
	if r.result.ID != job.ID {
		return row{}, fmt.Errorf("read result: its id is %.64q, want %s as in its subject", r.result.ID, job.ID)
	}
	r.result.Pipeline = job.Pipeline
	if i := r.result.Image; i != nil && (max(i.Width, i.Height) > math.MaxInt32 || min(i.Width, i.Height) < 0) {
		// Not sent: the error would end the connection and fail the whole batch.
		return row{}, fmt.Errorf("read result: an image of %d x %d", i.Width, i.Height)
	}
	return r, nil
}

// insertOne inserts a result and its labels, unless the result exists.
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
