// Package jobs turns pictures into jobs: it stores a picture in the stream
// IMAGES and waits for its answer.
//
// The answer is sent to an inbox of this process once it is stored. Such a
// reply can be lost while a connection is being made again, so that whoever
// waits also looks at the stored answers, seldom at first and less often
// later. Nothing here outlives the process: an answer nobody waits for any
// more is still stored, and looked up by its job.
package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/oklog/ulid/v2"

	"github.com/sightmesh/sightmesh/contracts/client"
	"github.com/sightmesh/sightmesh/contracts/pipeline"
	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/answer"
	"github.com/sightmesh/sightmesh/services/internal/bus"
)

// Jobs submits pictures and hands out their answers.
type Jobs struct {
	*client.Client
	conn      *nats.Conn
	js        jetstream.JetStream
	publisher *bus.Publisher
	results   jetstream.Stream
	inbox     string
	sub       *nats.Subscription

	mu      sync.Mutex
	waiting map[string]chan<- *nats.Msg
}

// New opens the inbox. The caller ends it with Close.
func New(ctx context.Context, conn *nats.Conn, js jetstream.JetStream, p *bus.Publisher) (*Jobs, error) {
	results, err := js.Stream(ctx, streams.Results)
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", streams.Results, err)
	}
	c, err := client.New(conn)
	if err != nil {
		return nil, err
	}
	j := &Jobs{Client: c, conn: conn, js: js, publisher: p, results: results, inbox: conn.NewInbox(), waiting: map[string]chan<- *nats.Msg{}}
	if j.sub, err = conn.Subscribe(j.inbox+".*", j.deliver); err != nil {
		return nil, fmt.Errorf("subscribe to replies: %w", err)
	}
	return j, nil
}

// Close gives up the inbox.
func (j *Jobs) Close() error {
	if err := j.sub.Unsubscribe(); err != nil {
		return fmt.Errorf("unsubscribe from replies: %w", err)
	}
	return nil
}

// deliver hands a reply to who waits for it. A second one, or one that nobody
// waits for any more, is dropped.
func (j *Jobs) deliver(m *nats.Msg) {
	id := m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
	j.mu.Lock()
	c := j.waiting[id]
	delete(j.waiting, id)
	j.mu.Unlock()
	if c != nil {
		c <- m // has room for the one reply
	}
}

// Request is a picture and what is to become of it.
type Request struct {
	// ID of the job; empty for a new one. A second request with the id of a
	// job that is under way adds nothing.
	ID       string
	Pipeline pipeline.Pipeline
	Priority subject.Priority
	Picture  []byte
	// Metadata comes back with the answer, and Callback is called with it.
	Metadata map[string]string
	Callback string
	// Report says which image of a report the job is, if it is one.
	Report *v1.ReportItem
	// Deadline of the job; zero for what the pipeline says.
	Deadline time.Time
}

// NewID makes the id of a job or report. Ids sort by the time they were made.
func NewID() string { return ulid.Make().String() }

// Job is a picture that was accepted.
type Job struct {
	ID       string
	Pipeline pipeline.Pipeline
	// Status is where the job was when it was submitted or found.
	Status v1.Status

	jobs *Jobs
	// reply gets the answer; nil for a job that somebody else submitted.
	reply <-chan *nats.Msg
}

// Attach returns a job that was submitted before, by whomever. The errors are
// those of [client.Client.Lookup].
func (j *Jobs) Attach(ctx context.Context, id string, p pipeline.Pipeline) (*Job, error) {
	r, err := j.LookupNow(ctx, id)
	if err != nil {
		return nil, err
	}
	return &Job{ID: id, Pipeline: p, Status: r.Status, jobs: j}, nil
}

// Submit stores a picture and returns its job, whose answer can be waited for.
// [Problem] says what a client is told of an error. The caller must call
// Forget.
func (j *Jobs) Submit(ctx context.Context, r Request) (*Job, error) {
	if r.ID == "" {
		r.ID = NewID()
	}
	reply := make(chan *nats.Msg, 1)
	j.mu.Lock()
	j.waiting[r.ID] = reply
	j.mu.Unlock()
	job := &Job{ID: r.ID, Pipeline: r.Pipeline, Status: v1.Queued, jobs: j, reply: reply}
	if err := j.store(ctx, r, j.inbox+"."+r.ID); err != nil {
		job.Forget()
		return nil, err
	}
	return job, nil
}

// Store stores a picture whose answer nobody waits for. The request has an ID.
func (j *Jobs) Store(ctx context.Context, r Request) error { return j.store(ctx, r, "") }

func (j *Jobs) store(ctx context.Context, r Request, reply string) error {
	now := time.Now().UTC()
	if r.Deadline.IsZero() {
		r.Deadline = now.Add(r.Pipeline.JobDeadline(r.Priority))
	}
	h, err := r.Travel()
	if err != nil {
		return err
	}
	h.Set(v1.HeaderAccepted, now.Format(time.RFC3339Nano))
	h.Set(v1.HeaderDeadline, r.Deadline.UTC().Format(time.RFC3339Nano))
	if reply != "" {
		h.Set(v1.HeaderReply, reply)
	}
	return j.publish(ctx, bus.Message{
		Subject: subject.Images(subject.Job{Pipeline: r.Pipeline.Name, Priority: r.Priority, ID: r.ID}),
		Stream:  streams.Images, ID: v1.MsgID(r.ID, "images"), Header: h, Body: r.Picture,
	})
}

// Fail stores the failure of a picture that cannot be a job, as the answer of
// the job that it would have been. The request has an ID.
func (j *Jobs) Fail(ctx context.Context, r Request, p *v1.Problem) error {
	h, err := r.Travel()
	if err != nil {
		return err
	}
	m, err := answer.Message(ctx, h, answer.Failed(subject.Job{Pipeline: r.Pipeline.Name, ID: r.ID}, p))
	if err != nil {
		return err
	}
	return j.publish(ctx, m)
}

// errDuplicateInFlight is the error code of JetStream for a message whose ID is
// that of a message in flight. Only replicated streams use it, and the client
// library has no constant.
const errDuplicateInFlight jetstream.ErrorCode = 10158

// inFlightBackoff has the delays between two tries of a write that meets
// another one in flight. A write to a replicated stream is in flight for a few
// milliseconds, or for seconds while the stream elects a leader.
var inFlightBackoff = retry.Exponential(5*time.Millisecond, 320*time.Millisecond, 2)

// publish stores m. While another request with the same ID is being stored, it
// tries again until the outcome is known or ctx ends: the other write can still
// fail.
func (j *Jobs) publish(ctx context.Context, m bus.Message) error {
	for attempt := 1; ; attempt++ {
		err := j.publisher.Publish(ctx, m)
		if errorCode(err) != errDuplicateInFlight {
			return err
		}
		if ended := retry.Sleep(ctx, inFlightBackoff.Delay(attempt)); ended != nil {
			return fmt.Errorf("%w: %w", ended, err)
		}
	}
}

// errorCode returns the code of an error of JetStream; 0 for another error.
func errorCode(err error) jetstream.ErrorCode {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return api.ErrorCode
	}
	return 0
}

// Travel gives the headers that say what the client wants besides the answer.
func (r Request) Travel() (nats.Header, error) {
	h := nats.Header{}
	if len(r.Metadata) > 0 {
		m, err := json.Marshal(r.Metadata)
		if err != nil {
			return nil, fmt.Errorf("encode metadata: %w", err)
		}
		h.Set(v1.HeaderMetadata, string(m))
	}
	if r.Callback != "" {
		h.Set(v1.HeaderCallback, r.Callback)
	}
	if r.Report != nil {
		h.Set(v1.HeaderReport, r.Report.String())
	}
	return h, nil
}

// RetryAfter is how many seconds a client should wait after a [Problem].
const RetryAfter = 5

// Problem says what a client is told when something could not be stored.
func Problem(err error) *v1.Problem {
	if errors.Is(err, bus.ErrFull) {
		return v1.NewProblem(v1.Overloaded, "the queue is full")
	}
	return v1.NewProblem(v1.Unavailable, "what you sent could not be stored")
}

// Forget says that nobody waits for the job any more.
func (job *Job) Forget() {
	if job.reply == nil {
		return
	}
	job.jobs.mu.Lock()
	defer job.jobs.mu.Unlock()
	delete(job.jobs.waiting, job.ID)
}

// Wait returns the answer of the job, or its state when ctx ends first.
func (job *Job) Wait(ctx context.Context) (v1.Result, error) {
	if job.reply == nil {
		return job.jobs.Await(ctx, job.ID)
	}
	pause := client.FirstLook
	look := time.NewTimer(pause)
	defer look.Stop()
	for {
		select {
		case m := <-job.reply:
			return decode(m.Data, m.Header.Get(v1.HeaderStored))
		case <-look.C:
			if r, ok := job.stored(ctx); ok {
				return r, nil
			}
			pause = min(2*pause, client.LongestPause)
			look.Reset(pause)
		case <-ctx.Done():
			// The reply may have been lost a moment ago; else say where the
			// job is.
			r, err := job.jobs.LookupNow(ctx, job.ID)
			switch {
			case err == nil && r.Final():
				return r, nil
			case err == nil:
				return r, ctx.Err()
			}
			return v1.Result{ID: job.ID, Pipeline: job.Pipeline.Name, Status: v1.Queued}, ctx.Err()
		}
	}
}

// stored looks for the answer where it is kept. That it cannot be read now is
// no reason to stop waiting.
func (job *Job) stored(ctx context.Context) (v1.Result, bool) {
	m, err := job.jobs.results.GetLastMsgForSubject(ctx, subject.Results(job.Pipeline.Name, job.ID))
	if err != nil || m.Header.Get(v1.HeaderMarker) != "" {
		return v1.Result{}, false
	}
	r, err := decode(m.Data, m.Time.Format(time.RFC3339Nano))
	return r, err == nil
}

func decode(body []byte, stored string) (v1.Result, error) {
	var r v1.Result
	if err := json.Unmarshal(body, &r); err != nil {
		return r, fmt.Errorf("decode answer: %w", err)
	}
	if at, err := time.Parse(time.RFC3339Nano, stored); err == nil && r.Timings != nil {
		r.Timings.Reply = max(0, v1.Milliseconds(time.Since(at)))
	}
	return r, nil
}
