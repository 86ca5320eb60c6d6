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

// maxStore is the most that JetStream may reserve on any disk.
const maxStore = 16 << 30

// defaultReserve is the space that stays free on the disk. It holds what the
// services write while they finish what was accepted.
const defaultReserve = 256 << 20

// freeBytes returns how much an ordinary process can still write under dir.
func freeBytes(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("read the free space of %s: %w", dir, err)
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// store is what a folder of JetStream has on disk.
type store struct {
	used     int64 // bytes of all files
	reserved int64 // bytes that its streams may hold together
	streams  int
}

// readStore looks at the files of a JetStream that does not run.
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
		// Those of consumers have the same name.
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
		// The server reports what it cannot read.
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

// storeLimit returns how much JetStream may reserve on a disk with free bytes
// left, of which reserve stay free. A new mesh must have room for all that its
// streams may ever hold, want bytes. One that exists starts with any disk that
// has the reserve: it rejects images before the disk is full.
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
