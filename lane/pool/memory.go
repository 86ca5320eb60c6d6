package pool

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"time"
)

// MemoryLimit bounds the resident size of each process of a program. The
// processes that it starts in turn are not counted.
type MemoryLimit struct {
	// Bytes is the most that a process may have; 0 means any number.
	Bytes int64
	// Setting names what an operator changes to have another limit. It is part
	// of the messages about a process that is over the limit.
	Setting string
}

const memoryPeriod = 100 * time.Millisecond

// watchMemory ends processes that have grown over their limit, while they work
// and between requests.
func (p *Pool) watchMemory(ctx context.Context) {
	var limited []*slot
	for _, l := range p.lanes {
		for _, s := range l.all {
			if s.prog.Memory.Bytes > 0 {
				limited = append(limited, s)
			}
		}
	}
	if len(limited) == 0 {
		return
	}
	tick := time.NewTicker(memoryPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, s := range limited {
			s.checkMemory()
		}
	}
}

// checkMemory ends the process of the slot when it has grown over its limit.
func (s *slot) checkMemory() {
	s.mu.Lock()
	proc, loading := s.proc, s.loading
	s.mu.Unlock()
	if loading != nil {
		if size, over := loading.exceeds(s.prog.Memory); over {
			loading.kill(&refusedError{s.prog.Name, size, s.prog.Memory, "while it loads its models"})
		}
	}
	if proc == nil || proc.isDead() {
		return
	}
	// An idle process does not grow: the last look after a request is enough.
	answered := proc.jobs.Load()
	same := proc.measured == answered
	if same && !proc.working.Load() {
		return
	}
	proc.measured = answered
	if _, over := proc.exceeds(s.prog.Memory); !over {
		return
	}
	// A process that was small when the last look was taken at the same request
	// has grown by it; else an earlier request may have left it large.
	by := memoryError{by: answered}
	if !same {
		by.by = unknown
	}
	proc.kill(by)
}

// memoryError ends a process that has grown over the limit, by the request
// that came after so many answered ones.
type memoryError struct{ by int64 }

const unknown = -1

func (memoryError) Error() string { return errMemory.Error() }
func (memoryError) Unwrap() error { return errMemory }

// refusedError says that a process was over its limit while it loaded its models, or as
// soon as it was ready. Every request would end it, so that it is given none.
type refusedError struct {
	program string
	size    int64
	limit   MemoryLimit
	when    string
}

// Error returns the reason for which the pipelines of the program are not ready.
func (e *refusedError) Error() string {
	return fmt.Sprintf("lane program %s has %d bytes of memory %s, more than the %d that %s allows",
		e.program, e.size, e.when, e.limit.Bytes, e.limit.Setting)
}

func (e *refusedError) Unwrap() error { return errMemory }

// exceeds measures the process, and reports whether it is over the limit.
func (p *process) exceeds(limit MemoryLimit) (size int64, over bool) {
	if limit.Bytes == 0 {
		return 0, false
	}
	size, err := residentBytes(p.pid())
	return size, err == nil && size > limit.Bytes // a process that is gone has no size
}

// residentBytes reads the resident size of a process.
func residentBytes(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	f := bytes.Fields(b)
	if len(f) < 2 {
		return 0, fmt.Errorf("read size of process %d: %q", pid, b)
	}
	pages, err := strconv.ParseInt(string(f[1]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read size of process %d: %w", pid, err)
	}
	return pages * int64(os.Getpagesize()), nil
}

// peakBytes reads the most that the resident size of a process has been.
func peakBytes(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			var kib int64
			if _, err := fmt.Sscanf(string(rest), "%d kB", &kib); err != nil {
				return 0, fmt.Errorf("read peak size of process %d: %q: %w", pid, line, err)
			}
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("read peak size of process %d: no line VmHWM", pid)
}
