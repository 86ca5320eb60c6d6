// Package launch starts lane programs with the socket and the environment that
// the lane protocol guarantees them.
package launch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// outputDelay is how long to wait for the end of the output of a program that has
// ended: a process that it started may hold the output open.
const outputDelay = time.Second

// Start starts a program with one end of a socket pair as file descriptor 3, which
// is lane.FD, and returns the other end. That end blocks; the caller closes it, and
// waits for the command. env is added to the environment of this process.
//
// The program leads a process group of its own: Ctrl-C in a terminal does not reach
// it, and the caller can end it together with the processes that it starts.
func Start(argv, env []string, output io.Writer) (*exec.Cmd, *os.File, error) {
	// Close-on-exec: a program that is started at the same time would inherit this
	// end, and the lane would never see end of file.
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("create lane socket: %w", err)
	}
	conn, remote := os.NewFile(uintptr(fds[0]), "lane"), os.NewFile(uintptr(fds[1]), "lane")
	defer remote.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	// A lane has one thread of work, in whichever language it is written. Of two
	// values of a variable the last one counts.
	cmd.Env = append(append(os.Environ(), env...), "OMP_THREAD_LIMIT=1", "GOMAXPROCS=1")
	cmd.Stdout, cmd.Stderr = output, output
	cmd.ExtraFiles = []*os.File{remote} // becomes lane.FD
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = outputDelay
	err = cmd.Start()
	if errors.Is(err, syscall.EACCES) {
		err = fmt.Errorf("%w: make the file executable, or name its interpreter first", err)
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return cmd, conn, nil
}
