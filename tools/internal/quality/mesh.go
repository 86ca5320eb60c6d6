package quality

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// mesh is a running mesh.
type mesh struct {
	url string
	cmd *exec.Cmd // nil for a mesh that was already running
	dir string
}

var readyLine = regexp.MustCompile(`^ready http=(\S+) `)

// startMesh runs sightmesh up with one lane, on free ports, in a folder of its own.
func startMesh(cfg Config) (_ *mesh, err error) {
	dir, err := os.MkdirTemp("", "sightmesh-quality")
	if err != nil {
		return nil, fmt.Errorf("make a data folder: %w", err)
	}
	m := &mesh{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.stop())
		}
	}()
	logFile := filepath.Join(dir, "mesh.log")
	log, err := os.Create(logFile)
	if err != nil {
		return nil, fmt.Errorf("make a log: %w", err)
	}
	defer log.Close()
	// Not CommandContext, which kills: stop sends SIGTERM, as an operator does.
	cmd := exec.Command(filepath.Join(cfg.Bin, "sightmesh"), "up", "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0",
		"--data", filepath.Join(dir, "data"), "--sample", "none", "--lanes", "1", "--log", "json",
		"--models", cfg.Models, "--pipelines", cfg.Pipelines)
	cmd.Stderr = log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start the mesh: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the mesh: %w (make build builds it)", err)
	}
	m.cmd = cmd
	// The mesh writes one line, or ends and closes its output.
	line, err := bufio.NewReader(stdout).ReadString('\n')
	found := readyLine.FindStringSubmatch(line)
	if err != nil || found == nil {
		output, _ := os.ReadFile(logFile) // the error has no output if this fails
		return nil, fmt.Errorf("start the mesh: it is not ready: %s", output[max(0, len(output)-2048):])
	}
	m.url = found[1]
	return m, nil
}

// stop ends the mesh and removes its folder.
func (m *mesh) stop() error {
	var errs []error
	if m.cmd != nil {
		if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			errs = append(errs, fmt.Errorf("stop the mesh: %w", err))
		}
		if err := m.cmd.Wait(); err != nil {
			errs = append(errs, fmt.Errorf("stop the mesh: %w", err))
		}
	}
	if m.dir != "" {
		if err := os.RemoveAll(m.dir); err != nil {
			errs = append(errs, fmt.Errorf("remove the data folder: %w", err))
		}
	}
	return errors.Join(errs...)
}

// startingPause is the time between two requests for the pipelines of a starting mesh.
const startingPause = 200 * time.Millisecond

// pipelines waits until each pipeline is served or has a reason why not, and returns them.
func (m *mesh) pipelines(ctx context.Context) (map[string]v1.Pipeline, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		var list v1.Pipelines
		if err := m.get(ctx, "/v1/pipelines", &list); err != nil {
			return nil, err
		}
		starting := false
		served := map[string]v1.Pipeline{}
		for _, p := range list.Pipelines {
			served[p.Name] = p
			starting = starting || p.State == v1.PipelineStarting
		}
		if !starting {
			return served, nil
		}
		if err := retry.Sleep(ctx, startingPause); err != nil {
			return nil, fmt.Errorf("wait for the pipelines: %w", err)
		}
	}
}

func (m *mesh) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url+path, nil)
	if err != nil {
		return fmt.Errorf("get %s: %w", path, err)
	}
	status, body, err := exchange(req)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("get %s: status %d: %s", path, status, body)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("get %s: %w", path, err)
	}
	return nil
}

// analyze sends an image and returns its result. A problem of the image is a part of the
// result.
func (m *mesh) analyze(ctx context.Context, pipeline string, image []byte) (v1.Result, error) {
	to := m.url + "/v1/images?pipeline=" + url.QueryEscape(pipeline)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(image))
	if err != nil {
		return v1.Result{}, fmt.Errorf("post image: %w", err)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set("Prefer", "wait=60")
	status, body, err := exchange(req)
	if err != nil {
		return v1.Result{}, err
	}
	switch {
	case status == http.StatusOK:
		var r v1.Result
		if err := json.Unmarshal(body, &r); err != nil {
			return r, fmt.Errorf("post image: %w", err)
		}
		return r, nil
	case status >= http.StatusBadRequest:
		var p v1.Problem
		if err := json.Unmarshal(body, &p); err != nil || p.Code == "" {
			return v1.Result{}, fmt.Errorf("post image: status %d: %s", status, body)
		}
		return v1.Result{Pipeline: pipeline, Status: v1.Failed, Problem: &p}, nil
	}
	return v1.Result{}, fmt.Errorf("post image: status %d: no result after a minute", status)
}

func exchange(req *http.Request) (status int, body []byte, err error) {
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("send a request to the mesh: %w", err)
	}
	defer res.Body.Close()
	body, err = io.ReadAll(res.Body)
	if err != nil {
		return 0, nil, fmt.Errorf("send a request to the mesh: read the reply: %w", err)
	}
	return res.StatusCode, body, nil
}
