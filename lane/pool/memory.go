package pool

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"time"
)

// MemoryLimit limits the resident size of each process of a program. The processes that it
// starts are not counted.
type MemoryLimit struct {
	// Bytes is the largest resident size. 0 means no limit.
	Bytes int64
	// Setting is the name of the setting of the limit, for messages about a process that
	// exceeds it.
	Setting string
}

// memoryPeriod is the interval at which the size of processes is measured.
const memoryPeriod = 100 * time.Millisecond

// watchMemory kills processes that exceed their limit, during requests and between them.
func watchMemory(ctx context.Context, limited []*slot) {
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

// checkMemory kills the process of the slot when it exceeds its limit.
func (s *slot) checkMemory() {
	s.mu.Lock()
	proc, loading := s.proc, s.loading
	s.mu.Unlock()
	if loading != nil {
		if size, over := loading.exceeds(s.prog.Memory); over {
			loading.kill(&rejectedError{s.prog.Name, size, s.prog.Memory, "while it loads its models"})
		}
	}
	if proc == nil || proc.isDead() {
		return
	}
	// An idle process does not grow: measure it once after each request.
	replies := proc.jobs.Load()
	same := proc.measured == replies
	if same && !proc.working.Load() {
		return
	}
	proc.measured = replies
	if _, over := proc.exceeds(s.prog.Memory); !over {
		return
	}
	// If the process was below the limit at an earlier measurement during this request,
	// then this request is the cause. Otherwise it can be an earlier request.
	by := memoryError{by: replies}
	if !same {
		by.by = unknown
	}
	proc.kill(by)
}

// memoryError is the reason for killing a process that exceeds its limit. by identifies the
// request that is the cause: the number of replies before it, or unknown.
type memoryError struct{ by int64 }

const unknown = -1

func (memoryError) Error() string { return errMemory.Error() }
func (memoryError) Unwrap() error { return errMemory }

// rejectedError is the error of a process that exceeded its limit while it loaded its models,
// or when it was ready. It gets no request, because it would be killed during the first.
type rejectedError struct {
	program string
	size    int64
	limit   MemoryLimit
	when    string
}

// Error returns why the pipelines of the program are not ready.
func (e *rejectedError) Error() string {
	return fmt.Sprintf("lane program %s has %d bytes of memory %s, more than the %d that %s allows",
		e.program, e.size, e.when, e.limit.Bytes, e.limit.Setting)
}

func (e *rejectedError) Unwrap() error { return errMemory }

// exceeds measures the process and reports whether it exceeds the limit.
func (p *process) exceeds(limit MemoryLimit) (size int64, over bool) {
	if limit.Bytes == 0 {
		return 0, false
	}
	size, err := residentBytes(p.pid())
	return size, err == nil && size > limit.Bytes // a process that has ended has no size
}

// residentBytes returns the resident size of a process.
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

// peakBytes returns the peak resident size of a process.
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
