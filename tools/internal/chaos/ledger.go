package chaos

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// A Ledger records the images that clients sent during one fault, and the responses.
// It is safe for concurrent use by multiple goroutines.
type Ledger struct {
	seed     uint64
	deadline time.Duration
	now      func() time.Time

	mu                   sync.Mutex
	number               uint64
	images               map[string]*sent // by SHA-256
	jobs                 map[string]*job  // by ID
	rejected, unanswered int
	lastOutcome          time.Time // when a job last got its first outcome; zero before the watch
	stall                time.Duration
	broken               map[Guarantee][]string
	closed               bool
	codes                map[v1.Code]int // problem codes of rejections
	expired              []string        // expired jobs with their problems
}

// A Guarantee is a property that the suite checks for every job.
type Guarantee string

// The guarantees, each with what violates it. A violation is counted in the column of its
// guarantee.
const (
	Lost       Guarantee = "lost"       // an accepted job has no outcome, or its webhook was never called
	Duplicated Guarantee = "duplicated" // an image became two jobs although it was accepted once
	Changed    Guarantee = "changed"    // an outcome differs from an earlier outcome of the job
	// Wrong is a result of another image or client, a job that expired too early, or a failure without a reason.
	Wrong   Guarantee = "wrong"
	Ran     Guarantee = "ran"     // an image that was rejected has an outcome
	Pending Guarantee = "pending" // a message or an acknowledgement is left over
)

// sent is an image with its jobs and outcomes.
type sent struct {
	Image
	made      time.Time // when the image was made, before it was sent
	mayRepeat bool
	rejected  bool     // by at least one response that says that nothing was accepted
	perhaps   bool     // a response was lost, or says that the image may have been accepted
	accepted  []string // IDs of jobs in responses
	stored    []string // IDs of jobs with an outcome in RESULTS
}

type job struct {
	id      string
	image   *sent
	outcome string // text of the first outcome; empty before
	seen    time.Time
	called  bool // whether the webhook was called
	webhook bool // whether one was requested
}

// NewLedger returns an empty ledger. Images of ledgers with different seeds differ. A
// job that expires earlier than deadline after its image was made violates a guarantee.
// A nil now means [time.Now].
func NewLedger(seed uint64, deadline time.Duration, now func() time.Time) *Ledger {
	if now == nil {
		now = time.Now
	}
	return &Ledger{
		seed: seed, deadline: deadline, now: now, images: map[string]*sent{}, jobs: map[string]*job{},
		broken: map[Guarantee][]string{}, codes: map[v1.Code]int{},
	}
}

// NewImage returns a new image. A client whose protocol sends an image again, such as
// a resumed session, sets mayRepeat: the image may then become several jobs.
func (l *Ledger) NewImage(client string, mayRepeat bool) Image {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.number++
	i := NewImage(client, l.seed, l.number)
	l.images[i.Sum] = &sent{Image: i, made: l.now(), mayRepeat: mayRepeat}
	return i
}

// NewCopy returns a new copy of a PNG file, as the function [NewCopy] does.
func (l *Ledger) NewCopy(client string, png []byte, codes []string) (Image, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.number++
	i, err := NewCopy(client, png, codes, l.seed, l.number)
	if err != nil {
		return i, err
	}
	l.images[i.Sum] = &sent{Image: i, made: l.now()}
	return i, nil
}

// Accept records that a client received the ID of the job of its image. webhook
// reports whether the job has a webhook.
func (l *Ledger) Accept(i Image, id string, webhook bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accept(l.images[i.Sum], id, webhook)
}

func (l *Ledger) accept(s *sent, id string, webhook bool) {
	if known := l.jobs[id]; known != nil {
		if known.image != s {
			l.violate(Wrong, "job %s was given to %s and to %s", id, known.image.Client, s.Client)
		}
		return
	}
	if len(s.accepted) > 0 && !s.mayRepeat {
		l.violate(Duplicated, "%s: the same image is job %s and job %s", s.Client, s.accepted[0], id)
	}
	s.accepted = append(s.accepted, id)
	l.jobs[id] = &job{id: id, image: s, webhook: webhook}
}

// Reject records that a client received a problem instead of a job. A problem
// with the ID of a job says that the image may have been accepted.
func (l *Ledger) Reject(i Image, p v1.Problem) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rejected++
	l.codes[p.Code]++
	if p.Job == "" {
		l.images[i.Sum].rejected = true
	} else {
		l.images[i.Sum].perhaps = true
	}
}

// MarkInterrupted records that a client got no response. Its image may have become a job.
func (l *Ledger) MarkInterrupted(i Image) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unanswered++
	l.images[i.Sum].perhaps = true
}

// RecordResult records a result of a job that a client looked up or received. asked is
// the time of the request. The status of a running job is no change when the client
// requested it before it saw the outcome, even if the response arrives later.
func (l *Ledger) RecordResult(i Image, r v1.Result, asked time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	j := l.jobs[r.ID]
	switch {
	case j == nil:
		l.violate(Wrong, "%s: got the result of job %q, which it was not told of", i.Client, r.ID)
		return
	case j.image.Sum != i.Sum:
		l.violate(Wrong, "%s: got the result of job %s, which is of %s", i.Client, r.ID, j.image.Client)
		return
	case !r.Final():
		if j.outcome != "" && asked.After(j.seen) {
			l.violate(Changed, "%s: job %s is %s after it had the outcome %s", i.Client, r.ID, r.Status, j.outcome)
		}
		return
	}
	outcome := outcomeText(r)
	if j.outcome != "" {
		if outcome != j.outcome {
			l.violate(Changed, "%s: job %s was %s and is %s", i.Client, r.ID, j.outcome, outcome)
		}
		return
	}
	now := l.now()
	j.outcome, j.seen = outcome, now
	if !l.lastOutcome.IsZero() {
		l.stall = max(l.stall, now.Sub(l.lastOutcome))
		l.lastOutcome = now
	}
	if r.Status == v1.Done {
		if err := i.Check(r); err != nil {
			l.violate(Wrong, "%s: job %s: %v", i.Client, r.ID, err)
		} else if r.Metadata["client"] != "" && r.Metadata["client"] != i.Client {
			l.violate(Wrong, "%s: job %s has the metadata of %s", i.Client, r.ID, r.Metadata["client"])
		}
		return
	}
	if r.Problem != nil && r.Problem.Code == v1.DeadlineExceeded {
		l.expired = append(l.expired, fmt.Sprintf("%s: job %s: %s", i.Client, r.ID, r.Problem.Detail))
		if after := now.Sub(j.image.made); after < l.deadline {
			l.violate(Wrong, "%s: job %s expired after %v, before its deadline of %v", i.Client, r.ID, after, l.deadline)
		}
		return
	}
	l.violate(Wrong, "%s: job %s failed without a reason in its image: %s", i.Client, r.ID, outcome)
}

// outcomeText returns the text of a result that must not change. The text has no
// timings, because those of a reply and of the stored result differ.
func outcomeText(r v1.Result) string {
	if r.Status == v1.Failed {
		if r.Problem == nil {
			return "failed without a problem"
		}
		return "failed: " + string(r.Problem.Code)
	}
	sum := ""
	if r.Image != nil {
		sum = r.Image.SHA256
	}
	regions, err := json.Marshal(r.Regions)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s: image %.8s with %s", r.Status, sum, regions)
}

// RecordWebhook records that the webhook of a job was called. It may come before the
// client has the ID of the job, and more than once.
func (l *Ledger) RecordWebhook(i Image, r v1.Result) {
	l.mu.Lock()
	s := l.images[i.Sum]
	if l.jobs[r.ID] == nil {
		l.accept(s, r.ID, true)
	}
	l.jobs[r.ID].called = true
	l.mu.Unlock()
	l.RecordResult(i, r, time.Time{})
}

// Find returns the image with this SHA-256.
func (l *Ledger) Find(sum string) (Image, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.images[sum]
	if !ok {
		return Image{}, false
	}
	return s.Image, true
}

// Store records that RESULTS has an outcome for a job. sum is the SHA-256 of its image,
// or empty when the outcome does not have it.
func (l *Ledger) Store(id, sum string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.images[sum]; s != nil && !slices.Contains(s.stored, id) {
		s.stored = append(s.stored, id)
	}
}

// Violate records a violation that was found outside the ledger.
func (l *Ledger) Violate(g Guarantee, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.violate(g, format, args...)
}

func (l *Ledger) violate(g Guarantee, format string, args ...any) {
	l.broken[g] = append(l.broken[g], fmt.Sprintf(format, args...))
}

// A Job is an accepted job and its image.
type Job struct {
	ID    string
	Image Image
}

// Jobs returns every accepted job.
func (l *Ledger) Jobs() []Job { return l.jobsWhere(func(*job) bool { return true }) }

// Open returns the accepted jobs without an outcome.
func (l *Ledger) Open() []Job { return l.jobsWhere(func(j *job) bool { return j.outcome == "" }) }

// WithoutWebhook returns the accepted jobs whose requested webhook was not called.
func (l *Ledger) WithoutWebhook() []Job {
	return l.jobsWhere(func(j *job) bool { return j.webhook && !j.called })
}

func (l *Ledger) jobsWhere(has func(*job) bool) []Job {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Job
	for _, j := range l.jobs {
		if has(j) {
			out = append(out, Job{j.id, j.image.Image})
		}
	}
	return out
}

// Watch starts the measurement of the longest stall.
func (l *Ledger) Watch() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lastOutcome, l.stall = l.now(), 0
}

// Close makes the checks that are possible only at the end: for images that became two
// jobs, and for rejected images with an outcome. It returns the counts of the row. A
// later call includes what was recorded since.
func (l *Ledger) Close() Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.judge()
		l.closed = true
	}
	broken := make(map[Guarantee][]string, len(l.broken))
	for p, all := range l.broken {
		broken[p] = slices.Clone(all)
	}
	return Counts{
		Accepted: len(l.jobs), Rejected: l.rejected, Unanswered: l.unanswered, Expired: l.expired, Stall: l.stall,
		Broken: broken, Codes: l.codes,
	}
}

func (l *Ledger) judge() {
	for _, s := range l.images {
		all := slices.Concat(s.accepted, s.stored)
		slices.Sort(all)
		all = slices.Compact(all)
		switch {
		case len(s.accepted) == 0 && s.rejected && !s.perhaps && len(s.stored) > 0 && !s.mayRepeat:
			l.violate(Ran, "%s: an image that was rejected is job %v", s.Client, s.stored)
		case len(all) > max(1, len(s.accepted)) && !s.mayRepeat:
			l.violate(Duplicated, "%s: an image has the outcomes of the jobs %v, and its client was told of %v",
				s.Client, s.stored, s.accepted)
		}
	}
}
