package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// testHostile posts every hostile file to both pipelines, three at a time. At the same
// time it posts good images.
func testHostile(t *testing.T, m *mesh) {
	readRealdata(t, "hostile/README.md")
	files, err := filepath.Glob(filepath.Join(root(t), "..", "shared", "realdata", "hostile", "images", "*"))
	switch {
	case err != nil:
		t.Fatal(err)
	case len(files) < 50:
		t.Fatalf("%d hostile files, want at least 50", len(files))
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	face, page := sampleFace(t), samplePage(t)
	var good sync.WaitGroup
	var served atomic.Int64
	var longest atomic.Int64
	for i, image := range [][]byte{face, page} {
		query := []string{"?pipeline=faces", "?pipeline=text"}[i]
		regions := []int{1, 6}[i]
		good.Go(func() {
			for ctx.Err() == nil {
				a, err := m.tryPost(query, image)
				switch {
				case err != nil:
					t.Errorf("post a good image: %v", err)
					return
				case a.result.Status != v1.Done:
					t.Errorf("a good image got %v, want a result", a)
					return
				case len(a.result.Regions) != regions:
					t.Errorf("a good image got %v: %d regions, want %d", a, len(a.result.Regions), regions)
					return
				}
				served.Add(1)
				longest.Store(max(longest.Load(), int64(a.took)))
			}
		})
	}
	work := make(chan string)
	var bad sync.WaitGroup
	var mu sync.Mutex
	outcomes := map[string]int{}
	for range 3 {
		bad.Go(func() {
			for file := range work {
				data, err := os.ReadFile(file)
				if err != nil {
					t.Error(err)
					continue
				}
				for _, p := range []string{"text", "faces"} {
					a, err := m.tryPost("?pipeline="+p, data)
					switch {
					case err != nil:
						t.Errorf("%s to %s: %v", filepath.Base(file), p, err)
					case a.status == 200 && a.result.Status == v1.Done:
					case a.status >= 400 && a.status < 500 && a.problem.Code != "" && a.problem.Code != v1.Overloaded:
					default:
						t.Errorf("%s to %s: %v", filepath.Base(file), p, a)
					}
					mu.Lock()
					outcomes[fmt.Sprint(a.status, " ", a.problem.Code)]++
					mu.Unlock()
				}
			}
		})
	}
	for _, f := range files {
		work <- f
	}
	close(work)
	bad.Wait()
	cancel()
	good.Wait()
	t.Logf("outcomes of %d files: %v; %d good images at the same time, the slowest took %v",
		len(files), outcomes, served.Load(), time.Duration(longest.Load()).Round(time.Millisecond))
	if served.Load() == 0 {
		t.Error("no good image was processed at the same time")
	}
	if died := m.stderr.matchingLines(serviceDied); len(died) > 0 {
		t.Errorf("services ended: %v", died)
	}
}
