package intake

import (
	"fmt"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
)

// inbox is the inbox of this process: it hands each reply to the job that
// waits for it.
type inbox struct {
	prefix string
	sub    *nats.Subscription

	mu      sync.Mutex
	waiting map[string]chan<- *nats.Msg // by the ID of the job
}

func newInbox(conn *nats.Conn) (*inbox, error) {
	r := &inbox{prefix: conn.NewInbox(), waiting: map[string]chan<- *nats.Msg{}}
	var err error
	if r.sub, err = conn.Subscribe(r.prefix+".*", r.deliver); err != nil {
		return nil, fmt.Errorf("subscribe to replies: %w", err)
	}
	return r, nil
}

func (r *inbox) close() error {
	if err := r.sub.Unsubscribe(); err != nil {
		return fmt.Errorf("unsubscribe from replies: %w", err)
	}
	return nil
}

// subject is where the reply for a job is to be sent.
func (r *inbox) subject(id string) string { return r.prefix + "." + id }

// register returns where the reply for a job arrives, until forget is called.
func (r *inbox) register(id string) <-chan *nats.Msg {
	reply := make(chan *nats.Msg, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting[id] = reply
	return reply
}

func (r *inbox) unregister(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.waiting, id)
}

// deliver hands a reply to its job. It drops a second one, and one for which no
// job waits any more.
func (r *inbox) deliver(m *nats.Msg) {
	id := m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
	r.mu.Lock()
	c := r.waiting[id]
	delete(r.waiting, id)
	r.mu.Unlock()
	if c != nil {
		c <- m // has room for the one reply
	}
}
