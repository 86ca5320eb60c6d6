package machine

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// tick is the unit of times in /proc on Linux (USER_HZ). It does not depend on the configuration of the kernel.
const tick = 10 * time.Millisecond

// ProcessTreeCPU returns the CPU time of this process and its running descendants. It includes ended processes that
// their parents have waited for.
func ProcessTreeCPU() (time.Duration, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, fmt.Errorf("read processor times: %w", err)
	}
	children := map[int][]int{}
	used := map[int]time.Duration{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // the process has ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return 0, fmt.Errorf("read processor times: %s: %w", file, err)
		}
		// The name of the process, which may contain brackets, ends at the last bracket: see proc(5).
		fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
		const parent, firstTime, lastTime = 1, 11, 14
		if len(fields) <= lastTime {
			continue
		}
		numbers := map[int]int{}
		for _, at := range []int{parent, firstTime, firstTime + 1, firstTime + 2, lastTime} {
			if numbers[at], err = strconv.Atoi(string(fields[at])); err != nil {
				return 0, fmt.Errorf("read processor times: %s: %w", file, err)
			}
		}
		children[numbers[parent]] = append(children[numbers[parent]], pid)
		for at := firstTime; at <= lastTime; at++ {
			used[pid] += time.Duration(numbers[at]) * tick
		}
	}
	return sum(os.Getpid(), children, used), nil
}

// sum returns the CPU time of a process and its descendants.
func sum(pid int, children map[int][]int, used map[int]time.Duration) time.Duration {
	total := used[pid]
	for _, child := range children[pid] {
		total += sum(child, children, used)
	}
	return total
}
