package up

import (
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/tools/internal/exit"
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

// startBroker runs a NATS server on addr and for WebSockets, its streams under dir,
// which may reserve limit bytes.
func startBroker(
	addr string, web server.WebsocketOpts, dir string, limit int64, log *slog.Logger,
) (*broker, error) {
	host, port, err := serverAddr(addr)
	if err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	b := &broker{log: log, options: server.Options{
		ServerName: "sightmesh", Host: host, Port: port,
		JetStream: true, StoreDir: storeDir(dir), JetStreamMaxMemory: 256 << 20, JetStreamMaxStore: limit,
		MaxPayload: streams.MaxMessage + streams.HeaderAllowance,
		Websocket:  web,
		NoSigs:     true, DisableJetStreamBanner: true,
	}}
	if err := b.start(); err != nil {
		return nil, err
	}
	return b, nil
}

// serverAddr returns an address as the options of a server have it.
func serverAddr(addr string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err //nolint:wrapcheck // the caller says which address it is
	}
	if port, err = strconv.Atoi(text); err != nil {
		return "", 0, fmt.Errorf("port %q is not a number", text)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}

// webSocketOptions returns the options of WebSockets on addr for web pages of these
// origins, which are as of ingress: separated by commas, * for all, and none for only
// those of the same origin. An empty address is for no WebSockets.
//
// There is no TLS, and the server requires no credentials: addr has to be on the
// loopback interface.
func webSocketOptions(addr, origins string) (o server.WebsocketOpts, err error) {
	if addr == "" {
		return o, nil
	}
	if o.Host, o.Port, err = serverAddr(addr); err != nil {
		return o, exit.Usagef("nats-ws: %v", err)
	}
	if ip := net.ParseIP(o.Host); o.Host != "localhost" && !ip.IsLoopback() {
		return o, exit.Usagef("nats-ws: %s is not a loopback address; put a proxy with TLS before one", addr)
	}
	o.NoTLS = true
	o.AllowedOrigins = strings.FieldsFunc(origins, func(r rune) bool { return r == ',' || r == ' ' })
	switch all := slices.Contains(o.AllowedOrigins, "*"); {
	case all && len(o.AllowedOrigins) > 1:
		return o, exit.Usagef("cors-origins: * allows all origins, and cannot be combined with others")
	case all:
		o.AllowedOrigins = nil
	default:
		o.SameOrigin = len(o.AllowedOrigins) == 0
	}
	return o, nil
}

// start starts the server. The first start fixes the ports.
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
	b.options.Websocket.Port = options.Websocket.Port
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

// webSocketURL returns where WebSockets connect, or "" without any. It stays the same.
func (b *broker) webSocketURL() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.options.Websocket.Port == 0 {
		return ""
	}
	return "ws://" + net.JoinHostPort(b.options.Websocket.Host, strconv.Itoa(b.options.Websocket.Port))
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
