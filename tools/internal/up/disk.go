package up

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"syscall"

	"github.com/sightmesh/sightmesh/contracts/streams"
)

// maxStore is the maximum number of bytes that JetStream reserves on a disk of any size.
const maxStore = 16 << 30

// defaultReserve is the number of bytes that stay free on the disk. The services need them to finish accepted jobs.
const defaultReserve = 256 << 20

// freeBytes returns how many bytes a process without privileges can write under dir.
func freeBytes(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("read the free space of %s: %w", dir, err)
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// store describes a folder of JetStream on disk.
type store struct {
	used     int64 // bytes of all files
	reserved int64 // sum of the limits of its streams, in bytes
	streams  int
}

// readStore reads the folder of a JetStream that does not run.
func readStore(dir string) (store, error) {
	var s store
	root, err := os.OpenRoot(dir)
	if os.IsNotExist(err) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("read the streams in %s: %w", dir, err)
	}
	defer root.Close() //nolint:errcheck // it was only read
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		s.used += info.Size()
		// The files of consumers have the same name.
		if d.Name() != "meta.inf" || path.Base(path.Dir(path.Dir(name))) != "streams" {
			return nil
		}
		b, err := fs.ReadFile(root.FS(), name)
		if err != nil {
			return err
		}
		var config struct {
			MaxBytes int64 `json:"max_bytes"`
		}
		// The server reports an invalid file when it starts.
		if json.Unmarshal(b, &config) == nil {
			s.reserved += max(config.MaxBytes, 0)
			s.streams++
		}
		return nil
	})
	if err != nil {
		return store{}, fmt.Errorf("read the streams in %s: %w", dir, err)
	}
	return s, nil
}

// storeLimit returns how many bytes JetStream may reserve on a disk with free bytes, of which reserve stay free. A new
// mesh needs space for want bytes, the limits of all its streams. A mesh with streams only needs the reserve, because
// it rejects images before the disk is full.
func storeLimit(dir string, s store, free, reserve, want int64) (int64, error) {
	if free < reserve {
		return 0, fmt.Errorf("the disk of %s has %s free, and %s stay in reserve: make room, or set --reserve",
			dir, streams.FormatBytes(free), streams.FormatBytes(reserve))
	}
	if s.streams == 0 && free < want+reserve {
		return 0, fmt.Errorf("the disk of %s has %s free, and a new mesh needs %s, of which %s are for its streams "+
			"and %s stay in reserve: make room, or set --data, --max-store or --reserve",
			dir, streams.FormatBytes(free), streams.FormatBytes(want+reserve),
			streams.FormatBytes(want), streams.FormatBytes(reserve))
	}
	return max(min(maxStore, s.used+free-reserve), s.reserved), nil
}
