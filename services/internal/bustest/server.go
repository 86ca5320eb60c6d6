// Package bustest gives tests real NATS servers with JetStream, in the process
// and on random ports, set up as a mesh is: one, or a cluster. Nothing here is
// linked into a service.
package bustest

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/streams"
)

// Server is a NATS server that ends with its test.
type Server struct {
	URL     string
	options *server.Options
	srv     *server.Server
}

// Start runs a server with the streams and consumers of the pipelines, files
// in a folder of the test.
func Start(t testing.TB, pipelines ...string) *Server {
	t.Helper()
	s := StartEmpty(t)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	js, err := jetstream.New(s.Connect(t))
	if err != nil {
		t.Fatalf("open JetStream: %v", err)
	}
	if err := streams.Ensure(ctx, js, streams.Config{Pipelines: pipelines}); err != nil {
		t.Fatalf("set up: %v", err)
	}
	return s
}

// StartEmpty runs a server with nothing set up.
func StartEmpty(t testing.TB) *Server {
	t.Helper()
	return StartEmptyWith(t, func(*server.Options) {})
}

// StartEmptyWith runs a server with nothing set up, whose options change
// changes, such as to reject clients without a password.
func StartEmptyWith(t testing.TB, change func(*server.Options)) *Server {
	t.Helper()
	o := options(t, "test")
	change(o)
	s := run(t, o)
	s.awaitConnections(t)
	return s
}

// options returns the options of a server on a random port of 127.0.0.1, with
// its files in a folder of the test.
func options(t testing.TB, name string) *server.Options {
	t.Helper()
	return &server.Options{
		ServerName: name, Host: "127.0.0.1", Port: server.RANDOM_PORT,
		JetStream: true, StoreDir: t.TempDir(), JetStreamMaxMemory: 1 << 30, JetStreamMaxStore: 16 << 30,
		MaxPayload: streams.MaxMessage + streams.HeaderAllowance,
		NoSigs:     true, NoLog: true, DisableJetStreamBanner: true,
	}
}

// run starts a server, which may not be ready yet.
func run(t testing.TB, o *server.Options) *Server {
	t.Helper()
	s := &Server{options: o, srv: start(t, o)}
	t.Cleanup(s.Stop)
	return s
}

func start(t testing.TB, o *server.Options) *server.Server {
	t.Helper()
	srv, err := server.NewServer(o.Clone()) // the server changes its options
	if err != nil {
		t.Fatalf("make NATS server: %v", err)
	}
	srv.Start()
	return srv
}

// awaitConnections waits until the server accepts connections, and sets its
// URL.
func (s *Server) awaitConnections(t testing.TB) {
	t.Helper()
	if !s.srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("NATS server is not ready for connections")
	}
	s.URL = s.srv.ClientURL()
}

// Connect opens a connection that ends with the test.
func (s *Server) Connect(t testing.TB) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(s.URL)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() {
		closed := make(chan struct{})
		nc.SetClosedHandler(func(*nats.Conn) { close(closed) })
		nc.Close()
		<-closed
	})
	return nc
}

// StopJetStream ends JetStream as the server itself does when its disk fails.
// The server goes on without it until it is restarted.
func (s *Server) StopJetStream(t testing.TB) {
	t.Helper()
	if err := s.srv.ShutdownJetStream(); err != nil {
		t.Fatalf("stop JetStream: %v", err)
	}
}

// Restart runs the server again, on the same address and with the same files.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.RestartWith(t, func(*server.Options) {})
}

// RestartWith is [Server.Restart] with options that change changes.
func (s *Server) RestartWith(t testing.TB, change func(*server.Options)) {
	t.Helper()
	addr, ok := s.srv.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("restart: the server listens on %v", s.srv.Addr())
	}
	s.Stop()
	s.options.Port = addr.Port
	change(s.options)
	s.srv = start(t, s.options)
	s.awaitConnections(t)
}

// Received returns how many messages the server has received from its clients:
// every publish and every request is one.
func (s *Server) Received(t testing.TB) int64 {
	t.Helper()
	v, err := s.srv.Varz(nil)
	if err != nil {
		t.Fatalf("read statistics of the server: %v", err)
	}
	return v.InMsgs
}

// Stop shuts the server down before the test ends, to show what its clients
// do without it.
func (s *Server) Stop() {
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
}
