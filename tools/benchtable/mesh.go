package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sightmesh/sightmesh/contracts/connection"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/tools/internal/setup"
	"github.com/sightmesh/sightmesh/tools/internal/up"
)

// programs is the folder of the measured binaries.
type programs struct{ dir string }

func (p programs) path(name string) string { return filepath.Join(p.dir, name) }

// process is a child process.
type process struct {
	cmd  *exec.Cmd
	addr map[string]string // logged addresses, by name
}

func newProcess(env []string, name string, args ...string) *process {
	p := &process{cmd: exec.Command(name, args...), addr: map[string]string{}}
	p.cmd.Env = append(up.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return p
}

// run starts the process and waits until it has logged its addresses with these
// names.
func (p *process) run(names ...string) error {
	r, w := io.Pipe()
	p.cmd.Stderr = w
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.cmd.Path, err)
	}
	lines := make(chan string)
	go func() { // the output ends with the process
		s := bufio.NewScanner(r)
		for s.Scan() {
			select {
			case lines <- s.Text():
			default: // the receiver has stopped
			}
		}
	}()
	timeout := time.After(30 * time.Second)
	for len(p.addr) < len(names) {
		select {
		case line := <-lines:
			if l, ok := v1.ParseListening([]byte(line)); ok {
				p.addr[l.Name] = l.Addr
			}
		case <-timeout:
			return fmt.Errorf("start %s: it does not log its address", p.cmd.Path)
		}
	}
	return nil
}

func (p *process) stop() {
	if p.cmd.Process == nil {
		return
	}
	p.cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended
	p.cmd.Wait()                          //nolint:errcheck // the exit status does not matter
}

// mesh is a set of NATS servers and services, each in its own process.
type mesh struct {
	processes []*process
	nats      string
	http      string
}

type meshConfig struct {
	servers   int // 1, or 3 for a cluster
	replicas  int // number of each service
	lanes     int // number of lanes of each worker
	pipelines string
	models    string // folder; empty means a folder that does not exist
	env       []string
}

func startMesh(ctx context.Context, bin programs, dir string, cfg meshConfig) (_ *mesh, err error) {
	m := &mesh{}
	defer func() {
		if err != nil {
			m.stop()
		}
	}()
	if err := m.startServers(bin, dir, cfg.servers); err != nil {
		return nil, err
	}
	if err := setup.Run(ctx, setup.Config{
		NATS: connection.Config{URL: m.nats}, Pipelines: cfg.pipelines,
		Replicas: cfg.servers, Storage: "file", Wait: time.Minute,
	}, io.Discard); err != nil {
		return nil, err
	}
	var ready []string
	for range cfg.replicas {
		for _, s := range []string{"ingress", "detect", "classify", "results"} {
			args := []string{"--nats", m.nats, "--pipelines", cfg.pipelines, "--log-level", "info"}
			names := []string{"admin"}
			switch s {
			case "ingress":
				args = append(args, "--http", "127.0.0.1:0", "--max-queue", "1h")
				names = append(names, "http")
			case "detect", "classify":
				args = append(args, "--lanes", strconv.Itoa(cfg.lanes), "--models", cfg.models)
			}
			p := newProcess(cfg.env, bin.path(s), args...)
			m.processes = append(m.processes, p)
			if err := p.run(names...); err != nil {
				return nil, err
			}
			ready = append(ready, "http://"+p.addr["admin"]+"/readyz")
			if s == "ingress" {
				m.http = "http://" + p.addr["http"]
			}
		}
	}
	return m, awaitReady(ctx, ready...)
}

// awaitReady waits until each of the URLs responds with status 200.
func awaitReady(ctx context.Context, urls ...string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, url := range urls {
		for {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err != nil {
				return fmt.Errorf("wait for services: %w", err)
			}
			res, err := http.DefaultClient.Do(req)
			if err == nil {
				res.Body.Close()
				if res.StatusCode == http.StatusOK {
					break
				}
			}
			if ctx.Err() != nil {
				return fmt.Errorf("wait for services: %s: not ready after a minute", url)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}

// startServers runs NATS servers with files for storage.
func (m *mesh) startServers(bin programs, dir string, n int) error {
	ports, err := freePorts(2 * n)
	if err != nil {
		return err
	}
	var routes, urls []string
	for i := range n {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", ports[n+i]))
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", ports[i]))
	}
	for i := range n {
		conf := fmt.Sprintf(`server_name: n%d
listen: 127.0.0.1:%d
max_payload: 8454144
jetstream { store_dir: %q, max_file_store: 16GB }
`, i, ports[i], filepath.Join(dir, strconv.Itoa(i)))
		if n > 1 {
			conf += fmt.Sprintf("cluster { name: bench, listen: 127.0.0.1:%d, routes: [%s] }\n",
				ports[n+i], strings.Join(routes, ", "))
		}
		file := filepath.Join(dir, fmt.Sprintf("nats-%d.conf", i))
		if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
			return fmt.Errorf("write NATS configuration: %w", err)
		}
		p := newProcess([]string{"GOGC=400"}, bin.path("nats-server"), "-c", file)
		m.processes = append(m.processes, p)
		if err := p.run(); err != nil {
			return err
		}
	}
	m.nats = strings.Join(urls, ",")
	return nil
}

func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close() //nolint:errcheck // the process will listen on the port
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// stop ends all processes, the NATS servers last.
func (m *mesh) stop() {
	for i := len(m.processes) - 1; i >= 0; i-- {
		m.processes[i].stop()
	}
}
