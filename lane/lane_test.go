package lane

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func TestFrames(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := WriteFrame(&b, Failed{Type: TypeFailed, ID: 3}, []byte("ab"), nil, []byte("c")); err != nil {
		t.Fatal(err)
	}
	whole := bytes.Clone(b.Bytes())
	facts, pixels, err := ReadFrame(&b)
	if err != nil || string(pixels) != "abc" || !strings.Contains(string(facts), `"id":3`) {
		t.Fatalf("got %s %s %v", facts, pixels, err)
	}
	if _, _, err := ReadFrame(&b); !errors.Is(err, io.EOF) {
		t.Errorf("between frames: %v, want EOF", err)
	}
	for _, n := range []int{4, headerLen, len(whole) - 1} {
		if _, _, err := ReadFrame(bytes.NewReader(whole[:n])); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d bytes: %v, want unexpected EOF", n, err)
		}
	}
	huge := binary.BigEndian.AppendUint32(nil, MaxFacts+1)
	if _, _, err := ReadFrame(bytes.NewReader(append(huge, 0, 0, 0, 0))); !errors.Is(err, ErrFrameTooLarge) {
		t.Errorf("too large: %v", err)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02\x00\x00\x00\x01{}x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) >= headerLen && binary.BigEndian.Uint32(data) > 1<<20 {
			return // would only ask for memory
		}
		if len(data) >= headerLen && binary.BigEndian.Uint32(data[4:]) > 1<<20 {
			return
		}
		facts, pixels, err := ReadFrame(bytes.NewReader(data))
		if err == nil && len(facts)+len(pixels)+headerLen > len(data) {
			t.Errorf("%d bytes became %d and %d", len(data), len(facts), len(pixels))
		}
	})
}

type echo struct{}

func (echo) Start(s Start) (map[string]Loaded, error) {
	if s.Stage == "refuse" {
		return nil, errors.New("not today")
	}
	return map[string]Loaded{"p": {Models: []v1.Model{{Name: "echo"}}}}, nil
}

func (echo) Detect(d Detect, pic []byte) (Detected, [][]byte, error) {
	switch string(pic) {
	case "damaged":
		return Detected{}, nil, v1.NewProblem(v1.Damaged, "so it is")
	case "bug":
		return Detected{}, nil, errors.New("a bug")
	}
	return Detected{Width: len(pic), Regions: []Region{{Label: d.Pipeline}}}, [][]byte{pic, pic}, nil
}

func (echo) Classify(c Classify, pixels []byte) (Classified, error) {
	return Classified{Answers: []CropLabel{{Text: string(pixels)}}}, nil
}

func TestServe(t *testing.T) {
	t.Parallel()
	parent, child := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- Serve(child, echo{}) }()
	ask := func(m any, pixels ...[]byte) (map[string]any, string) {
		t.Helper()
		if err := WriteFrame(parent, m, pixels...); err != nil {
			t.Fatal(err)
		}
		facts, out, err := ReadFrame(parent)
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(facts, &got); err != nil {
			t.Fatal(err)
		}
		return got, string(out)
	}
	if got, _ := ask(Start{Type: TypeStart, Protocol: Protocol, Stage: "detect"}); got["type"] != "ready" {
		t.Errorf("start: %v", got)
	}
	if got, out := ask(Detect{Type: TypeDetect, ID: 1, Pipeline: "p"}, []byte("pic")); got["type"] != "detected" || got["id"] != 1.0 || out != "picpic" {
		t.Errorf("detect: %v %q", got, out)
	}
	if got, _ := ask(Classify{Type: TypeClassify, ID: 2}, []byte("px")); got["type"] != "classified" || got["id"] != 2.0 {
		t.Errorf("classify: %v", got)
	}
	if got, _ := ask(Detect{Type: TypeDetect, ID: 3}, []byte("damaged")); got["type"] != "failed" || got["code"] != "damaged" || got["id"] != 3.0 {
		t.Errorf("problem: %v", got)
	}
	if got, _ := ask(Detect{Type: TypeDetect, ID: 4}, []byte("bug")); got["code"] != "internal" || got["detail"] != "a bug" {
		t.Errorf("error: %v", got)
	}
	parent.Close()
	if err := <-served; err != nil {
		t.Errorf("after end of file: %v", err)
	}
}

// painter is a lane that draws.
type painter struct{ echo }

func (painter) Draw(d Draw, file []byte) (Drawn, []byte, error) {
	if string(file) == "damaged" {
		return Drawn{}, nil, v1.NewProblem(v1.Damaged, "so it is")
	}
	return Drawn{Width: len(file), Height: 1}, []byte(d.MediaType + " " + d.Regions[0].Title), nil
}

// request puts one request to a lane that serves h.
func request(t *testing.T, h Handler, facts any, pixels string) (reply map[string]any, out string) {
	t.Helper()
	parent, child := net.Pipe()
	served := make(chan error, 1)
	go func() {
		err := Serve(child, h)
		child.Close()
		served <- err
	}()
	defer func() {
		parent.Close()
		if err := <-served; err != nil {
			t.Errorf("the lane ended with %v", err)
		}
	}()
	if err := WriteFrame(parent, facts, []byte(pixels)); err != nil {
		t.Fatal(err)
	}
	answer, drawn, err := ReadFrame(parent)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(answer, &reply); err != nil {
		t.Fatal(err)
	}
	return reply, string(drawn)
}

var drawRequest = Draw{Type: TypeDraw, ID: 5, MediaType: "image/png", Regions: []v1.DrawRegion{{Title: "a face"}}}

func TestServe_Draws(t *testing.T) {
	t.Parallel()
	reply, drawn := request(t, painter{}, drawRequest, "pic")
	if reply["type"] != "drawn" {
		t.Errorf("the reply is %v, want drawn", reply)
	}
	if reply["id"] != 5.0 {
		t.Errorf("the id is %v, want 5", reply["id"])
	}
	if reply["width"] != 3.0 {
		t.Errorf("the width is %v, want that of the lane, 3", reply["width"])
	}
	if want := "image/png a face"; drawn != want {
		t.Errorf("drawn is %q, want %q", drawn, want)
	}
}

func TestServe_DrawFailsWithAProblem(t *testing.T) {
	t.Parallel()
	if reply, _ := request(t, painter{}, drawRequest, "damaged"); reply["type"] != "failed" || reply["code"] != "damaged" {
		t.Errorf("the reply is %v, want failed, damaged", reply)
	}
}

// TestServe_WithoutADrawer: a lane that cannot draw says so, and goes on.
func TestServe_WithoutADrawer(t *testing.T) {
	t.Parallel()
	reply, _ := request(t, echo{}, drawRequest, "pic")
	if reply["type"] != "failed" || reply["id"] != 5.0 {
		t.Errorf("the reply is %v, want failed of request 5", reply)
	}
	if reply["code"] != "internal" {
		t.Errorf("the code is %v, want internal", reply["code"])
	}
}

func TestServeEndsOnWhatItDoesNotUnderstand(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]any{
		"unknown type":   Failed{Type: "sing"},
		"other protocol": Start{Type: TypeStart, Protocol: Protocol + 1},
		"refused start":  Start{Type: TypeStart, Protocol: Protocol, Stage: "refuse"},
		"no object":      []int{1},
	} {
		parent, child := net.Pipe()
		served := make(chan error, 1)
		go func() { served <- Serve(child, echo{}) }()
		if err := WriteFrame(parent, m); err != nil {
			t.Fatal(err)
		}
		if err := <-served; err == nil {
			t.Errorf("%s: no error", name)
		}
		parent.Close()
		child.Close()
	}
}

func BenchmarkFrame(b *testing.B) {
	pixels := make([]byte, 100<<10)
	var buf bytes.Buffer
	b.SetBytes(int64(len(pixels)))
	for b.Loop() {
		buf.Reset()
		if err := WriteFrame(&buf, Detect{Type: TypeDetect, ID: 1, Pipeline: "text"}, pixels); err != nil {
			b.Fatal(err)
		}
		if _, _, err := ReadFrame(&buf); err != nil {
			b.Fatal(err)
		}
	}
}
