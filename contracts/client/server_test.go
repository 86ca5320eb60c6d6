package client_test

import (
	"context"
	"encoding/json"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/sightmesh/sightmesh/contracts/client"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testTimeout only ends tests that would hang.
const testTimeout = time.Minute

// startServer starts a NATS server with JetStream and without streams, which ends
// with the test, and returns its URL.
func startServer(t *testing.T) string {
	t.Helper()
	srv, err := server.NewServer(&server.Options{
		ServerName: "test", Host: "127.0.0.1", Port: server.RANDOM_PORT,
		JetStream: true, StoreDir: t.TempDir(), JetStreamMaxMemory: 1 << 30, JetStreamMaxStore: 16 << 30,
		MaxPayload: streams.MaxMessage + streams.HeaderAllowance,
		NoSigs:     true, NoLog: true, DisableJetStreamBanner: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	if !srv.ReadyForConnections(testTimeout) {
		t.Fatal("the NATS server is not ready for connections")
	}
	return srv.ClientURL()
}

// startMesh starts a NATS server with the streams of a mesh with the pipeline text.
func startMesh(t *testing.T) string {
	t.Helper()
	url := startServer(t)
	js, err := jetstream.New(connect(t, url))
	if err != nil {
		t.Fatal(err)
	}
	if err := streams.Ensure(t.Context(), js, streams.Config{Pipelines: []string{"text"}}); err != nil {
		t.Fatal(err)
	}
	return url
}

// connect returns a connection that is closed when the test ends.
func connect(t *testing.T, url string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	nc.SetClosedHandler(func(*nats.Conn) { close(closed) })
	t.Cleanup(func() {
		nc.Close()
		<-closed
	})
	return nc
}

// newClient returns a client of the server at url.
func newClient(t *testing.T, url string, opts ...nats.Option) *client.Client {
	t.Helper()
	c, err := client.New(connect(t, url, opts...))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// subscribe returns the messages that are published on a subject from now on.
func subscribe(t *testing.T, url, subj string) (received <-chan *nats.Msg, nc *nats.Conn) {
	t.Helper()
	nc, messages := connect(t, url), make(chan *nats.Msg, 64)
	if _, err := nc.ChanSubscribe(subj, messages); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return messages, nc
}

// receive returns the next message of a subscription.
func receive(t *testing.T, messages <-chan *nats.Msg) *nats.Msg {
	t.Helper()
	select {
	case m := <-messages:
		return m
	case <-time.After(testTimeout):
		t.Fatal("no message was received")
		return nil
	}
}

// serve replies to the requests on a subject, to the first one with the first reply,
// and to those after the last reply with that one. It returns the requests.
func serve(t *testing.T, url, subj string, replies ...*nats.Msg) (requests <-chan *nats.Msg) {
	t.Helper()
	nc, received := connect(t, url), make(chan *nats.Msg, 64)
	n := 0 // of the requests; one goroutine runs the function
	if _, err := nc.Subscribe(subj, func(m *nats.Msg) {
		received <- m
		reply := replies[min(n, len(replies)-1)]
		n++
		if err := m.RespondMsg(&nats.Msg{Header: reply.Header, Data: reply.Data}); err != nil {
			t.Errorf("reply on %s: %v", subj, err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return received
}

// reply returns a reply with a JSON body.
func reply(t *testing.T, body any) *nats.Msg {
	t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return &nats.Msg{Header: nats.Header{}, Data: data}
}

// problemReply returns a reply with a problem, as a NATS service sends it.
func problemReply(t *testing.T, p *v1.Problem, retryAfter string) *nats.Msg {
	t.Helper()
	m := reply(t, p)
	m.Header.Set("Nats-Service-Error-Code", "503")
	if retryAfter != "" {
		m.Header.Set("Retry-After", retryAfter)
	}
	return m
}

// lossyDialer connects to NATS. Its connections can lose what the server sends, so
// that no reply and no acknowledgement arrives.
type lossyDialer struct {
	mu    sync.Mutex
	conns []*lossyConn
}

// lossyConn is a connection of a [lossyDialer].
type lossyConn struct {
	net.Conn
	isLossy atomic.Bool
}

// Dial implements [nats.CustomDialer].
func (d *lossyDialer) Dial(network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: testTimeout}).DialContext(context.Background(), network, address)
	if err != nil {
		return nil, err
	}
	c := &lossyConn{Conn: conn}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conns = append(d.conns, c)
	return c, nil
}

// Read implements [net.Conn]. It does not return what is lost.
func (c *lossyConn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.isLossy.Load() {
			return n, err
		}
	}
}

// loseReplies discards everything that the server sends on the present connections.
func (d *lossyDialer) loseReplies() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.conns {
		c.isLossy.Store(true)
	}
}

// closeConns closes the present connections. The client connects again.
func (d *lossyDialer) closeConns() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.conns {
		_ = c.Close() // the client may have closed it
	}
	d.conns = nil
}

// newLossyClient returns a client whose replies can be lost.
func newLossyClient(t *testing.T, url string) (*client.Client, *lossyDialer) {
	t.Helper()
	d := &lossyDialer{}
	return newClient(t, url, nats.SetCustomDialer(d), nats.ReconnectWait(10*time.Millisecond)), d
}

// images returns the stream IMAGES as it is now.
func images(t *testing.T, url string) (jetstream.JetStream, jetstream.Stream) {
	t.Helper()
	js, err := jetstream.New(connect(t, url))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), streams.Images)
	if err != nil {
		t.Fatal(err)
	}
	return js, stream
}

// checkOneJob checks that IMAGES has one message, which is the image of this job.
func checkOneJob(t *testing.T, url, id string) *jetstream.RawStreamMsg {
	t.Helper()
	_, stream := images(t, url)
	if n := stream.CachedInfo().State.Msgs; n != 1 {
		t.Errorf("%d images are stored, want 1", n)
	}
	job := subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: id}
	m, err := stream.GetLastMsgForSubject(t.Context(), subject.Images(job))
	if err != nil {
		t.Fatalf("the image of job %q: %v", id, err)
	}
	return m
}
