package machine

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// tick is the unit of times in /proc on Linux, whatever the kernel was built for (USER_HZ).
const tick = 10 * time.Millisecond

// ProcessTreeCPU returns the processor time that this process and the running ones below it have used, and those that
// they have waited for.
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
			continue // it has ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return 0, fmt.Errorf("read processor times: %s: %w", file, err)
		}
		// The name before these fields ends with the last bracket, see proc(5).
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

// sum adds what a process and those below it have used.
func sum(pid int, children map[int][]int, used map[int]time.Duration) time.Duration {
	total := used[pid]
	for _, child := range children[pid] {
		total += sum(child, children, used)
	}
	return total
}
