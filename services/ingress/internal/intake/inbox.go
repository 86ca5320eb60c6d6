package intake

import (
	"fmt"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
)

// inbox receives the replies of this process, and delivers each to the job that waits for
// it.
type inbox struct {
	prefix string
	sub    *nats.Subscription

	mu      sync.Mutex
	waiting map[string]chan<- *nats.Msg // by the ID of the job
}

func newInbox(conn *nats.Conn) (*inbox, error) {
	i := &inbox{prefix: conn.NewInbox(), waiting: map[string]chan<- *nats.Msg{}}
	var err error
	if i.sub, err = conn.Subscribe(i.prefix+".*", i.deliver); err != nil {
		return nil, fmt.Errorf("subscribe to replies: %w", err)
	}
	return i, nil
}

func (i *inbox) close() error {
	if err := i.sub.Unsubscribe(); err != nil {
		return fmt.Errorf("unsubscribe from replies: %w", err)
	}
	return nil
}

// subject returns the reply subject of a job.
func (i *inbox) subject(id string) string { return i.prefix + "." + id }

// register returns the channel that receives the reply for a job, until unregister is
// called.
func (i *inbox) register(id string) <-chan *nats.Msg {
	reply := make(chan *nats.Msg, 1)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.waiting[id] = reply
	return reply
}

func (i *inbox) unregister(id string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.waiting, id)
}

// deliver sends a reply to its job. It discards a second reply, and a reply without a
// waiting job.
func (i *inbox) deliver(m *nats.Msg) {
	id := m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
	i.mu.Lock()
	c := i.waiting[id]
	delete(i.waiting, id)
	i.mu.Unlock()
	if c != nil {
		c <- m // does not block: the channel has room for one reply
	}
}
