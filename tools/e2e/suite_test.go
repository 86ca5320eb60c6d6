package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"image/jpeg"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/sightmesh/sightmesh/tools/internal/sample"
)

// responseTimeout is long: it only ends tests that would hang.
const responseTimeout = 60 * time.Second

// TestMesh_OneReplica and TestMesh_TwoReplicas run the same tests on a mesh with one and
// with two replicas of every service.
func TestMesh_OneReplica(t *testing.T) {
	m := start(t, webClients())
	testAll(t, m)
}

func TestMesh_TwoReplicas(t *testing.T) {
	m := start(t, webClients(), "--lanes", "1")
	for _, s := range []string{"ingress", "detect", "classify", "results"} {
		m.join(t, s)
	}
	testAll(t, m)
}

// wholeSuiteVariable names the environment variable with which TestThreeServers
// runs the whole suite. When the variable is empty, the test runs only what
// differs most on replicated streams.
const wholeSuiteVariable = "SIGHTMESH_E2E_THREE_SERVERS_WHOLE"

// TestThreeServers runs the tests on three NATS servers. Each server is a
// process and has a replica of every stream.
func TestThreeServers(t *testing.T) {
	whole := os.Getenv(wholeSuiteVariable) != ""
	c := startCluster(t, 3)
	t.Run("two of each service", func(t *testing.T) {
		m := startOn(t, c, 2, 1, webClients())
		if whole {
			testAll(t, m)
			return
		}
		t.Run("jobs", func(t *testing.T) { testJobs(t, m) })
		t.Run("reports", func(t *testing.T) { testReports(t, m) })
		t.Run("stream", func(t *testing.T) { testStream(t, m) })
	})
	if !whole {
		return
	}
	t.Run("one of each service", func(t *testing.T) {
		m := startOn(t, c, 1, 2, webClients())
		t.Run("killed services", func(t *testing.T) { testKilledServices(t, m) })
		t.Run("killed ingress", func(t *testing.T) { testRestartedIngressKeepsAddress(t, m) })
		t.Run("stream", func(t *testing.T) { testSessionResumes(t, m) })
		t.Run("stop", func(t *testing.T) { testStopFinishesAcceptedJobs(t, m) })
		t.Run("end of everything", func(t *testing.T) { testReportSurvivesRestart(t, m) })
		t.Run("no worker", func(t *testing.T) { testNoWorker(t, m) })
	})
}

func testAll(t *testing.T, m *mesh) {
	t.Run("results", func(t *testing.T) { testResults(t, m) })
	t.Run("problems", func(t *testing.T) { testProblems(t, m) })
	t.Run("bad input", func(t *testing.T) { testBadInput(t, m) })
	t.Run("nats", func(t *testing.T) { testNATS(t, m) })
	t.Run("images", func(t *testing.T) { testImages(t, m) })
	t.Run("hostile", func(t *testing.T) { testHostile(t, m) })
	t.Run("jobs", func(t *testing.T) { testJobs(t, m) })
	t.Run("webhooks", func(t *testing.T) { testWebhooks(t, m) })
	t.Run("reports", func(t *testing.T) { testReports(t, m) })
	t.Run("stream", func(t *testing.T) { testStream(t, m) })
	t.Run("send", func(t *testing.T) { testSend(t, m) })
	t.Run("old routes", func(t *testing.T) { testOldRoutes(t, m) })
}

// testConcurrentImages posts many different images concurrently and checks that each
// response is the result of its own image.
func testConcurrentImages(t *testing.T, m *mesh) {
	const clients, each = 8, 4
	face := sample.Face()
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := range each {
				var b bytes.Buffer
				if err := jpeg.Encode(&b, face, &jpeg.Options{Quality: 40 + c*each + i}); err != nil {
					t.Error(err)
					return
				}
				a, err := m.tryPost("?pipeline=faces", b.Bytes())
				if err != nil {
					t.Error(err)
					return
				}
				sum := sha256.Sum256(b.Bytes())
				switch {
				case a.result.Image == nil:
					t.Errorf("client %d, image %d: response %v: no image", c, i, a)
				case a.result.Image.SHA256 != hex.EncodeToString(sum[:]):
					t.Errorf("client %d, image %d: response %v: Image.SHA256 %v, want %v",
						c, i, a, a.result.Image.SHA256, hex.EncodeToString(sum[:]))
				case a.result.Image.Bytes != b.Len():
					t.Errorf("client %d, image %d: response %v: Image.Bytes %v, want %v",
						c, i, a, a.result.Image.Bytes, b.Len())
				}
			}
		})
	}
	wg.Wait()
}
