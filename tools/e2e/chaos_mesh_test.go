package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/tools/internal/chaos"
)

// chaosPipelines are two pipelines with the lane program testdata/codes.py, which
// finds three regions in every image. The parts of many-parts have to be joined.
const chaosPipelines = `pipelines:
  - name: one-part
    deadline: %[2]s
    bulk_deadline: %[3]s
    crops_per_message: 8
    detect: &codes {lane: [python3, %[1]q], timeout: 10s}
    classify: *codes
  - name: many-parts
    deadline: %[2]s
    bulk_deadline: %[3]s
    crops_per_message: 1
    detect: *codes
    classify: *codes
`

// chaosDeadline is the deadline of an interactive job. The deadline of a bulk job
// is bulkMargin later. The few faults of `make test` use a shorter deadline,
// because a job that is stuck delays the test until then.
const (
	chaosDeadline    = 20 * time.Second
	fewFaultDeadline = 10 * time.Second
	bulkMargin       = 5 * time.Second
)

// chaosMesh is a mesh with several instances of each service. Each instance
// connects to NATS through its own proxies.
type chaosMesh struct {
	cluster   cluster
	instances []*chaosInstance
	log       *lines
	pipelines string // file
	nc        *nats.Conn
	js        jetstream.JetStream

	stored      map[string]storedOutcome // by job ID
	nextRead    uint64                   // sequence in RESULTS of the first unread outcome
	storeFaults []string                 // faults of the outcomes that were read
}

// storedOutcome is the outcome of a job in RESULTS.
type storedOutcome struct {
	sum    string
	status v1.Status
}

// chaosInstance is one instance of a service. A supervisor restarts it when it ends.
type chaosInstance struct {
	name string
	args []string
	env  []string
	path string
	log  *lines
	// proxies has one proxy for each server of the cluster, in the same order.
	proxies []*chaos.Proxy
	service *supervised // nil after stop
}

// startChaosMesh starts the servers and a mesh with the given number of instances
// of each service. The mesh is stopped when the test ends.
func startChaosMesh(t testing.TB, c cluster, instances int, deadline time.Duration) *chaosMesh {
	t.Helper()
	m := newChaosMesh(t, c, deadline)
	m.setUp(t, binary(t, "sightmesh"))
	for _, name := range services {
		for range instances {
			m.add(t, name, binary(t, name)).start()
		}
	}
	m.awaitReady(t)
	return m
}

// newChaosMesh starts the servers and returns a mesh without streams and services.
// Instances that are added to it are stopped when the test ends.
func newChaosMesh(t testing.TB, c cluster, deadline time.Duration) *chaosMesh {
	t.Helper()
	lane := filepath.Join(root(t), "tools", "e2e", "testdata", "codes.py")
	m := &chaosMesh{
		cluster: c, log: newLines(), pipelines: filepath.Join(t.TempDir(), "pipelines.yaml"),
		stored: map[string]storedOutcome{}, nextRead: 1,
	}
	pipelines := fmt.Appendf(nil, chaosPipelines, lane, deadline, deadline+bulkMargin)
	if err := os.WriteFile(m.pipelines, pipelines, 0o600); err != nil {
		t.Fatal(err)
	}
	c.start(t)
	var err error
	if m.nc, err = nats.Connect(c.url(), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.nc.Close)
	if m.js, err = jetstream.New(m.nc); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.stopServices(t) })
	return m
}

// setUp runs `setup` of the given sightmesh program.
func (m *chaosMesh) setUp(t testing.TB, sightmesh string) {
	t.Helper()
	setup := exec.Command(sightmesh, "setup", "--nats", m.cluster.url(), "--pipelines", m.pipelines,
		"--replicas", strconv.Itoa(len(m.cluster)))
	if out, err := setup.CombinedOutput(); err != nil {
		t.Fatalf("set up: %v\n%s", err, out)
	}
	m.cluster.awaitHealthy(t)
}

// add adds an instance of a service without starting it.
func (m *chaosMesh) add(t testing.TB, name, path string) *chaosInstance {
	t.Helper()
	i := &chaosInstance{name: name, path: path, log: m.log, env: webClients()}
	var urls []string
	for _, n := range m.cluster {
		p, err := chaos.NewProxy(loopback(), n.config.Client)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		i.proxies = append(i.proxies, p)
		urls = append(urls, "nats://"+p.Addr())
	}
	i.args = []string{
		"--nats", strings.Join(urls, ","), "--pipelines", m.pipelines, "--admin", "127.0.0.1:0",
	}
	switch name {
	case "ingress":
		i.args = append(i.args, "--http", freeAddresses(t, loopback(), 1)[0])
	case "detect", "classify":
		i.args = append(i.args, "--lanes", "2")
	}
	m.instances = append(m.instances, i)
	return i
}

func (i *chaosInstance) start() { i.service = supervise(i.name, i.path, i.args, i.env, i.log) }

// restart kills the instance, starts it, and waits until it is ready.
func (i *chaosInstance) restart(t testing.TB) {
	t.Helper()
	i.service.kill(t)
	i.start()
	eventually.Succeeds(t, 2*time.Minute, i.service.ready)
}

// address returns the base URL of an ingress.
func (i *chaosInstance) address() string { return "http://" + i.args[len(i.args)-1] }

// processes returns the process IDs of the instance and its lanes, or nil while
// the instance does not run.
func (i *chaosInstance) processes(t testing.TB) []int {
	t.Helper()
	if i.service == nil || i.service.pid() == 0 {
		return nil
	}
	all := []int{i.service.pid()}
	for _, lanes := range children(t, i.service.pid()) {
		all = append(all, lanes...)
	}
	return all
}

// signal sends a signal to the process, and SIGSTOP and SIGCONT to its lanes as
// well. It is no error when the process has already ended.
func (i *chaosInstance) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	all := i.processes(t)
	if s != syscall.SIGSTOP && s != syscall.SIGCONT {
		all = all[:min(len(all), 1)]
	}
	for _, pid := range all {
		if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Errorf("signal %s: %v", i.name, err)
		}
	}
}

// serviceInstances returns the instances of a service.
func (m *chaosMesh) serviceInstances(name string) []*chaosInstance {
	var out []*chaosInstance
	for _, i := range m.instances {
		if i.name == name {
			out = append(out, i)
		}
	}
	return out
}

// awaitReady waits until every instance is ready.
func (m *chaosMesh) awaitReady(t testing.TB) {
	t.Helper()
	for _, i := range m.instances {
		eventually.Succeeds(t, 2*time.Minute, i.service.ready)
	}
}

// stopServices ends the services with SIGKILL.
func (m *chaosMesh) stopServices(t testing.TB) {
	t.Helper()
	for _, i := range m.instances {
		if i.service != nil {
			i.signal(t, syscall.SIGCONT)
			i.service.kill(t)
			i.service = nil
		}
	}
}

// addresses returns the base URLs of the ingresses.
func (m *chaosMesh) addresses() []string {
	var out []string
	for _, i := range m.serviceInstances("ingress") {
		out = append(out, i.address())
	}
	return out
}

// jetStreamTimeout bounds one request of the suite to JetStream.
const jetStreamTimeout = 10 * time.Second

// info returns the state of a stream, with the number of messages of each
// subject.
func (m *chaosMesh) info(stream string) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(context.Background(), jetStreamTimeout)
	defer cancel()
	s, err := m.js.Stream(ctx, stream)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", stream, err)
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(">"))
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", stream, err)
	}
	return info, nil
}

// update changes the configuration of a stream.
func (m *chaosMesh) update(t testing.TB, stream string, change func(*jetstream.StreamInfo, *jetstream.StreamConfig)) {
	t.Helper()
	eventually.Succeeds(t, responseTimeout, func() error {
		info, err := m.info(stream)
		if err != nil {
			return err
		}
		config := info.Config
		change(info, &config)
		ctx, cancel := context.WithTimeout(context.Background(), jetStreamTimeout)
		defer cancel()
		if _, err := m.js.UpdateStream(ctx, config); err != nil {
			return fmt.Errorf("update stream %s: %w", stream, err)
		}
		return nil
	})
}

// leader returns the server that leads a stream, or nil while there is no leader.
// A single server leads every stream.
func (m *chaosMesh) leader(stream string) *node {
	if len(m.cluster) == 1 {
		return m.cluster[0]
	}
	info, err := m.info(stream)
	if err != nil || info.Cluster == nil {
		return nil
	}
	for _, n := range m.cluster {
		if n.config.Name == info.Cluster.Leader {
			return n
		}
	}
	return nil
}

// readStored reads the outcomes that were stored in RESULTS since the last call.
func (m *chaosMesh) readStored() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	info, err := m.info(streams.Results)
	if err != nil {
		return err
	}
	last := info.State.LastSeq
	if info.State.Msgs == 0 || last < m.nextRead {
		return nil
	}
	consumer, err := m.js.OrderedConsumer(ctx, streams.Results, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: m.nextRead,
	})
	if err != nil {
		return fmt.Errorf("read RESULTS: %w", err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		return fmt.Errorf("read RESULTS: %w", err)
	}
	defer messages.Stop()
	for m.nextRead <= last {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("read RESULTS: %w", err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("read RESULTS: %w", err)
		}
		m.nextRead = meta.Sequence.Stream + 1
		m.store(msg)
		if meta.NumPending == 0 {
			break
		}
	}
	return nil
}

func (m *chaosMesh) store(msg jetstream.Msg) {
	job, err := subject.ParseResults(msg.Subject())
	if err != nil || msg.Headers().Get(v1.HeaderMarker) != "" {
		return // a marker of the NATS server in place of a deleted outcome
	}
	var r v1.Result
	if err := json.Unmarshal(msg.Data(), &r); err != nil {
		m.storeFaults = append(m.storeFaults, fmt.Sprintf("job %s: %v", job.ID, err))
		return
	}
	now := storedOutcome{status: r.Status}
	if r.Image != nil {
		now.sum = r.Image.SHA256
	}
	if before, ok := m.stored[job.ID]; ok {
		m.storeFaults = append(m.storeFaults,
			fmt.Sprintf("job %s was stored as %s, and then as %s", job.ID, before.status, now.status))
	}
	m.stored[job.ID] = now
}

// workStreams are the streams with messages of unfinished jobs, each with a
// function that parses the job from a subject.
var workStreams = map[string]func(string) (subject.Job, error){
	streams.Images:  subject.ParseImages,
	streams.Crops:   subject.ParseCrops,
	streams.Parts:   subject.ParseParts,
	streams.Fetches: subject.ParseFetches,
}

// isCalm returns nil when the mesh has no work left. Otherwise the error lists the
// messages of jobs without an outcome, and the consumers with messages that were
// not delivered or not acknowledged.
func (m *chaosMesh) isCalm() error {
	if err := m.readStored(); err != nil {
		return err
	}
	var left []error
	for name, parse := range workStreams {
		info, err := m.info(name)
		if err != nil {
			return err
		}
		for s := range info.State.Subjects {
			job, err := parse(s)
			if err != nil {
				return err
			}
			if _, ended := m.stored[job.ID]; !ended {
				left = append(left, fmt.Errorf("%s has %s, and the job has no outcome", name, s))
			}
		}
	}
	for _, name := range append(slices.Sorted(maps.Keys(workStreams)), streams.Results, streams.Reports) {
		ctx, cancel := context.WithTimeout(context.Background(), jetStreamTimeout)
		stream, err := m.js.Stream(ctx, name)
		if err != nil {
			cancel()
			return err
		}
		consumers := stream.ListConsumers(ctx)
		for c := range consumers.Info() {
			if c.NumAckPending > 0 || c.NumPending > 0 && c.Config.Durable != "" {
				left = append(left, fmt.Errorf("consumer %s of %s has %d messages to deliver and %d to be acknowledged",
					c.Name, name, c.NumPending, c.NumAckPending))
			}
		}
		err = consumers.Err()
		cancel()
		if err != nil {
			return fmt.Errorf("consumers of %s: %w", name, err)
		}
	}
	if len(left) > 10 {
		left = append(left[:10], fmt.Errorf("and %d more", len(left)-10))
	}
	return errors.Join(left...)
}

// warnings returns the last 40 warnings and errors of the services after the
// first from.
func (m *chaosMesh) warnings(from int) []string {
	all := m.log.matchingLines(warningLine)
	all = all[min(from, len(all)):]
	return slices.Clone(all[max(0, len(all)-40):])
}

var chaosHTTP = &http.Client{
	Timeout:   90 * time.Second,
	Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 30 * time.Second},
}
