package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/tools/internal/sample"
)

// drawnFace is drawn once, because drawing takes time.
var drawnFace = sync.OnceValue(sample.Face)

// frameAt returns a PNG file with a face on a plain background, x pixels from the
// left. With another x in each frame, a test can tell which frame an outcome
// belongs to.
func frameAt(t testing.TB, x int) []byte {
	t.Helper()
	face := drawnFace()
	img := image.NewRGBA(image.Rect(0, 0, face.Bounds().Dx()+400, face.Bounds().Dy()))
	draw.Draw(img, img.Bounds(), image.NewUniform(color.RGBA{120, 130, 140, 255}), image.Point{}, draw.Src)
	draw.Draw(img, face.Bounds().Sub(face.Bounds().Min).Add(image.Pt(x, 0)), face, face.Bounds().Min, draw.Src)
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestSpeed}).Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type streamClient struct {
	*websocket.Conn
	t   testing.TB
	ctx context.Context
}

func (m *mesh) stream(t testing.TB, query string) streamClient {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	url := strings.Replace(m.base(), "http://", "ws://", 1) + "/v1/stream" + query
	c, _, err := websocket.Dial(ctx, url, nil) //nolint:bodyclose // a session has no body
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseNow() })
	c.SetReadLimit(8 << 20)
	return streamClient{c, t, ctx}
}

func (c streamClient) send(kind websocket.MessageType, data string) {
	c.t.Helper()
	if err := c.Write(c.ctx, kind, []byte(data)); err != nil {
		c.t.Error(err) // not Fatal: tests call send from goroutines
	}
}

// next reads one message: an outcome of a frame, or the end of the session.
func (c streamClient) next() (v1.FrameOutcome, *v1.SessionEnd, error) {
	var a v1.FrameOutcome
	_, data, err := c.Read(c.ctx)
	if err != nil {
		return a, nil, err
	}
	if strings.Contains(string(data), `"next":`) {
		end := new(v1.SessionEnd)
		return a, end, json.Unmarshal(data, end)
	}
	return a, nil, json.Unmarshal(data, &a)
}

func testStream(t *testing.T, m *mesh) {
	t.Run("folder of frames", func(t *testing.T) { testFolderOfFrames(t, m) })
	t.Run("bad frames", func(t *testing.T) { testBadFrames(t, m) })
	t.Run("latest", func(t *testing.T) { testLatest(t, m) })
	t.Run("no session", func(t *testing.T) {
		checkProblem(t, m.get(t, "/v1/stream"), v1.UpgradeRequired)
		checkProblem(t, m.get(t, "/v1/stream?window=1000"), v1.InvalidParameter)
		checkProblem(t, m.get(t, "/v1/stream?drop=some"), v1.InvalidParameter)
		checkProblem(t, m.get(t, "/v1/stream?from=-1"), v1.InvalidParameter)
		checkProblem(t, m.get(t, "/v1/stream?pipeline=cats"), v1.UnknownPipeline)
	})
}

// testFolderOfFrames does what clients of the older socket server do. It sends the
// frames of a folder in natural order, with numbers and an end mark, and gets the
// boxes in the same order.
func testFolderOfFrames(t *testing.T, m *mesh) {
	dir := t.TempDir()
	const n = 12
	for i := 1; i <= n; i++ {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("frame%d.png", i)), frameAt(t, 30*i), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := m.stream(t, "?pipeline=faces&window=4&from=1")
	go func() {
		for i := 1; i <= n; i++ {
			frame, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("frame%d.png", i)))
			if err != nil {
				t.Error(err)
			}
			c.send(websocket.MessageText, fmt.Sprintf(`{"frame":%d}`, i))
			c.send(websocket.MessageBinary, string(frame))
		}
		c.send(websocket.MessageText, `{"end":true}`)
	}()
	left := 0
	for want := int64(1); ; want++ {
		a, end, err := c.next()
		if err != nil {
			t.Fatal(err)
		}
		if end != nil {
			if want := (v1.SessionEnd{End: true, Frames: n, Next: n + 1}); *end != want {
				t.Errorf("the session ends with %+v, want %+v", *end, want)
			}
			break
		}
		switch {
		case a.Frame != want:
			t.Fatalf("outcome %+v: frame %d, want %d", a, a.Frame, want)
		case a.Status != v1.Done:
			t.Fatalf("outcome %+v: status %s, want done", a, a.Status)
		case len(a.Result.Regions) != 1:
			t.Fatalf("outcome %+v: %d regions, want 1", a, len(a.Result.Regions))
		}
		if x := a.Result.Regions[0].Box.X; x < left+15 {
			t.Errorf("frame %d has its face at %d, want at least 15 right of %d as in the frame before", want, x, left)
		} else {
			left = x
		}
	}
}

func testBadFrames(t *testing.T, m *mesh) {
	face, page := string(sampleFace(t)), string(samplePage(t))
	c := m.stream(t, "?pipeline=faces")
	for _, f := range []string{face, "no image", page[:len(page)/2], strings.Repeat("x", 9<<20), face} {
		c.send(websocket.MessageBinary, f)
	}
	c.send(websocket.MessageText, `{"frame":2}`)
	c.send(websocket.MessageBinary, face)
	for i, want := range []v1.Code{"", v1.UnsupportedType, v1.Damaged, v1.TooLarge, ""} {
		a, _, err := c.next()
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case a.Frame != int64(i):
			t.Errorf("outcome %d is of frame %d", i, a.Frame)
		case want == "" && a.Problem != nil:
			t.Errorf("frame %d has the problem %v, want none", i, a.Problem)
		case want != "" && (a.Problem == nil || a.Problem.Code != want):
			t.Errorf("frame %d has the problem %v, want %s", i, a.Problem, want)
		}
	}
	_, end, err := c.next()
	switch {
	case err != nil:
		t.Fatal(err)
	case end == nil:
		t.Fatal("another outcome comes, want the end of the session")
	case end.End:
		t.Errorf("the session ends with %+v, as if the client had ended it", end)
	case end.Next != 5:
		t.Errorf("the next frame is %d, want 5", end.Next)
	case end.Problem == nil || end.Problem.Code != v1.FrameOutOfOrder:
		t.Errorf("the session ends with the problem %v, want %s", end.Problem, v1.FrameOutOfOrder)
	case end.Problem.Limit != 5:
		t.Errorf("the limit of the problem is %d, want 5", end.Problem.Limit)
	}
}

func testLatest(t *testing.T, m *mesh) {
	page := string(samplePage(t))
	c := m.stream(t, "?pipeline=text&window=1&drop=latest")
	const n = 30
	go func() {
		for range n {
			c.send(websocket.MessageBinary, page)
		}
		c.send(websocket.MessageText, `{"end":true}`)
	}()
	dropped := 0
	for want := int64(0); ; want++ {
		a, end, err := c.next()
		if err != nil {
			t.Fatal(err)
		}
		if end != nil {
			switch {
			case end.Next != n:
				t.Errorf("the session ends with %+v: next frame %d, want %d", end, end.Next, n)
			case want != n:
				t.Errorf("%d outcomes, want %d", want, n)
			}
			break
		}
		switch {
		case a.Frame != want:
			t.Fatalf("outcome %+v: frame %d, want %d", a, a.Frame, want)
		case a.Status != v1.Done && a.Status != v1.Dropped:
			t.Fatalf("outcome %+v: status %s, want done or dropped", a, a.Status)
		}
		if a.Status == v1.Dropped {
			dropped++
		}
		if want == n-1 && a.Status != v1.Done {
			t.Error("the last frame was dropped")
		}
	}
	if dropped == 0 {
		t.Error("no frame was dropped, although the client sends faster than a page is processed")
	}
}

// TestSessions_ResumeAfterIngressIsKilled kills the ingress in the middle of a
// session. The client continues with the first frame without an outcome.
func TestSessions_ResumeAfterIngressIsKilled(t *testing.T) {
	testSessionResumes(t, start(t, nil))
}

func testSessionResumes(t *testing.T, m *mesh) {
	const n, killAfter = 20, 6
	outcomes := map[int64]int{} // number of outcomes by frame
	from := int64(0)
	for round := 0; from < n; round++ {
		c := m.stream(t, fmt.Sprintf("?pipeline=faces&from=%d", from))
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for i := from; i < n; i++ {
				if c.Write(c.ctx, websocket.MessageBinary, frameAt(t, int(20*i))) != nil {
					return
				}
			}
			c.Write(c.ctx, websocket.MessageText, []byte(`{"end":true}`))
		}()
		for {
			a, end, err := c.next()
			if err != nil || end != nil {
				break
			}
			switch {
			case a.Status != v1.Done:
				t.Fatalf("outcome %+v: status %s, want done", a, a.Status)
			case a.Frame != from:
				t.Fatalf("outcome %+v: frame %d, want %d", a, a.Frame, from)
			}
			outcomes[a.Frame]++
			if from++; from == killAfter {
				for _, pid := range m.pids(t, "ingress") {
					kill(t, pid)
				}
			}
		}
		<-sent
		if round == 0 && (from < killAfter || from == n) { // a few may arrive after the kill
			t.Errorf("%d outcomes came before the ingress ended, want at least %d and fewer than %d", from, killAfter, n)
		}
		eventually.Succeeds(t, responseTimeout, func() error { // the ingress restarts
			a, err := m.tryPost("?pipeline=faces", sampleFace(t))
			if err == nil && a.status != http.StatusOK {
				err = fmt.Errorf("%v", a)
			}
			return err
		})
	}
	for i := range int64(n) {
		if outcomes[i] != 1 {
			t.Errorf("frame %d has %d outcomes, want 1", i, outcomes[i])
		}
	}
}
