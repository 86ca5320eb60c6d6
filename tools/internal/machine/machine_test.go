package machine

import (
	"os/exec"
	"testing"
	"time"
)

// TestProcessTreeCPU_CountsChildren checks that the CPU time of a running child counts.
func TestProcessTreeCPU_CountsChildren(t *testing.T) {
	before, err := ProcessTreeCPU()
	if err != nil {
		t.Fatal(err)
	}
	// The child works until it has used 0.3 s of CPU time, prints a line, and waits.
	child := exec.Command("sh", "-c", `ulimit -t 10; while [ $(awk '{print $14 + $15}' /proc/$$/stat) -lt 30 ]; do
		i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; done; echo used; read line`)
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	after, err := ProcessTreeCPU()
	if err != nil {
		t.Fatal(err)
	}
	if used := after - before; used < 300*time.Millisecond {
		t.Errorf("%v were used, want at least the 300ms of the child", used)
	}
	in.Close()
	if err := child.Wait(); err == nil {
		t.Error("the child exits with 0, want an error of read at the end of its input")
	}
}

func TestLoad_IsPositive(t *testing.T) {
	t.Parallel()
	load, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	if load < 0 {
		t.Errorf("the load is %v, want at least 0", load)
	}
}
