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

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/tools/internal/sample"
)

// drawnFace takes a while to draw.
var drawnFace = sync.OnceValue(sample.Face)

// frameAt is a face on a plain ground, x pixels from the left: another place
// in each frame, so that an answer that is not of its frame is seen.
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
	c, _, err := websocket.Dial(ctx, strings.Replace(m.base(), "http://", "ws://", 1)+"/v1/stream"+query, nil) //nolint:bodyclose // a session has none
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
		c.t.Fatal(err)
	}
}

// next reads one message: an answer or the last word.
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

// testFolderOfFrames is the client of the socket server: it streams a folder in
// natural order with numbers and an end mark, and gets boxes in order.
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
			pic, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("frame%d.png", i)))
			if err != nil {
				t.Error(err)
			}
			c.send(websocket.MessageText, fmt.Sprintf(`{"frame":%d}`, i))
			c.send(websocket.MessageBinary, string(pic))
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
			switch {
			case !end.End:
				t.Errorf("the end is %+v: want end.End", end)
			case end.Frames != n:
				t.Errorf("the end is %+v: end.Frames %v, want %v", end, end.Frames, n)
			case end.Next != n+1:
				t.Errorf("the end is %+v: end.Next %v, want %v", end, end.Next, n+1)
			}
			break
		}
		switch {
		case a.Frame != want:
			t.Fatalf("answer %d is %+v: frame %v, want %v", want, a, a.Frame, want)
		case a.Status != v1.Done:
			t.Fatalf("answer %d is %+v: status %v, want done", want, a, a.Status)
		case len(a.Result.Regions) != 1:
			t.Fatalf("answer %d is %+v: %d Result.Regions, want 1", want, a, len(a.Result.Regions))
		}
		if x := a.Result.Regions[0].Box.X; x < left+15 {
			t.Errorf("frame %d has its face at %d, the one before at %d", want, x, left)
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
			t.Errorf("answer %d is %+v %v, want %q: frame %v, want %v", i, a, a.Problem, want, a.Frame, int64(i))
		case (a.Problem == nil) != (want == ""):
			t.Errorf("answer %d is %+v %v, want %q: (a.Problem == nil) %v, want %v",
				i, a, a.Problem, want, (a.Problem == nil), (want == ""))
		case a.Problem != nil && a.Problem.Code != want:
			t.Errorf("answer %d is %+v %v, want %q: want not a.Problem != nil && a.Problem.Code != want",
				i, a, a.Problem, want)
		}
	}
	_, end, err := c.next()
	switch {
	case err != nil:
		t.Errorf("the end is %+v, %v", end, err)
	case end == nil:
		t.Errorf("the end is %+v, %v: no end", end, err)
	case end.End:
		t.Errorf("the end is %+v, %v: want not end.End", end, err)
	case end.Next != 5:
		t.Errorf("the end is %+v, %v: end.Next %v, want 5", end, err, end.Next)
	case end.Problem == nil:
		t.Errorf("the end is %+v, %v: no end.Problem", end, err)
	case end.Problem.Code != v1.FrameOutOfOrder:
		t.Errorf("the end is %+v, %v: end.Problem.Code %v, want frame-out-of-order", end, err, end.Problem.Code)
	case end.Problem.Limit != 5:
		t.Errorf("the end is %+v, %v: end.Problem.Limit %v, want 5", end, err, end.Problem.Limit)
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
				t.Errorf("%d answers, the end is %+v: end.Next %v, want %v", want, end, end.Next, n)
			case want != n:
				t.Errorf("%d answers, the end is %+v: want %v, want %v", want, end, want, n)
			}
			break
		}
		switch {
		case a.Frame != want:
			t.Fatalf("answer %d is %+v: frame %v, want %v", want, a, a.Frame, want)
		case a.Status != v1.Done && a.Status != v1.Dropped:
			t.Fatalf("answer %d is %+v: want not a.Status != v1.Done && a.Status != v1.Dropped", want, a)
		}
		if a.Status == v1.Dropped {
			dropped++
		}
		if want == n-1 && a.Status != v1.Done {
			t.Error("the latest frame of all was dropped")
		}
	}
	if dropped == 0 {
		t.Error("no frame was dropped of a client that sends faster than a page is read")
	}
}

// TestSessions_ResumeAfterIngressIsKilled kills the ingress in the middle of a
// session; the client goes on where the answers ended.
func TestSessions_ResumeAfterIngressIsKilled(t *testing.T) {
	testSessionResumes(t, start(t, nil))
}

func testSessionResumes(t *testing.T, m *mesh) {
	const n, diesAfter = 20, 6
	answered := map[int64]int{}
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
				t.Fatalf("got %+v, want frame %d: status %v, want done", a, from, a.Status)
			case a.Frame != from:
				t.Fatalf("got %+v, want frame %d: frame %v, want %v", a, from, a.Frame, from)
			}
			answered[a.Frame]++
			if from++; from == diesAfter {
				for _, pid := range m.pids(t, "ingress") {
					kill(t, pid)
				}
			}
		}
		<-sent
		if round == 0 && (from < diesAfter || from == n) { // some may have been on their way
			t.Errorf("%d answers came before the ingress died after %d", from, diesAfter)
		}
		eventually(t, timeoutAnswer, func() error { // it is started again
			a, err := m.tryPost("?pipeline=faces", sampleFace(t))
			if err == nil && a.status != http.StatusOK {
				err = fmt.Errorf("%v", a)
			}
			return err
		})
	}
	for i := range int64(n) {
		if answered[i] != 1 {
			t.Errorf("frame %d was answered %d times", i, answered[i])
		}
	}
}
