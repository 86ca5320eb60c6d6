package up

import (
	"context"
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

// storeDir returns the folder of the streams of the broker in a data folder.
func storeDir(data string) string { return filepath.Join(data, "nats") }

// broker is a NATS server in this process. A restart keeps its address, so that its clients reconnect.
type broker struct {
	options server.Options
	log     *slog.Logger

	mu     sync.Mutex
	server *server.Server
	url    string
}

// startBroker starts a NATS server on addr, with a second listener for WebSockets if web has a port. Its streams are
// stored under dir and may reserve limit bytes.
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

// serverAddr splits an address into the host and the port of the server options. Port 0 becomes a random port.
func serverAddr(addr string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err //nolint:wrapcheck // the caller names the address
	}
	if port, err = strconv.Atoi(text); err != nil {
		return "", 0, fmt.Errorf("port %q is not a number", text)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}

// webSocketOptions returns the options of a listener for WebSockets on addr. Only web pages of the origins may
// connect. The origins have the form of --cors-origins: separated by commas; * allows all origins, and empty allows
// the origin of the listener only. An empty address disables WebSockets.
//
// The listener has no TLS and requires no credentials, so addr must be a loopback address.
func webSocketOptions(addr, origins string) (o server.WebsocketOpts, err error) {
	if addr == "" {
		return o, nil
	}
	if o.Host, o.Port, err = serverAddr(addr); err != nil {
		return o, exit.Usagef("nats-ws: %v", err)
	}
	if ip := net.ParseIP(o.Host); o.Host != "localhost" && !ip.IsLoopback() {
		return o, exit.Usagef("nats-ws: %s is not a loopback address; use a loopback address behind a proxy with TLS",
			addr)
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

// start starts the server. The first start chooses the random ports; later starts use the same ports.
func (b *broker) start() error {
	options := b.options // a copy, because the server changes it
	s, err := server.NewServer(&options)
	if err != nil {
		return fmt.Errorf("create NATS server: %w", err)
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
		case message := <-l.fatal:
			return fmt.Errorf("start NATS server: %s", message)
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

// stop stops the server and waits for its end.
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

// clientURL returns the URL for clients. A restart does not change it.
func (b *broker) clientURL() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.url
}

// webSocketURL returns the URL for WebSockets, or "" when they are disabled. A restart does not change it.
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

// brokerLog forwards the log of the server. It keeps a fatal error, which does not end the process.
type brokerLog struct {
	log   *slog.Logger
	fatal chan string // the first fatal error; it has room for one
}

func (l *brokerLog) Noticef(f string, a ...any) { l.log.Debug(fmt.Sprintf(f, a...)) }
func (l *brokerLog) Errorf(f string, a ...any)  { l.log.Error(fmt.Sprintf(f, a...)) }
func (l *brokerLog) Debugf(string, ...any)      {}
func (l *brokerLog) Tracef(string, ...any)      {}

// Warnf logs a warning. The warning of each start about MaxPayload has the level debug, because the mesh needs 64 KiB
// more than the 8 MiB up to which the server does not warn.
func (l *brokerLog) Warnf(f string, a ...any) {
	level := slog.LevelWarn
	if strings.HasPrefix(f, "Maximum payloads over ") {
		level = slog.LevelDebug
	}
	l.log.Log(context.Background(), level, fmt.Sprintf(f, a...))
}

func (l *brokerLog) Fatalf(f string, a ...any) {
	message := fmt.Sprintf(f, a...)
	l.log.Error(message)
	select {
	case l.fatal <- message:
	default:
	}
}
