package pool

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"time"
)

const memoryPeriod = 100 * time.Millisecond

// watchMemory ends processes that have grown over the limit, while they work
// and between requests.
func (p *Pool) watchMemory(ctx context.Context) {
	if p.cfg.MemoryLimit == 0 {
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
		for _, l := range p.lanes {
			for _, s := range l.all {
				s.mu.Lock()
				proc := s.proc
				s.mu.Unlock()
				// Idle ones do not grow; the last look after a request is
				// enough.
				if proc == nil || proc.isDead() {
					continue
				}
				answered := proc.jobs.Load()
				same := proc.measured == answered
				if same && !proc.working.Load() {
					continue
				}
				proc.measured = answered
				if rss, err := residentBytes(proc.pid()); err == nil && rss > p.cfg.MemoryLimit {
					// What was small when the last look was taken at the same
					// request has grown by it; else an earlier one may have
					// left it large.
					by := memoryError{by: answered}
					if !same {
						by.by = unknown
					}
					proc.kill(by)
				}
			}
		}
	}
}

// memoryError ends a process that has grown over the limit, by the request
// that came after so many answered ones.
type memoryError struct{ by int64 }

const unknown = -1

func (memoryError) Error() string { return errMemory.Error() }
func (memoryError) Unwrap() error { return errMemory }

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
