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

// Intervals of a watch.
const (
	watchInterval = 250 * time.Millisecond
	// sickFor is how long the broker must be sick before it is restarted. A stream that is being created or deleted
	// makes it sick for a moment.
	sickFor = 750 * time.Millisecond
	// healthyFor is how long the broker must be healthy until its number of restarts returns to 0.
	healthyFor = time.Minute
)

// restartDelays are the minimum times between two restarts of a broker that stays sick.
var restartDelays = retry.Exponential(time.Second, time.Minute, 2)

// diskWatch checks the disk and the broker. Its levels, by free space:
//
//	0  free ≥ reserve      all messages are stored
//	1  free < reserve      new images and reports are rejected; accepted jobs are finished, which frees space
//	2  free < reserve / 2  crops are also rejected; the messages of classify are finished
//
// The server closes a stream after a write error, for example on a full disk. The stream remains closed until the
// server restarts. The watch restarts the server on the same address when at least half of the reserve is free.
type diskWatch struct {
	broker  *broker
	folder  string
	reserve int64
	free    func(dir string) (int64, error)
	log     *slog.Logger

	active       *rejections
	sickSince    time.Time // when the broker became sick; zero while it is healthy
	healthySince time.Time // when the broker became healthy; zero while it is sick
	restarts     int       // since the broker was last healthy for healthyFor
	nextRestart  time.Time // the earliest time for another restart

	mu         sync.Mutex
	reason     string // why the mesh is not ready; empty while it is ready
	loggedKind string // kind of the reason that was logged last
}

func newDiskWatch(b *broker, folder string, reserve int64, log *slog.Logger) *diskWatch {
	return &diskWatch{broker: b, folder: folder, reserve: reserve, free: freeBytes, log: log, healthySince: time.Now()}
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

// notReadyReason returns why the mesh is not ready, or "".
func (w *diskWatch) notReadyReason() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reason
}

// check reads the free space and the health of the server, changes the rejection, and restarts a sick server.
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
		w.sickSince = time.Time{}
		if w.healthySince.IsZero() {
			w.healthySince = now
		}
		if now.Sub(w.healthySince) >= healthyFor {
			w.restarts = 0
		}
	} else {
		w.healthySince = time.Time{}
		if w.sickSince.IsZero() {
			w.sickSince = now
		}
		reasons, kinds = append(reasons, sick), append(kinds, sick)
	}
	w.setReason(strings.Join(reasons, "; "), strings.Join(kinds, "; "))

	hasSpace := level < 2 && err == nil
	if hasSpace && !w.sickSince.IsZero() && now.Sub(w.sickSince) >= sickFor && !now.Before(w.nextRestart) {
		w.restart()
	}
}

// setReason sets the reason of notReadyReason. It logs the reason when its kind has changed: the kind has no numbers,
// which change at each check.
func (w *diskWatch) setReason(reason, kind string) {
	w.mu.Lock()
	w.reason = reason
	changed := w.loggedKind != kind
	w.loggedKind = kind
	w.mu.Unlock()
	switch {
	case changed && kind == "":
		w.log.Info("the mesh is ready again")
	case changed:
		w.log.Error("the mesh is not ready", "reason", reason)
	}
}

// brokerHealth returns why the broker cannot store messages of the mesh, or "".
func (w *diskWatch) brokerHealth() string {
	names := map[string]bool{"": true} // "" is the server itself
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

// restart restarts the broker. Its clients reconnect.
func (w *diskWatch) restart() {
	w.restarts++
	w.log.Warn("restarting the NATS server", "restarts", w.restarts)
	w.setRejection(0, "") // the mappings end with the server
	if err := w.broker.restart(); err != nil {
		w.log.Error("cannot restart the NATS server", "error", err)
	}
	w.sickSince = time.Time{}
	w.nextRestart = time.Now().Add(restartDelays.Delay(w.restarts))
}

// setRejection sets which messages are rejected: see the levels of [diskWatch].
func (w *diskWatch) setRejection(level int, reason string) {
	if w.active != nil && w.active.level == level {
		w.active.setReason(reason)
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

// rejections reply to publishers instead of the streams, with the reason why a message was not stored. The server maps
// the subjects to a subscription of rejections, in memory: the streams and their configuration do not change.
type rejections struct {
	level   int
	account *server.Account
	conn    *nats.Conn
	sources []string

	mu    sync.Mutex
	reply []byte
}

// rejectedPrefix is the prefix of the subjects to which rejected messages are mapped.
const rejectedPrefix = "_SIGHT_REJECTED."

// rejectedSubjects returns the subjects whose messages are rejected at a level.
func rejectedSubjects(level int) []string {
	s := []string{subject.AllImages(), subject.AllManifests()}
	if level > 1 {
		s = append(s, subject.AllCrops())
	}
	return s
}

// startRejections rejects the messages of a level. The caller must call close.
func startRejections(s *server.Server, level int, reason string) (*rejections, error) {
	conn, err := nats.Connect("", nats.InProcessServer(s), nats.Name("sightmesh up"), nats.NoReconnect())
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	r := &rejections{level: level, account: s.GlobalAccount(), conn: conn}
	r.setReason(reason)
	_, err = conn.Subscribe(rejectedPrefix+">", func(m *nats.Msg) {
		r.mu.Lock()
		reply := r.reply
		r.mu.Unlock()
		m.Respond(reply) //nolint:errcheck // the publisher then gets a timeout
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

// setReason sets the reason in the replies to publishers.
func (r *rejections) setReason(reason string) {
	// The codes mean "JetStream system temporarily unavailable", which clients retry. They would report the codes of a
	// stream at its limit as a full queue.
	const unavailable, temporarily = 503, 10008
	b, err := json.Marshal(map[string]any{"error": map[string]any{
		"code": unavailable, "err_code": temporarily, "description": reason,
	}})
	if err != nil {
		panic(err) // numbers and a string can be encoded
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reply = b
}

// close ends the rejections: the streams store messages again.
func (r *rejections) close() {
	for _, source := range r.sources {
		r.account.RemoveMapping(source)
	}
	r.conn.Close()
}
