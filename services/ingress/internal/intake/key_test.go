package intake

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
)

func TestIntake_Claim(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cat, dog := sha256.Sum256([]byte("cat")), sha256.Sum256([]byte("dog"))
	for _, tt := range []struct {
		key  Key
		id   string
		want string
	}{
		{Key{Name: "k1", Fingerprint: cat}, "first", "first"},
		{Key{Name: "k1", Fingerprint: cat}, "second", "first"},
		{Key{Name: "k2", Fingerprint: cat}, "third", "third"},
		{Key{Name: "k1", Fingerprint: cat}, "fourth", "first"},
	} {
		id, err := b.Claim(t.Context(), tt.key, tt.id)
		if err != nil {
			t.Errorf("%s for %s: %v", tt.key.Name, tt.id, err)
		}
		if id != tt.want {
			t.Errorf("%s for %s: got %s, want %s", tt.key.Name, tt.id, id, tt.want)
		}
	}
	for field, want := range map[string]string{"": "Idempotency-Key", "key": "key"} {
		var p *v1.Problem
		if _, err := b.Claim(t.Context(), Key{"k1", field, dog}, "fifth"); !errors.As(err, &p) {
			t.Fatalf("another image: got %v, want a problem", err)
		}
		if p.Code != v1.KeyConflict {
			t.Errorf("another image: the code is %s, want %s", p.Code, v1.KeyConflict)
		}
		if p.Field != want {
			t.Errorf("another image: the field is %q, want %s", p.Field, want)
		}
		if detail := want + ` "k1" stands for something else, first`; p.Detail != detail {
			t.Errorf("another image: the detail is %q, want %q", p.Detail, detail)
		}
	}
}

func TestIntake_ClaimConcurrently(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	got := make(chan string, 20)
	for i := range cap(got) {
		go func() {
			id, err := b.Claim(t.Context(), Key{Name: "same"}, string(rune('a'+i)))
			if err != nil {
				t.Error(err)
			}
			got <- id
		}()
	}
	first := <-got
	for range cap(got) - 1 {
		if id := <-got; id != first {
			t.Errorf("one claim returned %s, another %s", first, id)
		}
	}
}

// TestIntake_ClaimOnReplicatedStreams claims each of several new keys on all servers of a
// cluster concurrently. Most claims conflict with another claim in flight.
func TestIntake_ClaimOnReplicatedStreams(t *testing.T) {
	t.Parallel()
	const keys, claims = 8, 16
	var ingresses []bench
	for _, s := range bustest.StartCluster(t, 3, "text").Servers {
		ingresses = append(ingresses, newIntake(t, s))
	}
	for k := range keys {
		key := Key{Name: fmt.Sprint("key ", k)}
		var ids [claims]string
		var errs [claims]error
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range claims {
			wg.Go(func() {
				<-start
				ids[i], errs[i] = ingresses[i%len(ingresses)].Claim(t.Context(), key, fmt.Sprint("job ", i))
			})
		}
		close(start)
		wg.Wait()
		for i, err := range errs {
			switch {
			case err != nil:
				t.Errorf("%s, claim %d: %v", key.Name, i, err)
			case ids[i] != ids[0]:
				t.Errorf("%s, claim %d got %s, want %s as claim 0", key.Name, i, ids[i], ids[0])
			}
		}
	}
}

// rejectingJetStream rejects the first writes, like a stream with another write in flight or
// with a message that expires a moment later.
type rejectingJetStream struct {
	jetstream.JetStream
	code  jetstream.ErrorCode
	times int // how many writes to reject; -1 for all
	wrote int // how many writes were attempted
}

func (r *rejectingJetStream) Publish(
	ctx context.Context, subj string, body []byte, o ...jetstream.PublishOpt,
) (*jetstream.PubAck, error) {
	if r.wrote++; r.times < 0 || r.wrote <= r.times {
		return nil, &jetstream.APIError{Code: 400, ErrorCode: r.code, Description: "wrong last sequence"}
	}
	return r.JetStream.Publish(ctx, subj, body, o...)
}

func TestIntake_ClaimRetriesWhenAnotherWriteFails(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]jetstream.ErrorCode{
		"in flight": jetstream.JSErrCodeStreamWrongLastSequenceConstant,
		"expired":   jetstream.JSErrCodeStreamWrongLastSequence,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			r := &rejectingJetStream{JetStream: b.js, code: code, times: 3}
			b.cfg.JetStream = r
			id, err := b.Claim(t.Context(), Key{Name: "new"}, "mine")
			if err != nil {
				t.Fatal(err)
			}
			if id != "mine" {
				t.Errorf("got %q, want mine", id)
			}
			if r.wrote != 4 {
				t.Errorf("%d writes were attempted, want 4", r.wrote)
			}
		})
	}
}

func TestIntake_ClaimEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.cfg.JetStream = &rejectingJetStream{
		JetStream: b.js, code: jetstream.JSErrCodeStreamWrongLastSequenceConstant, times: -1,
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if id, err := b.Claim(ctx, Key{Name: "new"}, "mine"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Claim = %q, %v, want %v", id, err, context.DeadlineExceeded)
	}
}
