// Package intake turns pictures into jobs: it stores a picture in the stream
// IMAGES and waits for its answer.
//
// The answer is sent to an inbox of this process once it is stored. Such a
// reply can be lost while a connection is being made again, so that whoever
// waits also looks at the stored answers, seldom at first and less often
// later. Nothing here outlives the process: an answer nobody waits for any
// more is still stored, and looked up by its job.
package intake

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/oklog/ulid/v2"

	"github.com/sightmesh/sightmesh/contracts/client"
	"github.com/sightmesh/sightmesh/contracts/pipeline"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/answer"
	"github.com/sightmesh/sightmesh/services/internal/bus"
)

// Intake submits pictures and hands out their answers.
type Intake struct {
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
func New(ctx context.Context, conn *nats.Conn, js jetstream.JetStream, p *bus.Publisher) (*Intake, error) {
	results, err := js.Stream(ctx, streams.Results)
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", streams.Results, err)
	}
	c, err := client.New(conn)
	if err != nil {
		return nil, err
	}
	i := &Intake{Client: c, conn: conn, js: js, publisher: p, results: results, inbox: conn.NewInbox(), waiting: map[string]chan<- *nats.Msg{}}
	if i.sub, err = conn.Subscribe(i.inbox+".*", i.deliver); err != nil {
		return nil, fmt.Errorf("subscribe to replies: %w", err)
	}
	return i, nil
}

// Close gives up the inbox.
func (i *Intake) Close() error {
	if err := i.sub.Unsubscribe(); err != nil {
		return fmt.Errorf("unsubscribe from replies: %w", err)
	}
	return nil
}

// deliver hands a reply to who waits for it. A second one, or one that nobody
// waits for any more, is dropped.
func (i *Intake) deliver(m *nats.Msg) {
	id := m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
	i.mu.Lock()
	c := i.waiting[id]
	delete(i.waiting, id)
	i.mu.Unlock()
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

	intake *Intake
	// reply gets the answer; nil for a job that somebody else submitted.
	reply <-chan *nats.Msg
}

// Attach returns a job that was submitted before, by whomever. The errors are
// those of [client.Client.Lookup].
func (i *Intake) Attach(ctx context.Context, id string, p pipeline.Pipeline) (*Job, error) {
	r, err := i.LookupNow(ctx, id)
	if err != nil {
		return nil, err
	}
	return &Job{ID: id, Pipeline: p, Status: r.Status, intake: i}, nil
}

// Submit stores a picture and returns its job, whose answer can be waited for.
// [StoreError] says what a client is told of an error. The caller must call
// Forget.
func (i *Intake) Submit(ctx context.Context, r Request) (*Job, error) {
	if r.ID == "" {
		r.ID = NewID()
	}
	reply := make(chan *nats.Msg, 1)
	i.mu.Lock()
	i.waiting[r.ID] = reply
	i.mu.Unlock()
	job := &Job{ID: r.ID, Pipeline: r.Pipeline, Status: v1.Queued, intake: i, reply: reply}
	if err := i.store(ctx, r, i.inbox+"."+r.ID); err != nil {
		job.Forget()
		return nil, err
	}
	return job, nil
}

// Store stores a picture whose answer nobody waits for. The request has an ID.
func (i *Intake) Store(ctx context.Context, r Request) error { return i.store(ctx, r, "") }

func (i *Intake) store(ctx context.Context, r Request, reply string) error {
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
	return i.publisher.Publish(ctx, bus.Message{
		Subject: subject.Images(subject.Job{Pipeline: r.Pipeline.Name, Priority: r.Priority, ID: r.ID}),
		Stream:  streams.Images, ID: v1.MsgID(r.ID, "images"), Header: h, Body: r.Picture,
	})
}

// Fail stores the failure of a picture that cannot be a job, as the answer of
// the job that it would have been. The request has an ID.
func (i *Intake) Fail(ctx context.Context, r Request, p *v1.Problem) error {
	h, err := r.Travel()
	if err != nil {
		return err
	}
	m, err := answer.Message(ctx, h, answer.Failed(subject.Job{Pipeline: r.Pipeline.Name, ID: r.ID}, p))
	if err != nil {
		return err
	}
	return i.publisher.Publish(ctx, m)
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

// Forget says that nobody waits for the job any more.
func (job *Job) Forget() {
	if job.reply == nil {
		return
	}
	job.intake.mu.Lock()
	defer job.intake.mu.Unlock()
	delete(job.intake.waiting, job.ID)
}

// Wait returns the answer of the job, or its state when ctx ends first.
func (job *Job) Wait(ctx context.Context) (v1.Result, error) {
	if job.reply == nil {
		return job.intake.Await(ctx, job.ID)
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
			r, err := job.intake.LookupNow(ctx, job.ID)
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
	m, err := job.intake.results.GetLastMsgForSubject(ctx, subject.Results(job.Pipeline.Name, job.ID))
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
