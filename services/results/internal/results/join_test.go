package results

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// mixedParts stores jobs with two parts that are not of one detection. Each job
// differs in another property of its parts, and its deadline is soon. mixedParts
// returns the IDs of the jobs.
func (b bench) mixedParts(t *testing.T) []string {
	t.Helper()
	h := nats.Header{v1.HeaderDeadline: {time.Now().Add(3 * time.Second).Format(time.RFC3339Nano)}}
	image := func(p v1.Part, sha256 string) v1.Part {
		p.Image.SHA256 = sha256
		return p
	}
	var jobs []string
	for id, parts := range map[string][2]v1.Part{
		"fewer-parts":   {part(0, 3), part(1, 2)},
		"more-parts":    {part(0, 2), part(1, 3)},
		"another-image": {image(part(0, 2), "aa"), image(part(1, 2), "bb")},
	} {
		jobs = append(jobs, id)
		for i, p := range parts {
			b.publish(t, subject.Parts(subject.Job{Pipeline: "text", ID: id, Part: i}), h, p)
		}
	}
	return jobs
}

func (b bench) checkExpired(t *testing.T, job string) {
	t.Helper()
	checkProblem(t, b.awaitOutcome(t, job), v1.DeadlineExceeded)
}

// TestJoin_LeavesPartsOfTwoDetections to the sweeper, which ends the job at its
// deadline.
func TestJoin_LeavesPartsOfTwoDetections(t *testing.T) {
	b := newBench(t, 1, shortDeadlines(t)...)
	for _, job := range b.mixedParts(t) {
		b.checkExpired(t, job)
	}
}

// TestSweeper_LeavesPartsOfTwoDetections until the deadline, also when the
// consumer is done with them.
func TestSweeper_LeavesPartsOfTwoDetections(t *testing.T) {
	b := newBench(t, 0)
	jobs := b.mixedParts(t)
	b.ackParts(t, 2*len(jobs))
	startReplica(t, b.url, shortDeadlines(t)...)
	for _, job := range jobs {
		b.checkExpired(t, job)
	}
}

// TestJoin_JoinsPartsThatDoNotNameTheirImage, as those of another stage than
// classify may.
func TestJoin_JoinsPartsThatDoNotNameTheirImage(t *testing.T) {
	b := newBench(t, 1)
	first := part(0, 2)
	first.Image.SHA256 = "aa"
	b.publish(t, subject.Parts(subject.Job{Pipeline: "text", ID: "job"}), nil, first)
	b.publish(t, subject.Parts(subject.Job{Pipeline: "text", ID: "job", Part: 1}), nil, part(1, 2))
	b.awaitStatus(t, "job", v1.Done)
}

// TestJoin_DropsPartsWithAnImpossibleNumber and joins what comes after them.
func TestJoin_DropsPartsWithAnImpossibleNumber(t *testing.T) {
	b := newBench(t, 1)
	for i, parts := range []int{-1, 0, 1} {
		job := subject.Job{Pipeline: "text", ID: fmt.Sprint("impossible", i), Part: 1}
		b.publish(t, subject.Parts(job), nil, part(1, parts))
	}
	for i := range 2 {
		b.publish(t, subject.Parts(subject.Job{Pipeline: "text", ID: "job", Part: i}), nil, part(i, 2))
	}
	b.awaitStatus(t, "job", v1.Done)
	for i := range 3 {
		if r := b.lookup(t, fmt.Sprint("impossible", i)); r.Status != v1.Running {
			t.Errorf("job %d is %s, want running", i, r.Status)
		}
	}
}
