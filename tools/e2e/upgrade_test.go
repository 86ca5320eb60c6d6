package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/tools/internal/chaos"
)

// oldBinariesVariable names the environment variable with the folder of the binaries
// of version 0.1.0. `make upgrade` builds them from the history of the repository.
const oldBinariesVariable = "SIGHTMESH_E2E_OLD_BINARIES"

// upgradeDeadline is the deadline of an interactive job. It is longer than fillStreams
// holds messages, so that only a job that is stuck exceeds it.
const upgradeDeadline = 40 * time.Second

// upgradePause is the pause of a client between two rounds. The mesh has one instance
// of each service, and needs time for bulk work beside the interactive work.
const upgradePause = 4 * chaosPause

// TestUpgrade_FromVersion01 upgrades a mesh of version 0.1.0 to this version under
// load. First `setup` changes the streams, while every stream has messages. Then the
// new services start one by one beside the old ones. Each service of both versions is
// killed while the other version runs. Every accepted job has exactly one outcome,
// the correct one, whatever the order in which the services are replaced.
func TestUpgrade_FromVersion01(t *testing.T) {
	old := os.Getenv(oldBinariesVariable)
	if old == "" {
		t.Skip("needs the binaries of version 0.1.0; make upgrade builds them and runs this test")
	}
	fromResults := []string{"results", "classify", "detect", "ingress"}
	fromIngress := slices.Clone(fromResults)
	slices.Reverse(fromIngress)
	t.Run("results-first", func(t *testing.T) { testUpgrade(t, old, fromResults) })
	t.Run("ingress-first", func(t *testing.T) { testUpgrade(t, old, fromIngress) })
}

func testUpgrade(t *testing.T, old string, order []string) {
	u := &upgrade{
		chaosMesh: newChaosMesh(t, newCluster(t, 1), upgradeDeadline),
		ledger:    chaos.NewLedger(uint64(time.Now().UnixNano()), upgradeDeadline, nil), old: map[string]*chaosInstance{},
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("warnings and errors of the services:\n%s", strings.Join(u.warnings(0), "\n"))
		}
	})
	u.setUp(t, filepath.Join(old, "sightmesh"))
	for _, name := range services {
		u.old[name] = u.add(t, name, filepath.Join(old, name))
		u.old[name].start()
	}
	u.awaitReady(t)
	u.load = newChaosLoad(t, u.ledger, u.addresses(), upgradePause)
	u.awaitRound(t, "before the upgrade")

	release := u.fillStreams(t)
	u.setUp(t, binary(t, "sightmesh"))
	release()
	u.awaitRound(t, "after the new setup")

	for _, name := range order {
		u.add(t, name, binary(t, name)).start()
		u.awaitReady(t)
		u.load.sendTo(u.addresses())
		u.awaitRound(t, "with the new "+name+" beside the old one")
	}
	for _, i := range u.instances {
		i.signal(t, syscall.SIGKILL)
		u.awaitRound(t, "after kill -9 of "+i.path)
	}
	for _, name := range order {
		u.remove(t, u.old[name])
		u.load.sendTo(u.addresses())
		u.awaitRound(t, "without the old "+name)
	}

	u.load.stop(chaosPatience)
	u.drain(u.ledger)
	counts := u.ledger.Close()
	t.Logf("%d accepted, %d rejected %v, %d unanswered", counts.Accepted, counts.Rejected, counts.Codes, counts.Unanswered)
	for guarantee, all := range counts.Broken {
		t.Errorf("%d %s:\n%s", len(all), guarantee, strings.Join(all[:min(len(all), 10)], "\n"))
	}
	if len(counts.Expired) > 0 {
		t.Errorf("%d expired:\n%s", len(counts.Expired), strings.Join(counts.Expired, "\n"))
	}
}

// upgrade is a mesh that is upgraded from the old version to the new one.
type upgrade struct {
	*chaosMesh
	ledger *chaos.Ledger
	load   *chaosLoad
	old    map[string]*chaosInstance // by service
}

// awaitRound waits until every client has the outcome of an image that it sends after
// this call.
func (u *upgrade) awaitRound(t testing.TB, when string) {
	t.Helper()
	begin := time.Now()
	last, err := u.load.awaitRound(begin, recoveryPatience)
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	t.Logf("%s: every client had an outcome within %.1f s, the last was %q", when, time.Since(begin).Seconds(), last)
}

// backlogSize is the number of images that wait in each of the streams IMAGES, CROPS and
// PARTS.
const backlogSize = 20

// fillStreams stops the old detect, classify and results, with messages in every work
// stream. release starts the services again.
//
// The services are stopped, not killed: when results of version 0.1.0 is killed, the
// parts that it has received are stuck until a new version of results runs.
func (u *upgrade) fillStreams(t testing.TB) (release func()) {
	t.Helper()
	releaseWeb := u.load.blockWeb()
	u.awaitMessages(t, streams.Fetches, 1)
	u.awaitMessages(t, streams.Callbacks, 1)
	u.stop(t, u.old["results"])
	u.load.running.Go(func() {
		c := &chaosClient{chaosLoad: u.load, name: "report during setup"}
		if !c.report() {
			u.ledger.Violate(chaos.Lost, "%s: the report is not done", c.name)
		}
	})
	u.awaitPending(t, streams.Reports, streams.ReportsConsumer)
	u.publish(t)
	u.awaitMessages(t, streams.Parts, backlogSize*chaos.Codes)
	u.stop(t, u.old["classify"])
	u.publish(t)
	u.awaitMessages(t, streams.Crops, backlogSize)
	u.stop(t, u.old["detect"])
	u.publish(t)
	u.awaitMessages(t, streams.Images, backlogSize)
	return func() {
		releaseWeb()
		for _, name := range []string{"detect", "classify", "results"} {
			u.old[name].start()
		}
		u.awaitReady(t)
	}
}

// publish publishes images with a webhook directly to their stream, because an
// ingress rejects them while a service is stopped.
func (u *upgrade) publish(t testing.TB) {
	t.Helper()
	for n := range backlogSize {
		i := u.ledger.NewImage("published", false)
		job := subject.Job{
			Pipeline: "many-parts", Priority: subject.Priorities()[n%len(subject.Priorities())], ID: "published-" + i.Sum[:32],
		}
		m := nats.NewMsg(subject.Images(job))
		m.Header.Set(nats.MsgIdHdr, v1.MsgID(job.ID, "images"))
		m.Header.Set(v1.HeaderCallback, u.load.web+"/webhook/"+i.Sum)
		m.Data = i.File
		if _, err := u.js.PublishMsg(t.Context(), m); err != nil {
			t.Fatalf("publish an image: %v", err)
		}
		u.ledger.Accept(i, job.ID, true)
	}
}

// awaitMessages waits until a stream has at least n messages.
func (u *upgrade) awaitMessages(t testing.TB, stream string, n int) {
	t.Helper()
	eventually.Succeeds(t, responseTimeout, func() error {
		info, err := u.info(stream)
		if err == nil && info.State.Msgs < uint64(n) {
			err = fmt.Errorf("%s has %d messages, want %d", stream, info.State.Msgs, n)
		}
		return err
	})
}

// awaitPending waits until a consumer has a message that it did not deliver.
func (u *upgrade) awaitPending(t testing.TB, stream, consumer string) {
	t.Helper()
	eventually.Succeeds(t, responseTimeout, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), jetStreamTimeout)
		defer cancel()
		c, err := u.js.Consumer(ctx, stream, consumer)
		if err == nil && c.CachedInfo().NumPending == 0 {
			err = fmt.Errorf("consumer %s of %s has delivered every message", consumer, stream)
		}
		return err
	})
}

// stop ends an instance with SIGTERM, as an operator does.
func (u *upgrade) stop(t testing.TB, i *chaosInstance) {
	t.Helper()
	if err := i.service.stop(t); err != nil {
		t.Errorf("%s ended with %v", i.name, err)
	}
	i.service = nil
}

// remove ends an instance and removes it from the mesh.
func (u *upgrade) remove(t testing.TB, i *chaosInstance) {
	t.Helper()
	u.stop(t, i)
	u.instances = slices.DeleteFunc(u.instances, func(other *chaosInstance) bool { return other == i })
}
