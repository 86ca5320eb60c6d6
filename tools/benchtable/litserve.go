package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// litServeProgram serves the networks with LitServe.
//
//go:embed litserve/server.py
var litServeProgram []byte

// litServePackages are the Python packages of the program, one a line.
//
//go:embed litserve/requirements.txt
var litServePackages string

// litServeVersions returns LitServe and ONNX Runtime with their versions.
func litServeVersions() []string {
	var versions []string
	for line := range strings.Lines(litServePackages) {
		name, version, _ := strings.Cut(strings.TrimSpace(line), "==")
		if name == "litserve" || name == "onnxruntime" {
			versions = append(versions, name+" "+version)
		}
	}
	return versions
}

type litServeConfig struct {
	packages string // folder of the Python packages
	dir      string // folder for the program and its log
	models   string
	pipeline string
	workers  int
}

// litServe is a running server of LitServe. It has several processes.
type litServe struct {
	cmd *exec.Cmd
	url string
}

// startLitServe starts a server and waits until its workers are warm.
func startLitServe(ctx context.Context, cfg litServeConfig) (_ *litServe, err error) {
	program := filepath.Join(cfg.dir, "server.py")
	if err := os.WriteFile(program, litServeProgram, 0o644); err != nil {
		return nil, fmt.Errorf("start LitServe: %w", err)
	}
	packages, err := filepath.Abs(cfg.packages)
	if err != nil {
		return nil, fmt.Errorf("start LitServe: %w", err)
	}
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(cfg.dir, "litserve.log"))
	if err != nil {
		return nil, fmt.Errorf("start LitServe: %w", err)
	}
	defer log.Close()
	s := &litServe{url: fmt.Sprintf("http://127.0.0.1:%d", ports[0])}
	s.cmd = exec.Command("python3", program, "--pipeline", cfg.pipeline, "--models", cfg.models,
		"--port", strconv.Itoa(ports[0]), "--workers", strconv.Itoa(cfg.workers))
	s.cmd.Env = append(os.Environ(), "PYTHONPATH="+packages, "PYTHONDONTWRITEBYTECODE=1")
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // stop kills the group, with the workers
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start LitServe: %w", err)
	}
	if err := awaitReady(ctx, s.url+"/health"); err != nil {
		s.stop()
		output, _ := os.ReadFile(log.Name()) // the error has no output if this fails
		return nil, errors.Join(fmt.Errorf("start LitServe: %w", err), errors.New(string(output[max(0, len(output)-2048):])))
	}
	return s, nil
}

// stop kills the server with its workers, because SIGTERM does not end all of them.
func (s *litServe) stop() {
	syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) //nolint:errcheck // it may have ended
	s.cmd.Wait()                                      //nolint:errcheck // the exit status does not matter
}
