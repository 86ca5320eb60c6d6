package send

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/tools/internal/exit"
)

// run is one run of the sender.
type run struct {
	cfg    Config
	send   deliverFunc
	drawer drawFunc
	limit  *limit
	stderr io.Writer
	id     string // ID of the run

	progress *progress
	failed   []string // failed images, with those of the earlier run
	reason   string   // reason of the last failure of this run

	retrying sync.Once // prints the reason of the first retry
}

// maxPendingOutcomes bounds the outcomes that wait for an earlier one to be written.
const maxPendingOutcomes = 1024

// After an interrupt, the run waits inFlightGrace for the outcomes of the images in
// flight, and abandons blocked calls at stopTimeout. main needs half a second more,
// so that the command ends within ten seconds.
const (
	inFlightGrace = 8 * time.Second
	stopTimeout   = 9 * time.Second
)

func (r *run) sendFiles(ctx context.Context, files []file, stdout io.Writer) (err error) {
	todo, skipped, err := r.pendingFiles(files)
	if err != nil {
		return &exit.Error{Status: exit.Failure, Err: err}
	}
	out, done, err := r.open(stdout)
	if err != nil {
		return &exit.Error{Status: exit.Failure, Err: err}
	}
	r.progress = newProgress(r.stderr, len(todo), r.limit)
	err = r.sendAll(ctx, todo, out)
	r.progress.end(skipped)
	err = errors.Join(err, r.writeFailed())
	complete := r.progress.done == len(todo)
	switch {
	case err != nil:
		return &exit.Error{Status: exit.Failure, Err: err}
	case !complete:
		return exit.Interruptedf("interrupted: %d images were not sent; continue with --resume",
			len(todo)-r.progress.done)
	}
	if err := done(); err != nil {
		return &exit.Error{Status: exit.Failure, Err: err}
	}
	switch n := len(r.failed); {
	case n == 0:
		return nil
	case n == len(files):
		return &exit.Error{Status: exit.Failure, Err: fmt.Errorf("all of %d images failed%s", n, r.lastReason())}
	default:
		return &exit.Error{Status: exit.Partial, Err: fmt.Errorf("%d of %d images failed%s", n, len(files), r.lastReason())}
	}
}

// lastReason returns the end of the error of a run with failures. It is empty when all
// failures are from an earlier run.
func (r *run) lastReason() string {
	if r.reason == "" {
		return ""
	}
	return "; the last: " + r.reason
}

// pendingFiles returns the files that the run has to send.
func (r *run) pendingFiles(files []file) (todo []file, skipped int, err error) {
	sent := map[string]v1.Status{}
	if r.cfg.Resume {
		if sent, err = readSent(r.cfg.Out); err != nil {
			return nil, 0, err
		}
	}
	for _, f := range files {
		status, ok := sent[f.path]
		switch {
		case !ok:
			todo = append(todo, f)
			continue
		case status != v1.Done:
			r.failed = append(r.failed, f.path)
		}
		skipped++
	}
	return todo, skipped, nil
}

// open opens the output for outcomes; done ends a complete run.
func (r *run) open(stdout io.Writer) (out io.Writer, done func() error, err error) {
	r.id, done, err = runID(r.cfg.Out, r.cfg.Resume)
	if err != nil || r.cfg.Out == "-" {
		return stdout, done, err
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if !r.cfg.Resume {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(r.cfg.Out, flags, 0o644) //nolint:gosec // as any output of a command
	if err != nil {
		return nil, nil, fmt.Errorf("open the file of outcomes: %w", err)
	}
	end := done
	return f, func() error { return errors.Join(f.Close(), end()) }, nil
}

// sendAll sends the files as the limit allows, and writes their outcomes. After ctx
// has ended, it waits at most inFlightGrace for the images in flight.
func (r *run) sendAll(ctx context.Context, files []file, out io.Writer) error {
	working, endWork := context.WithCancel(context.WithoutCancel(ctx))
	defer endWork()
	defer context.AfterFunc(ctx, func() {
		t := time.AfterFunc(inFlightGrace, endWork)
		context.AfterFunc(working, func() { t.Stop() })
	})()
	turns := make(chan chan outcome, maxPendingOutcomes)
	var all sync.WaitGroup
	var writeErr error
	sending, stopSending := context.WithCancel(ctx)
	defer stopSending()
	all.Go(func() {
		writeErr = r.write(turns, out, stopSending)
	})
	shared := make(chan outcome, maxPendingOutcomes) // for all images without --ordered
	if !r.cfg.Ordered {
		turns <- shared
	}
	var inFlight sync.WaitGroup
	for _, f := range files {
		if !r.limit.enter(sending) {
			break
		}
		turn := shared
		if r.cfg.Ordered {
			turn = make(chan outcome, 1)
			turns <- turn
		}
		inFlight.Go(func() {
			defer r.limit.leave()
			o, ok := r.sendFile(working, ctx, f)
			if ok {
				turn <- o
			}
			if r.cfg.Ordered {
				close(turn)
			}
		})
	}
	inFlight.Wait()
	close(shared)
	close(turns)
	all.Wait()
	return writeErr
}

// write writes the outcomes of one turn after the other. After a failed write it calls
// stop and discards later outcomes, so that no sender blocks.
func (r *run) write(turns <-chan chan outcome, out io.Writer, stop func()) (err error) {
	w := bufio.NewWriter(out)
	for turn := range turns {
		for o := range turn {
			if err != nil {
				continue
			}
			// Flush when no outcome waits, so that a killed run loses none.
			if err = writeLine(w, o, len(turn) == 0); err != nil {
				stop()
				continue
			}
			if o.Status != v1.Done {
				r.failed = append(r.failed, o.path())
				r.reason = o.reason()
			}
			r.progress.add(o.Status != v1.Done)
		}
	}
	return err
}

func writeLine(w *bufio.Writer, o outcome, flush bool) error {
	body, err := json.Marshal(o)
	if err == nil {
		_, err = w.Write(append(body, '\n'))
	}
	if err == nil && flush {
		err = w.Flush()
	}
	if err != nil {
		return fmt.Errorf("write an outcome: %w", err)
	}
	return nil
}

// sendFile sends an image until it has an outcome, in at most --attempts attempts. It
// returns false when the run was interrupted before the image had an outcome.
func (r *run) sendFile(working, running context.Context, f file) (outcome, bool) {
	begin := time.Now()
	o := newOutcome(f.path)
	image, err := await(running, 0, func() ([]byte, error) { return readImage(f.path) })
	if running.Err() != nil {
		return o, false
	}
	if err != nil {
		o.Error = err.Error()
		return o, true
	}
	key := sha256.Sum256(append([]byte(r.id+"\n"+f.path+"\n"), image...))
	name := hex.EncodeToString(key[:])
	for {
		o.Attempts++
		result, err := r.attempt(working, name, image)
		o.MS = float64(time.Since(begin).Microseconds()) / 1000
		var p *v1.Problem
		isProblem := errors.As(err, &p)
		after, retryable := retry.Delay(err)
		switch {
		case err == nil:
			o.Status, o.Result = v1.Done, &result
			if err := r.draw(working, running, f, name, image, result); err != nil {
				o.Error = err.Error()
			}
			return o, true
		case retryable:
			o.Problem, o.Error = p, ""
			if !isProblem {
				o.Error = err.Error()
			}
			if working.Err() != nil {
				return o, false
			}
			if o.Attempts == r.cfg.Attempts {
				return o, true
			}
			if isProblem && p.Job != "" && p.Code != v1.Unavailable {
				name += "+" // the old key would return the failed job again
			}
			if !isOverloaded(err) { // overloaded is usual: it only slows the run
				r.retrying.Do(func() { r.progress.print(fmt.Sprintf("retrying %s: %v%s", f.path, err, r.hint(err))) })
			}
			if retry.Sleep(running, delay(o.Attempts, after)) != nil {
				return o, false
			}
		case isProblem && p.Code == v1.JobExpired:
			name += "+" // the result of the earlier run has expired: send a new job
		case isProblem:
			o.Problem, o.Error = p, ""
			return o, true
		default:
			o.Error = err.Error()
			return o, true
		}
	}
}

// hint returns the end of the line for an error that a wrong --url can cause. It is empty for another error.
func (r *run) hint(err error) string {
	if r.cfg.NATS.URL == "" && errors.Is(err, syscall.ECONNREFUSED) {
		return "; is the mesh running? --url sets another address"
	}
	return ""
}

func (r *run) attempt(ctx context.Context, key string, image []byte) (v1.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	begin := time.Now()
	result, err := r.send(ctx, key, image)
	if overloaded := isOverloaded(err); err == nil || overloaded { // the time of another failure is no latency
		r.limit.observe(time.Since(begin), overloaded)
	}
	return result, err
}

// writeFailed lists the images that failed.
func (r *run) writeFailed() error {
	if r.cfg.Failed == "" {
		return nil
	}
	f, err := os.Create(r.cfg.Failed)
	if err != nil {
		return fmt.Errorf("write the list of failures: %w", err)
	}
	for _, name := range r.failed {
		fmt.Fprintln(f, name)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write the list of failures: %w", err)
	}
	return nil
}
