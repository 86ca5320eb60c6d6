// Package bustest starts NATS servers with JetStream for tests, one or a cluster. The
// servers run in the process of the test, on random ports, and have the streams and
// consumers of a mesh. Services do not link it.
package bustest

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/streams"
)

// startTimeout limits the start of a server. It is long for a busy machine.
const startTimeout = time.Minute

// Server is a NATS server. It stops at the end of its test.
type Server struct {
	URL     string
	options *server.Options
	srv     *server.Server
}

// Start starts a server with the streams and consumers of the pipelines. Its files are
// in a temporary directory of the test.
func Start(t testing.TB, pipelines ...string) *Server {
	t.Helper()
	s := StartEmpty(t)
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
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

// StartEmpty starts a server without streams.
func StartEmpty(t testing.TB) *Server {
	t.Helper()
	return StartEmptyWith(t, func(*server.Options) {})
}

// StartEmptyWith starts a server without streams, after change has changed its
// options, for example to reject clients without a password.
func StartEmptyWith(t testing.TB, change func(*server.Options)) *Server {
	t.Helper()
	o := options(t, "test")
	change(o)
	s := run(t, o)
	s.awaitConnections(t)
	return s
}

// options returns the options of a server on a random port of 127.0.0.1, with its
// files in a temporary directory of the test.
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
	if !s.srv.ReadyForConnections(startTimeout) {
		t.Fatal("NATS server is not ready for connections")
	}
	s.URL = s.srv.ClientURL()
}

// Connect opens a connection that is closed at the end of the test.
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

// StopJetStream disables JetStream as the server itself does when its disk fails. The
// server continues without JetStream until it is restarted.
func (s *Server) StopJetStream(t testing.TB) {
	t.Helper()
	if err := s.srv.ShutdownJetStream(); err != nil {
		t.Fatalf("stop JetStream: %v", err)
	}
}

// Restart restarts the server with the same address and files.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.RestartWith(t, func(*server.Options) {})
}

// RestartWith restarts the server as [Server.Restart] does, after change has changed
// its options.
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

// ReceivedCount returns the number of messages that the server has received from its
// clients: every publish and every request counts as one.
func (s *Server) ReceivedCount(t testing.TB) int64 {
	t.Helper()
	v, err := s.srv.Varz(nil)
	if err != nil {
		t.Fatalf("read statistics of the server: %v", err)
	}
	return v.InMsgs
}

// Stop stops the server before the end of the test.
func (s *Server) Stop() {
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
}

// OnPublish calls f, in another goroutine, when the server has received n more messages on a subject, with those that
// it does not store.
func OnPublish(t testing.TB, nc *nats.Conn, subj string, n int64, f func()) {
	t.Helper()
	var received atomic.Int64
	sub, err := nc.Subscribe(subj, func(*nats.Msg) {
		if received.Add(1) == n {
			f()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Unsubscribe() }) // the connection may be closed
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
}
