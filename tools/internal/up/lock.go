package up

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// folderLock reserves the data folder for one process. The kernel releases the lock when the process ends or is
// killed. The lock file remains.
type folderLock struct{ f *os.File }

// lockFolder creates dir if it is missing, and locks it. The lock file has the process ID and the addresses of the
// owner.
func lockFolder(dir, httpAddr, natsAddr string) (*folderLock, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create the data folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock folder %s: %w", dir, err)
	}
	l := &folderLock{f: f}
	for err = syscall.EINTR; errors.Is(err, syscall.EINTR); {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		defer f.Close()
		return nil, fmt.Errorf("folder %s is in use by %s (--data sets another folder)", dir, l.owner())
	case err != nil:
		f.Close()
		return nil, fmt.Errorf("lock folder %s: %w", dir, err)
	}
	if err := l.writeOwner(httpAddr, natsAddr); err != nil {
		f.Close()
		return nil, err
	}
	return l, nil
}

// owner returns the process ID and addresses in the lock file.
func (l *folderLock) owner() string {
	b := make([]byte, 1024)
	n, err := l.f.ReadAt(b, 0)
	owner, _, complete := strings.Cut(string(b[:n]), "\n")
	if n == 0 && err != nil || !complete {
		return "another process"
	}
	return owner
}

// writeOwner writes the process ID and the addresses to the lock file. Readers use the first line only, because the
// end of a longer old line can follow it for a moment.
func (l *folderLock) writeOwner(httpAddr, natsAddr string) error {
	line := fmt.Sprintf("process %d (http=%s nats=%s)\n", os.Getpid(), httpAddr, natsAddr)
	_, err := l.f.WriteAt([]byte(line), 0)
	if err = errors.Join(err, l.f.Truncate(int64(len(line)))); err != nil {
		return fmt.Errorf("write the lock of the data folder: %w", err)
	}
	return nil
}

// Close releases the lock.
func (l *folderLock) Close() error { return l.f.Close() }
