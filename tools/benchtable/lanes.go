package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/tools/internal/bench"
)

type bareLane struct {
	cmd  *exec.Cmd
	conn net.Conn
	id   uint64
}

func startLane(path, stage string, p pipeline.Pipeline) (*bareLane, error) {
	setup, err := p.Stage(subject.Stage(stage)).Setup()
	if err != nil {
		return nil, err
	}
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make lane socket: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "lane"), os.NewFile(uintptr(fds[1]), "lane")
	defer ours.Close()
	defer theirs.Close()
	l := &bareLane{cmd: exec.Command(path, "lane")}
	l.cmd.Env = append(os.Environ(), "OMP_THREAD_LIMIT=1", "GOMAXPROCS=1")
	l.cmd.ExtraFiles = []*os.File{theirs}
	if l.conn, err = net.FileConn(ours); err != nil {
		return nil, fmt.Errorf("make lane socket: %w", err)
	}
	if err := l.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start lane: %w", err)
	}
	var ready lane.Ready
	if _, err := l.ask(lane.Start{Type: lane.TypeStart, Protocol: lane.Protocol, Stage: stage, Pipelines: map[string]lane.Setup{p.Name: setup}}, nil, &ready); err != nil {
		return nil, err
	}
	if why := ready.Pipelines[p.Name].Error; why != "" {
		return nil, fmt.Errorf("start lane: %s", why)
	}
	return l, nil
}

func (l *bareLane) ask(request any, pixels []byte, reply any) ([]byte, error) {
	if err := lane.WriteFrame(l.conn, request, pixels); err != nil {
		return nil, err
	}
	facts, out, err := lane.ReadFrame(l.conn)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(facts, reply); err != nil {
		return nil, fmt.Errorf("read lane reply: %w", err)
	}
	return out, nil
}

func (l *bareLane) stop() {
	l.conn.Close()
	l.cmd.Wait() //nolint:errcheck // it ends with the socket
}

// lanesAlone measures n lanes of detect and n of classify on a picture, driven
// directly: the same processes that a mesh has, with no mesh round them.
func lanesAlone(ctx context.Context, bin programs, p pipeline.Pipeline, pic []byte, n, concurrency int, d time.Duration) (bench.Report, error) {
	detect, classify := make(chan *bareLane, n), make(chan *bareLane, n)
	for stage, free := range map[string]chan *bareLane{"detect": detect, "classify": classify} {
		for range n {
			l, err := startLane(bin.path(stage), stage, p)
			if err != nil {
				return bench.Report{}, err
			}
			defer l.stop()
			free <- l
		}
	}
	send := func(_ context.Context, pic bench.Picture) (v1.Result, error) {
		var found lane.Detected
		pixels, err := in(detect, func(l *bareLane) ([]byte, error) {
			return l.ask(lane.Detect{
				Type: lane.TypeDetect, ID: l.id, Pipeline: p.Name, MediaType: http.DetectContentType(pic.Data), MaxRegions: p.MaxRegions, Crops: true,
			}, pic.Data, &found)
		})
		if err != nil || len(found.Crops) == 0 {
			return v1.Result{}, err
		}
		var told lane.Classified
		_, err = in(classify, func(l *bareLane) ([]byte, error) {
			return l.ask(lane.Classify{Type: lane.TypeClassify, ID: l.id, Pipeline: p.Name, Crops: found.Crops}, pixels, &told)
		})
		return v1.Result{}, err
	}
	return bench.Run(ctx, send, []bench.Picture{{Name: "p", Data: pic}}, bench.Load{Concurrency: concurrency, WarmUp: d / 4, Duration: d}, nil)
}

// in waits for a lane and uses it.
func in(free chan *bareLane, use func(*bareLane) ([]byte, error)) ([]byte, error) {
	l := <-free
	defer func() { free <- l }()
	l.id++
	return use(l)
}
