package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/tools/internal/up"
)

// nodeVariable names the environment variable that makes this program a NATS
// server. Its value is a nodeConfig in JSON.
const nodeVariable = "SIGHTMESH_E2E_NODE"

func TestMain(m *testing.M) {
	if config := os.Getenv(nodeVariable); config != "" {
		if err := runNode(config); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

type nodeConfig struct {
	Name string
	// Client, Route and Monitor are listen addresses.
	Client, Route, Monitor string
	// Routes has the route address of every node of the cluster. It is empty
	// for a single server.
	Routes []string
	Folder string
}

// runNode runs a NATS server until SIGTERM, which the server handles itself.
func runNode(config string) error {
	var c nodeConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	o := &server.Options{
		ServerName: c.Name, JetStream: true, StoreDir: c.Folder, JetStreamMaxMemory: 256 << 20, JetStreamMaxStore: 16 << 30,
		MaxPayload: streams.MaxMessage + streams.HeaderAllowance, DisableJetStreamBanner: true,
	}
	type address struct {
		from string
		host *string
		port *int
	}
	addresses := []address{{c.Client, &o.Host, &o.Port}, {c.Monitor, &o.HTTPHost, &o.HTTPPort}}
	if len(c.Routes) > 0 {
		// Clients get all addresses as arguments. Some use addresses of proxies,
		// and would bypass them with an advertised address.
		o.Cluster.Name, o.Cluster.NoAdvertise = "e2e", true
		addresses = append(addresses, address{c.Route, &o.Cluster.Host, &o.Cluster.Port})
	}
	for _, a := range addresses {
		host, port, err := net.SplitHostPort(a.from)
		if err != nil {
			return err
		}
		if *a.port, err = strconv.Atoi(port); err != nil {
			return err
		}
		*a.host = host
	}
	for _, r := range c.Routes {
		o.Routes = append(o.Routes, &url.URL{Scheme: "nats", Host: r})
	}
	s, err := server.NewServer(o)
	if err != nil {
		return fmt.Errorf("create the NATS server: %w", err)
	}
	s.ConfigureLogger()
	s.Start()
	s.WaitForShutdown()
	return nil
}

// A node is one NATS server of a cluster, in its own process. After Kill, Start
// starts it again on the same addresses and the same folder.
type node struct {
	config nodeConfig
	log    *lines   // log of all its processes
	server *process // nil when the server does not run
}

// url returns the URL for clients.
func (n *node) url() string { return "nats://" + n.config.Client }

// Start starts the server and waits until it accepts clients. It does nothing
// when the server runs.
func (n *node) Start(t testing.TB) {
	t.Helper()
	if n.server != nil {
		return
	}
	config, err := json.Marshal(n.config)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(up.Environ(), nodeVariable+"="+string(config))
	cmd.Stderr = n.log.writer()
	if n.server, err = startProcess(cmd); err != nil {
		t.Fatal(err)
	}
	eventually.Succeeds(t, responseTimeout, func() error {
		select {
		case <-n.server.done:
			t.Fatalf("NATS server %s ended: %v\n%s", n.config.Name, n.server.err, n.log)
		default:
		}
		nc, err := nats.Connect(n.url())
		if err != nil {
			return fmt.Errorf("connect to NATS server %s: %w", n.config.Name, err)
		}
		nc.Close()
		return nil
	})
}

// Kill sends SIGKILL to the server and waits for its end. It does nothing when
// the server does not run.
func (n *node) Kill(t testing.TB) {
	t.Helper()
	if n.server != nil {
		n.server.kill(t)
		n.server = nil
	}
}

// awaitHealthy waits until the cluster has a leader and every stream and
// consumer on the node is current.
func (n *node) awaitHealthy(t testing.TB) {
	t.Helper()
	eventually.Succeeds(t, responseTimeout, func() error {
		res, err := http.Get("http://" + n.config.Monitor + "/healthz")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("NATS server %s is not healthy: %s", n.config.Name, res.Status)
		}
		return nil
	})
}

// cluster is a cluster of NATS servers. The servers are killed when the test ends.
type cluster []*node

// startCluster starts servers with routes between them and empty folders, and
// waits until they have a leader.
func startCluster(t testing.TB, servers int) cluster {
	t.Helper()
	c := newCluster(t, servers)
	c.start(t)
	return c
}

// newCluster returns servers that do not run yet and have empty folders. Several
// servers have routes between them.
func newCluster(t testing.TB, servers int) cluster {
	t.Helper()
	addresses := freeAddresses(t, loopback(), 3*servers)
	routes, clients, monitors := addresses[:servers], addresses[servers:2*servers], addresses[2*servers:]
	var c cluster
	for i := range servers {
		n := &node{log: newLines(), config: nodeConfig{
			Name: fmt.Sprint("node-", i+1), Client: clients[i], Route: routes[i], Monitor: monitors[i], Folder: t.TempDir(),
		}}
		if servers > 1 {
			n.config.Routes = routes
		}
		t.Cleanup(func() { n.Kill(t) })
		c = append(c, n)
	}
	return c
}

// start starts the nodes that do not run and waits until all are healthy.
func (c cluster) start(t testing.TB) {
	t.Helper()
	for _, n := range c {
		n.Start(t)
	}
	c.awaitHealthy(t)
}

func (c cluster) awaitHealthy(t testing.TB) {
	t.Helper()
	for _, n := range c {
		n.awaitHealthy(t)
	}
}

// url returns the URLs of all nodes, separated by commas.
func (c cluster) url() string {
	var urls []string
	for _, n := range c {
		urls = append(urls, n.url())
	}
	return strings.Join(urls, ",")
}

// loopback returns an address of the loopback network that other processes are
// unlikely to use, so that a free port on it stays free. On 127.0.0.1 the system
// also uses free ports for outgoing connections.
func loopback() string {
	return net.IPv4(127, byte(1+rand.N(254)), byte(rand.N(255)), byte(1+rand.N(254))).String()
}

// freeAddresses returns n addresses of host, each with a free port.
func freeAddresses(t testing.TB, host string, n int) []string {
	t.Helper()
	var all []string
	for range n {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // closed at the end, so that all ports differ
		all = append(all, l.Addr().String())
	}
	return all
}

// clusterRunner runs the services on a cluster. It creates the streams with a
// replica on each server, starts the binaries and restarts them when they end.
type clusterRunner struct {
	cluster   cluster
	instances int // instances of every service
	lanes     int // lanes of every worker
	running   []*supervised
	log       *lines
}

// startOn starts a mesh on a cluster.
func startOn(t testing.TB, c cluster, instances, lanes int, env []string) *mesh {
	t.Helper()
	return startMesh(t, &clusterRunner{cluster: c, instances: instances, lanes: lanes}, env)
}

func (r *clusterRunner) start(t testing.TB, m *mesh) {
	t.Helper()
	r.cluster.start(t)
	m.nats, r.log = r.cluster.url(), m.stderr
	setup := exec.Command(binary(t, "sightmesh"), "setup", "--nats", m.nats, "--replicas", strconv.Itoa(len(r.cluster)))
	if out, err := setup.CombinedOutput(); err != nil {
		t.Fatalf("set up: %v\n%s", err, out)
	}
	r.cluster.awaitHealthy(t)
	for _, name := range services {
		args := []string{"--nats", m.nats, "--admin", "127.0.0.1:0"}
		switch name {
		case "ingress":
			args = append(args, "--http", "127.0.0.1:0", "--old-routes")
		case "detect", "classify":
			args = append(args, "--lanes", strconv.Itoa(r.lanes))
		}
		for range r.instances {
			r.running = append(r.running, supervise(name, binary(t, name), args, m.env, m.stderr))
		}
	}
	m.http = nil
	for _, s := range r.running {
		eventually.Succeeds(t, 90*time.Second, s.ready)
		if addr := s.http(); addr != "" {
			m.http = append(m.http, "http://"+addr)
		}
	}
}

func (r *clusterRunner) stop(t testing.TB) {
	t.Helper()
	for _, s := range r.running {
		if err := s.stop(t); err != nil {
			t.Errorf("%s ended with %v:\n%s", s.name, err, strings.Join(r.log.matchingLines(warningLine), "\n"))
		}
	}
	r.running = nil
}

func (r *clusterRunner) kill(t testing.TB) {
	t.Helper()
	for _, s := range r.running {
		s.kill(t)
	}
	r.running = nil
	for _, n := range r.cluster {
		n.Kill(t)
	}
}

func (r *clusterRunner) pids(_ testing.TB, service string) []int {
	var out []int
	for _, s := range r.running {
		if pid := s.pid(); s.name == service && pid != 0 {
			out = append(out, pid)
		}
	}
	return out
}
