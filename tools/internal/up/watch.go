package up

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
)

// Times of a watch.
const (
	watchInterval = 250 * time.Millisecond
	// sickFor is how long the broker must be sick before it is restarted: a
	// stream that is being created or deleted is so for a moment.
	sickFor = 750 * time.Millisecond
	// healthyFor is how long the broker must be healthy for its next restart
	// to count as the first.
	healthyFor = time.Minute
)

// restartDelays lie between two restarts of a broker that stays sick.
var restartDelays = retry.Exponential(time.Second, time.Minute, 2)

// diskWatch looks after the disk and the broker. Its states, by free space:
//
//	free ≥ reserve      everything is stored
//	free < reserve      new images and reports are rejected; what was accepted
//	                    is finished, which frees space
//	free < reserve / 2  crops are rejected too; what classify has is finished
//
// A stream that the server has closed after the error of a write, as on a full
// disk, stays closed until the server restarts. The watch restarts the server
// in place once there is space again, at least half the reserve.
type diskWatch struct {
	broker  *broker
	folder  string
	reserve int64
	free    func(dir string) (int64, error)
	log     *slog.Logger

	active   *rejections
	sick     time.Time // since when the broker is; zero while it is not
	healthy  time.Time // since when the broker is
	restarts int       // since it was healthy for long
	next     time.Time // the earliest time for another restart

	mu     sync.Mutex
	reason string // why the mesh is not ready; empty while it is
	logged string // what of it was logged
}

func newDiskWatch(b *broker, folder string, reserve int64, log *slog.Logger) *diskWatch {
	return &diskWatch{broker: b, folder: folder, reserve: reserve, free: freeBytes, log: log, healthy: time.Now()}
}

// run watches until ctx ends.
func (w *diskWatch) run(ctx context.Context) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	defer func() { w.setRejection(0, "") }()
	for {
		w.check(time.Now())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// problem returns why the mesh is not ready, or nothing.
func (w *diskWatch) problem() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reason
}

// check checks once, and does what is to be done.
func (w *diskWatch) check(now time.Time) {
	var reasons, kinds []string
	free, err := w.free(w.folder)
	level := 0
	switch {
	case err != nil:
		reasons, kinds = append(reasons, err.Error()), append(kinds, err.Error())
	case free < w.reserve/2:
		level = 2
	case free < w.reserve:
		level = 1
	}
	if level > 0 {
		reasons = append(reasons, fmt.Sprintf("%s are free on the disk of %s, and %s stay in reserve: "+
			"new images are rejected", streams.FormatBytes(free), w.folder, streams.FormatBytes(w.reserve)))
		kinds = append(kinds, "disk")
	}
	w.setRejection(level, strings.Join(reasons, "; "))

	if sick := w.brokerHealth(); sick == "" {
		w.sick = time.Time{}
		if w.healthy.IsZero() {
			w.healthy = now
		}
		if now.Sub(w.healthy) >= healthyFor {
			w.restarts = 0
		}
	} else {
		w.healthy = time.Time{}
		if w.sick.IsZero() {
			w.sick = now
		}
		reasons, kinds = append(reasons, sick), append(kinds, sick)
	}
	w.setReason(strings.Join(reasons, "; "), strings.Join(kinds, "; "))

	if !w.sick.IsZero() && now.Sub(w.sick) >= sickFor && level < 2 && err == nil && !now.Before(w.next) {
		w.restart()
	}
}

// setReason makes reason known, and logs it when it is of another kind than before.
func (w *diskWatch) setReason(reason, kind string) {
	w.mu.Lock()
	w.reason = reason
	changed := w.logged != kind
	w.logged = kind
	w.mu.Unlock()
	switch {
	case changed && kind == "":
		w.log.Info("the mesh is ready again")
	case changed:
		w.log.Error("the mesh is not ready", "reason", reason)
	}
}

// brokerHealth returns what keeps the broker from storing messages of the
// mesh, or nothing.
func (w *diskWatch) brokerHealth() string {
	names := map[string]bool{"": true} // as of the server itself
	for _, s := range streams.Streams(streams.Config{}) {
		names[s.Name] = true
	}
	for _, e := range w.broker.current().Healthz(&server.HealthzOptions{Details: true}).Errors {
		if names[e.Stream] {
			return "the NATS server cannot store messages: " + e.Error
		}
	}
	return ""
}

// restart starts the broker again. Services reconnect by themselves.
func (w *diskWatch) restart() {
	w.restarts++
	w.log.Warn("restarting the NATS server", "restarts", w.restarts)
	w.setRejection(0, "") // the mappings end with the server
	if err := w.broker.restart(); err != nil {
		w.log.Error("cannot restart the NATS server", "error", err)
	}
	w.sick = time.Time{}
	w.next = time.Now().Add(restartDelays.Delay(w.restarts))
}

// setRejection brings what is rejected to a level.
func (w *diskWatch) setRejection(level int, reason string) {
	if w.active != nil && w.active.level == level {
		w.active.set(reason)
		return
	}
	if w.active != nil {
		w.active.close()
		w.active = nil
	}
	if level == 0 {
		return
	}
	r, err := startRejections(w.broker.current(), level, reason)
	if err != nil {
		w.log.Error("cannot reject new images", "error", err) // the next check tries again
		return
	}
	w.active = r
}

// rejections reply to publishers in place of the streams, with the reason why a
// message was not stored. They are subscriptions in the memory of the server:
// the streams and their configuration do not change.
type rejections struct {
	level   int
	account *server.Account
	conn    *nats.Conn
	sources []string

	mu     sync.Mutex
	answer []byte
}

// rejectedPrefix begins the subjects to which rejected messages are routed.
const rejectedPrefix = "_SIGHT_REFUSED."

// rejectedSubjects are rejected from each level on.
func rejectedSubjects(level int) []string {
	s := []string{subject.AllImages(), subject.AllManifests()}
	if level > 1 {
		s = append(s, subject.AllCrops())
	}
	return s
}

func startRejections(s *server.Server, level int, reason string) (*rejections, error) {
	conn, err := nats.Connect("", nats.InProcessServer(s), nats.Name("sightmesh up"), nats.NoReconnect())
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	r := &rejections{level: level, account: s.GlobalAccount(), conn: conn}
	r.set(reason)
	_, err = conn.Subscribe(rejectedPrefix+">", func(m *nats.Msg) {
		r.mu.Lock()
		answer := r.answer
		r.mu.Unlock()
		m.Respond(answer) //nolint:errcheck // the publisher then gets a timeout
	})
	if err = errors.Join(err, conn.Flush()); err != nil {
		r.close()
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	for _, source := range rejectedSubjects(level) {
		target := rejectedPrefix + strings.ReplaceAll(source, "*", "{{wildcard(1)}}")
		if err := r.account.AddMapping(source, target); err != nil {
			r.close()
			return nil, fmt.Errorf("map %s: %w", source, err)
		}
		r.sources = append(r.sources, source)
	}
	return r, nil
}

// set changes the reason in the replies to publishers.
func (r *rejections) set(reason string) {
	// "JetStream system temporarily unavailable", which is transient: clients
	// would report the codes of a stream at its limit as a full queue.
	const unavailable, temporarily = 503, 10008
	b, err := json.Marshal(map[string]any{"error": map[string]any{
		"code": unavailable, "err_code": temporarily, "description": reason,
	}})
	if err != nil {
		panic(err) // numbers and a string can be encoded
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = b
}

// close lets the streams store again.
func (r *rejections) close() {
	for _, source := range r.sources {
		r.account.RemoveMapping(source)
	}
	r.conn.Close()
}
