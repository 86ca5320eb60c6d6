package bustest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/streams"
)

// Cluster is a cluster of NATS servers. Every stream has a replica on each server. The
// servers stop at the end of the test.
type Cluster struct {
	Servers []*Server
	// URL lists the addresses of all servers, separated by commas.
	URL string
}

// clusterTimeout only ends tests that would hang. An election takes 4 to 9 s when the
// first candidate does not win.
const clusterTimeout = 5 * time.Minute

// StartCluster starts a cluster of 1, 3 or 5 servers with the streams and consumers of
// the pipelines, each with one replica per server. It returns when every stream and
// consumer has a leader and all replicas are current.
func StartCluster(t testing.TB, servers int, pipelines ...string) *Cluster {
	t.Helper()
	c := &Cluster{}
	host := loopback()
	routes := freeRoutes(t, host, servers)
	for i, route := range routes {
		o := options(t, fmt.Sprint("test-", i))
		o.Host = host
		if servers > 1 {
			o.Routes = routes
			o.Cluster = clusterOptions(t, route)
		}
		c.Servers = append(c.Servers, run(t, o))
	}
	var urls []string
	for _, s := range c.Servers {
		s.awaitConnections(t)
		urls = append(urls, s.URL)
	}
	c.URL = strings.Join(urls, ",")
	c.setUp(t, streams.Config{Pipelines: pipelines, Replicas: servers})
	return c
}

func clusterOptions(t testing.TB, route *url.URL) server.ClusterOpts {
	t.Helper()
	addr, err := net.ResolveTCPAddr("tcp", route.Host)
	if err != nil {
		t.Fatalf("resolve %s: %v", route.Host, err)
	}
	return server.ClusterOpts{Name: "test", Host: addr.IP.String(), Port: addr.Port}
}

// loopback returns an address of the loopback network that other processes are
// unlikely to use, so that a free port on it stays free. On 127.0.0.1 the system
// assigns ports to outgoing connections.
func loopback() string {
	ip := net.IPv4(127, byte(1+rand.N(254)), byte(rand.N(255)), byte(1+rand.N(254))) //nolint:gosec // not a secret
	return ip.String()
}

// freeRoutes returns n addresses of host, each with a free port.
func freeRoutes(t testing.TB, host string, n int) []*url.URL {
	t.Helper()
	var routes []*url.URL
	for range n {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatalf("find a free port: %v", err)
		}
		defer l.Close() //nolint:errcheck // not before all are found, so that they differ
		routes = append(routes, &url.URL{Scheme: "nats", Host: l.Addr().String()})
	}
	return routes
}

// setUp creates the streams and consumers, and waits for their leaders.
func (c *Cluster) setUp(t testing.TB, cfg streams.Config) {
	t.Helper()
	js, err := jetstream.New(c.Servers[0].Connect(t))
	if err != nil {
		t.Fatalf("open JetStream: %v", err)
	}
	eventually.Succeeds(t, clusterTimeout, c.checkLeader)
	eventually.Succeeds(t, clusterTimeout, func() error {
		if err := streams.Ensure(t.Context(), js, cfg); err != nil {
			return fmt.Errorf("set up: %w", err)
		}
		return nil
	})
	for _, want := range streams.Streams(cfg) {
		await(t, "read stream "+want.Name, func(ctx context.Context) error {
			s, err := js.Stream(ctx, want.Name)
			if err != nil {
				return err
			}
			return checkReplicas(s.CachedInfo().Cluster, cfg.Replicas)
		})
	}
	for _, want := range streams.Consumers(cfg) {
		await(t, "read consumer "+want.Config.Durable, func(ctx context.Context) error {
			c, err := js.Consumer(ctx, want.Stream, want.Config.Durable)
			if err != nil {
				return err
			}
			return checkReplicas(c.CachedInfo().Cluster, cfg.Replicas)
		})
	}
}

// checkLeader returns an error until the servers have a leader. Without one
// they do not reply to requests to create a stream.
func (c *Cluster) checkLeader() error {
	if len(c.Servers) == 1 {
		return nil
	}
	leaders := 0
	for _, s := range c.Servers {
		if !s.srv.JetStreamIsCurrent() {
			return fmt.Errorf("server %s is not current", s.srv.Name())
		}
		if s.srv.JetStreamIsLeader() {
			leaders++
		}
	}
	if leaders != 1 {
		return fmt.Errorf("%d servers lead, want 1", leaders)
	}
	return nil
}

// checkReplicas returns an error until a stream or consumer has a leader and
// as many replicas, all of them current.
func checkReplicas(info *jetstream.ClusterInfo, replicas int) error {
	switch {
	case replicas <= 1:
		return nil
	case info == nil || info.Leader == "":
		return errors.New("no leader")
	case len(info.Replicas) != replicas-1:
		return fmt.Errorf("%d followers, want %d", len(info.Replicas), replicas-1)
	}
	for _, r := range info.Replicas {
		if !r.Current || r.Offline {
			return fmt.Errorf("follower %s is not current", r.Name)
		}
	}
	return nil
}

// await calls f until it returns nil. A server without a leader may not reply
// at all, so each call has a time limit.
func await(t testing.TB, what string, f func(context.Context) error) {
	t.Helper()
	eventually.Succeeds(t, clusterTimeout, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := f(ctx); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	})
}
