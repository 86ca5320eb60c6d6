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

	"github.com/sightmesh/sightmesh/contracts/pipeline"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
)

// Jobs submits pictures and hands out their answers.
type Jobs struct {
	conn      *nats.Conn
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
	j := &Jobs{conn: conn, publisher: p, results: results, inbox: conn.NewInbox(), waiting: map[string]chan<- *nats.Msg{}}
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

// Job is a picture that was accepted.
type Job struct {
	ID       string
	Pipeline pipeline.Pipeline

	jobs  *Jobs
	reply <-chan *nats.Msg
}

// Submit stores a picture and returns its job. The error wraps [bus.ErrFull]
// when the stream has no room. The caller must call Forget.
func (j *Jobs) Submit(ctx context.Context, p pipeline.Pipeline, prio subject.Priority, pic []byte) (*Job, error) {
	id := ulid.Make().String()
	now := time.Now().UTC()
	reply := make(chan *nats.Msg, 1)
	j.mu.Lock()
	j.waiting[id] = reply
	j.mu.Unlock()
	job := &Job{ID: id, Pipeline: p, jobs: j, reply: reply}

	h := nats.Header{}
	h.Set(v1.HeaderAccepted, now.Format(time.RFC3339Nano))
	h.Set(v1.HeaderDeadline, now.Add(p.JobDeadline(prio)).Format(time.RFC3339Nano))
	h.Set(v1.HeaderReply, j.inbox+"."+id)
	err := j.publisher.Publish(ctx, bus.Message{
		Subject: subject.Images(subject.Job{Pipeline: p.Name, Priority: prio, ID: id}),
		Stream:  streams.Images, ID: v1.MsgID(id, "images"), Header: h, Body: pic,
	})
	if err != nil {
		job.Forget()
		return nil, err
	}
	return job, nil
}

// Forget says that nobody waits for the job any more.
func (job *Job) Forget() {
	job.jobs.mu.Lock()
	defer job.jobs.mu.Unlock()
	delete(job.jobs.waiting, job.ID)
}

// Wait returns the answer of the job, or its state when ctx ends first.
func (job *Job) Wait(ctx context.Context) (v1.Result, error) {
	const firstLook, longestPause = time.Second, 8 * time.Second
	pause := firstLook
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
			pause = min(2*pause, longestPause)
			look.Reset(pause)
		case <-ctx.Done():
			// The reply may have been lost a moment ago; else say where the
			// job is.
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			r, err := job.jobs.Lookup(last, job.ID)
			switch {
			case err == nil && (r.Status == v1.Done || r.Status == v1.Failed):
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
	if err != nil {
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

// Lookup asks results for the answer or the state of any job. The error is a
// [*v1.Problem] when there is no such job or nobody can say.
func (j *Jobs) Lookup(ctx context.Context, id string) (v1.Result, error) {
	if !subject.ValidJob(id) {
		return v1.Result{}, v1.NewProblem(v1.UnknownJob, "a job is named by 1 to 64 of A-Z, a-z, 0-9, '_' and '-'")
	}
	m, err := j.conn.RequestWithContext(ctx, subject.Lookup(id), nil)
	if errors.Is(err, nats.ErrNoResponders) {
		return v1.Result{}, v1.NewProblem(v1.Unavailable, "no results service answers")
	}
	if err != nil {
		return v1.Result{}, fmt.Errorf("look up job %s: %w", id, err)
	}
	if m.Header.Get("Nats-Service-Error-Code") != "" {
		var p v1.Problem
		if err := json.Unmarshal(m.Data, &p); err != nil {
			return v1.Result{}, fmt.Errorf("look up job %s: decode problem: %w", id, err)
		}
		return v1.Result{}, &p
	}
	return decode(m.Data, "")
}
