package up

import (
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/sightmesh/sightmesh/contracts/streams"
)

// maxStore is what JetStream may reserve on disk: enough for every stream.
const maxStore = 16 << 30

// startBroker runs a NATS server in this process, its streams under dir.
func startBroker(addr, dir string, log *slog.Logger) (*server.Server, error) {
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
	s, err := server.NewServer(&server.Options{
		ServerName: "sightmesh", Host: host, Port: port,
		JetStream: true, StoreDir: filepath.Join(dir, "nats"), JetStreamMaxMemory: 256 << 20, JetStreamMaxStore: maxStore,
		MaxPayload: streams.MaxMessage + streams.HeaderAllowance,
		NoSigs:     true, DisableJetStreamBanner: true,
	})
	if err != nil {
		return nil, fmt.Errorf("make NATS server: %w", err)
	}
	l := &brokerLog{log: log, fatal: make(chan string, 1)}
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
			return nil, fmt.Errorf("start NATS server: %s", why)
		default:
			return nil, fmt.Errorf("start NATS server: not ready after %v", attempts*each)
		}
	}
	return s, nil
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
