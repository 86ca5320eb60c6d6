package up

import (
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/sightmesh/sightmesh/contracts/streams"
)

// storeDir is where the broker keeps its streams in a data folder.
func storeDir(data string) string { return filepath.Join(data, "nats") }

// broker is a NATS server in this process. It can be started again in place:
// its clients reconnect to the same address.
type broker struct {
	options server.Options
	log     *slog.Logger

	mu     sync.Mutex
	server *server.Server
	url    string
}

// startBroker runs a NATS server, its streams under dir, which may reserve
// limit bytes.
func startBroker(addr, dir string, limit int64, log *slog.Logger) (*broker, error) {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, fmt.Errorf("nats: port %q is not a number", portText)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	b := &broker{log: log, options: server.Options{
		ServerName: "sightmesh", Host: host, Port: port,
		JetStream: true, StoreDir: storeDir(dir), JetStreamMaxMemory: 256 << 20, JetStreamMaxStore: limit,
		MaxPayload: streams.MaxMessage + streams.HeaderAllowance,
		NoSigs:     true, DisableJetStreamBanner: true,
	}}
	if err := b.start(); err != nil {
		return nil, err
	}
	return b, nil
}

// start starts the server. The first start fixes the port.
func (b *broker) start() error {
	options := b.options // the server writes into its own
	s, err := server.NewServer(&options)
	if err != nil {
		return fmt.Errorf("make NATS server: %w", err)
	}
	l := &brokerLog{log: b.log, fatal: make(chan string, 1)}
	s.SetLoggerV2(l, false, false, false)
	s.Start()
	const attempts, each = 200, 50 * time.Millisecond
	ready := false
	for i := 0; !ready && i < attempts && len(l.fatal) == 0; i++ {
		ready = s.ReadyForConnections(each)
	}
	if !ready {
		s.Shutdown()
		s.WaitForShutdown()
		select {
		case why := <-l.fatal:
			return fmt.Errorf("start NATS server: %s", why)
		default:
			return fmt.Errorf("start NATS server: not ready after %v", attempts*each)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.server, b.url = s, s.ClientURL()
	b.options.Port = s.Addr().(*net.TCPAddr).Port
	return nil
}

// stop stops the server and waits for it.
func (b *broker) stop() {
	s := b.current()
	s.Shutdown()
	s.WaitForShutdown()
}

// restart stops the server and starts it again on the same address.
func (b *broker) restart() error {
	b.stop()
	return b.start()
}

// current returns the server of the last successful start.
func (b *broker) current() *server.Server {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.server
}

// clientURL returns where clients connect. It stays the same.
func (b *broker) clientURL() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.url
}

// addr returns the address of the server.
func (b *broker) addr() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return net.JoinHostPort(b.options.Host, strconv.Itoa(b.options.Port))
}

// brokerLog passes on what the server says. The server does not end the
// process it is embedded in; what it would have ended for is kept.
type brokerLog struct {
	log   *slog.Logger
	fatal chan string
}

func (l *brokerLog) Noticef(f string, a ...any) { l.log.Debug(fmt.Sprintf(f, a...)) }
func (l *brokerLog) Warnf(f string, a ...any)   { l.log.Warn(fmt.Sprintf(f, a...)) }
func (l *brokerLog) Errorf(f string, a ...any)  { l.log.Error(fmt.Sprintf(f, a...)) }
func (l *brokerLog) Debugf(string, ...any)      {}
func (l *brokerLog) Tracef(string, ...any)      {}
func (l *brokerLog) Fatalf(f string, a ...any) {
	why := fmt.Sprintf(f, a...)
	l.log.Error(why)
	select {
	case l.fatal <- why:
	default:
	}
}
