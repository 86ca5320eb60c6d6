package lanetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sightmesh/sightmesh/contracts/subject"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/lane/internal/launch"
)

// marker is an environment variable by which the processes that a program has
// started are found.
const marker = "SIGHTMESH_LANETEST"

// process is a process of the program with which the suite communicates directly.
type process struct {
	program Program
	cmd     *exec.Cmd
	conn    *net.UnixConn
	id      string // value of the marker
	exited  chan struct{}
}

// startProcess starts the program, which is not asked to load anything yet.
func (s *suite) startProcess() (*process, error) {
	p := &process{program: s.program, id: rand.Text(), exited: make(chan struct{})}
	cmd, socket, err := launch.Start(s.program.Args, []string{marker + "=" + p.id}, s.output)
	if err != nil {
		return nil, fmt.Errorf("start the program: %w", err)
	}
	p.cmd = cmd
	go func() {
		// Not Wait: the process is not reaped before its group is ended, so that
		// no other process can have its number.
		for errors.Is(unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
		}
		close(p.exited)
	}()
	conn, err := net.FileConn(socket)
	socket.Close()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open lane socket: %w", err), p.end(0))
	}
	p.conn = conn.(*net.UnixConn) //nolint:forcetypeassert // launch.Start makes such a socket
	return p, nil
}

// end waits until the process exits by itself. After that time it ends it with its
// process group, and returns an error. It also returns an error for each process
// that the program has started and that is not in its group: a worker cannot end it.
// With a time of 0 it ends the process immediately, which is no error.
func (p *process) end(timeout time.Duration) error {
	var broken []error
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-p.exited:
	case <-t.C:
		if timeout == 0 {
			break
		}
		broken = append(broken, fmt.Errorf("the program did not exit within %v", timeout))
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // nothing may be left
	<-p.exited
	broken = append(broken, p.endStrays()...)
	_ = p.cmd.Wait() // the exit status is not part of the protocol
	return errors.Join(broken...)
}

// endStrays ends the processes that have the marker of p, and returns an error for
// each of them.
func (p *process) endStrays() (broken []error) {
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return []error{err}
	}
	for _, file := range files {
		env, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(env, []byte(marker+"="+p.id)) {
			continue // a process of another user, or one that has ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return append(broken, err)
		}
		if group, err := unix.Getpgid(pid); err != nil || group == p.cmd.Process.Pid {
			continue // it has ended, or is about to
		}
		command, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline")) // only for the message
		broken = append(broken, fmt.Errorf("process %d (%s) is left outside of the process group of the program", pid,
			strings.TrimSpace(strings.ReplaceAll(string(command), "\x00", " "))))
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
	}
	return broken
}

// exchange sends a message, and checks type, id and fields of the reply. The message has a
// field that does not exist: a later version of the protocol may add fields.
func (p *process) exchange(message any, pixels []byte, id uint64, want lane.Type) error {
	fields, err := withUnknownField(message)
	if err != nil {
		return err
	}
	if err := lane.WriteFrame(p.conn, fields, pixels); err != nil {
		return err
	}
	facts, _, err := lane.ReadFrame(p.conn)
	if err != nil {
		return err
	}
	var head struct {
		Type lane.Type `json:"type"`
		ID   uint64    `json:"id"`
	}
	if err := json.Unmarshal(facts, &head); err != nil {
		return fmt.Errorf("reply %.200q: %w", facts, err)
	}
	if head.Type != want {
		return fmt.Errorf("the reply has the type %q, want %q: %.200s", head.Type, want, facts)
	}
	if head.ID != id {
		return fmt.Errorf("the reply has the id %d, want %d", head.ID, id)
	}
	if err := json.Unmarshal(facts, newReply(want)); err != nil {
		return fmt.Errorf("the reply %s does not follow the protocol: %w", want, err)
	}
	if field := lane.UnknownField(facts, want); field != "" {
		return fmt.Errorf("the reply %s has the field %q, which the protocol does not have", want, field)
	}
	return nil
}

// newReply returns a value into which a reply is decoded.
func newReply(reply lane.Type) any {
	switch reply {
	case lane.TypeReady:
		return new(lane.Ready)
	case lane.TypeClassified:
		return new(lane.Classified)
	default:
		return new(lane.Detected)
	}
}

func withUnknownField(message any) (fields map[string]any, err error) {
	data, err := json.Marshal(message)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber() // not float64
	if err := d.Decode(&fields); err != nil {
		return nil, err
	}
	fields["lanetest_field_of_a_later_version"] = true
	return fields, nil
}

// request returns a request to the program with its pixels, and the type of a
// successful reply.
func (s *suite) request(id uint64) (message any, pixels []byte, reply lane.Type, err error) {
	if s.program.Stage == subject.Classify {
		r, pixels := classifyRequest(s.program.Channels[0], [2]int{200, 48})
		r.Type, r.ID = lane.TypeClassify, id
		return r, pixels, lane.TypeClassified, nil
	}
	images, err := s.images()
	if err != nil {
		return nil, nil, "", err
	}
	return lane.Detect{
		Type: lane.TypeDetect, ID: id, Pipeline: pipelineName, MediaType: mediaType(images[0].file),
		MaxRegions: maxRegions, Crops: s.program.Crops,
	}, images[0].file, lane.TypeDetected, nil
}

// startReady starts a process and waits until it is ready.
func (s *suite) startReady() (*process, error) {
	p, err := s.startProcess()
	if err != nil {
		return nil, err
	}
	if err := p.conn.SetDeadline(time.Now().Add(s.program.StartTimeout)); err != nil {
		return nil, errors.Join(err, p.end(0))
	}
	if err := p.exchange(s.start(), nil, 0, lane.TypeReady); err != nil {
		return nil, errors.Join(fmt.Errorf("start: %w", err), p.conn.Close(), p.end(0))
	}
	return p, nil
}

// checkSocket checks that the program sends one frame for each message and nothing
// else, that it ignores fields that it does not know, and that its replies have no
// fields that a worker does not know.
func checkSocket(_ context.Context, s *suite) error {
	p, err := s.startReady()
	if err != nil {
		return err
	}
	defer p.conn.Close() //nolint:errcheck // it was only read from
	if err := s.checkReplies(p); err != nil {
		return errors.Join(err, p.end(0))
	}
	if err := p.conn.CloseWrite(); err != nil { // the program reads end of file, and can write
		return errors.Join(err, p.end(0))
	}
	if err := p.end(s.endTimeout); err != nil {
		return err
	}
	rest, err := io.ReadAll(p.conn)
	if len(rest) > 0 {
		return fmt.Errorf("the program wrote %d bytes after its last reply: %.100q", len(rest), rest)
	}
	if err != nil && !errors.Is(err, syscall.ECONNRESET) { // it did not read end of file
		return fmt.Errorf("read what the program wrote after its last reply: %w", err)
	}
	return nil
}

// checkReplies sends two requests.
func (s *suite) checkReplies(p *process) error {
	for id := range uint64(2) {
		message, pixels, reply, err := s.request(id + 1)
		if err != nil {
			return err
		}
		if err := p.conn.SetDeadline(time.Now().Add(s.program.Timeout)); err != nil {
			return err
		}
		if err := p.exchange(message, pixels, id+1, reply); err != nil {
			return fmt.Errorf("request %d: %w", id+1, err)
		}
	}
	return p.conn.SetDeadline(time.Time{})
}

// checkEndOfFile closes the socket while the program has no request.
func checkEndOfFile(_ context.Context, s *suite) error {
	p, err := s.startReady()
	if err != nil {
		return err
	}
	return errors.Join(p.conn.Close(), p.end(s.endTimeout))
}

// checkEndOfFileDuringRequest closes the socket directly after a request. A program
// that notices this only after its work must end within the timeout of a request.
func checkEndOfFileDuringRequest(_ context.Context, s *suite) error {
	p, err := s.startReady()
	if err != nil {
		return err
	}
	message, pixels, _, err := s.request(1)
	if err == nil {
		err = lane.WriteFrame(p.conn, message, pixels)
	}
	return errors.Join(err, p.conn.Close(), p.end(s.program.Timeout+s.endTimeout))
}
