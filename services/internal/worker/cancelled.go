package worker

import (
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/subject"
)

// maxCancelledJobs limits the cancelled jobs that a worker remembers. The messages of
// cancelled jobs are also deleted from the streams. The worker remembers the jobs for
// messages that it had already pulled, or that are published a moment later.
const maxCancelledJobs = 4096

// cancelledJobs has the last jobs that were cancelled.
type cancelledJobs struct {
	mu   sync.Mutex
	jobs map[string]bool
	ring [maxCancelledJobs]string
	next int
}

// subscribe adds cancelled jobs until the subscription ends.
func (c *cancelledJobs) subscribe(nc *nats.Conn) (*nats.Subscription, error) {
	sub, err := nc.Subscribe(subject.AllCancelled(), func(m *nats.Msg) {
		if job, err := subject.ParseCancelled(m.Subject); err == nil {
			c.add(job)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("listen for cancelled jobs: %w", err)
	}
	return sub, nil
}

func (c *cancelledJobs) add(job string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.jobs == nil {
		c.jobs = map[string]bool{}
	}
	if c.jobs[job] {
		return
	}
	delete(c.jobs, c.ring[c.next])
	c.ring[c.next], c.jobs[job] = job, true
	c.next = (c.next + 1) % maxCancelledJobs
}

func (c *cancelledJobs) has(job string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.jobs[job]
}
