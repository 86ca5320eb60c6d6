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

func TestReadFrame(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := WriteFrame(&b, Failed{Type: TypeFailed, ID: 3}, []byte("ab"), nil, []byte("c")); err != nil {
		t.Fatal(err)
	}
	whole := bytes.Clone(b.Bytes())
	facts, pixels, err := ReadFrame(&b)
	if err != nil {
		t.Fatal(err)
	}
	if string(pixels) != "abc" {
		t.Errorf("the pixels are %q, want abc", pixels)
	}
	if !strings.Contains(string(facts), `"id":3`) {
		t.Errorf("the facts are %s, want the ID 3", facts)
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
		return nil, errors.New("no such stage")
	}
	return map[string]Loaded{"p": {Models: []v1.Model{{Name: "echo"}}}}, nil
}

func (echo) Detect(d Detect, file []byte) (Detected, [][]byte, error) {
	switch string(file) {
	case "damaged":
		return Detected{}, nil, v1.NewProblem(v1.Damaged, "damaged by the test")
	case "bug":
		return Detected{}, nil, errors.New("a bug")
	}
	return Detected{Width: len(file), Regions: []Region{{Label: d.Pipeline}}}, [][]byte{file, file}, nil
}

func (echo) Classify(c Classify, pixels []byte) (Classified, error) {
	return Classified{Answers: []CropLabel{{Text: string(pixels)}}}, nil
}

// checkFields checks some fields of a reply.
func checkFields(t *testing.T, reply, want map[string]any) {
	t.Helper()
	for field, value := range want {
		if reply[field] != value {
			t.Errorf("%s is %v, want %v, in the reply %v", field, reply[field], value, reply)
		}
	}
}

func TestServe(t *testing.T) {
	t.Parallel()
	parent, child := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- Serve(child, echo{}) }()
	for _, tt := range []struct {
		request any
		pixels  string
		want    map[string]any // fields of the reply
		out     string         // its pixels
	}{
		{Start{Type: TypeStart, Protocol: Protocol, Stage: "detect"}, "", map[string]any{"type": "ready"}, ""},
		{
			Detect{Type: TypeDetect, ID: 1, Pipeline: "p"}, "image",
			map[string]any{"type": "detected", "id": 1.0}, "imageimage",
		},
		{Classify{Type: TypeClassify, ID: 2}, "px", map[string]any{"type": "classified", "id": 2.0}, ""},
		{
			Detect{Type: TypeDetect, ID: 3}, "damaged",
			map[string]any{"type": "failed", "code": "damaged", "id": 3.0}, "",
		},
		{Detect{Type: TypeDetect, ID: 4}, "bug", map[string]any{"type": "failed", "code": "internal", "detail": "a bug"}, ""},
	} {
		if err := WriteFrame(parent, tt.request, []byte(tt.pixels)); err != nil {
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
		checkFields(t, got, tt.want)
		if string(out) != tt.out {
			t.Errorf("%+v: the pixels of the reply are %q, want %q", tt.request, out, tt.out)
		}
	}
	parent.Close()
	if err := <-served; err != nil {
		t.Errorf("after end of file: %v", err)
	}
}

// painter is a lane that can draw.
type painter struct{ echo }

func (painter) Draw(d Draw, file []byte) (Drawn, []byte, error) {
	if string(file) == "damaged" {
		return Drawn{}, nil, v1.NewProblem(v1.Damaged, "damaged by the test")
	}
	return Drawn{Width: len(file), Height: 1}, []byte(d.MediaType + " " + d.Regions[0].Title), nil
}

// request sends one request to a lane that serves h.
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
	replyFacts, drawn, err := ReadFrame(parent)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(replyFacts, &reply); err != nil {
		t.Fatal(err)
	}
	return reply, string(drawn)
}

var drawRequest = Draw{Type: TypeDraw, ID: 5, MediaType: "image/png", Regions: []v1.DrawRegion{{Title: "a face"}}}

func TestServe_Draws(t *testing.T) {
	t.Parallel()
	reply, drawn := request(t, painter{}, drawRequest, "image")
	if reply["type"] != "drawn" {
		t.Errorf("the reply is %v, want drawn", reply)
	}
	if reply["id"] != 5.0 {
		t.Errorf("the id is %v, want 5", reply["id"])
	}
	if reply["width"] != 5.0 {
		t.Errorf("the width is %v, want that of the lane, 5", reply["width"])
	}
	if want := "image/png a face"; drawn != want {
		t.Errorf("drawn is %q, want %q", drawn, want)
	}
}

func TestServe_DrawFailsWithAProblem(t *testing.T) {
	t.Parallel()
	reply, _ := request(t, painter{}, drawRequest, "damaged")
	checkFields(t, reply, map[string]any{"type": "failed", "code": "damaged"})
}

// TestServe_WithoutADrawer: a lane that cannot draw fails the request and continues.
func TestServe_WithoutADrawer(t *testing.T) {
	t.Parallel()
	reply, _ := request(t, echo{}, drawRequest, "image")
	checkFields(t, reply, map[string]any{"type": "failed", "id": 5.0, "code": "internal"})
}

func TestServe_EndsOnInvalidMessages(t *testing.T) {
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

func TestUnknownField(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		facts string
		reply Type
		want  string
	}{
		{`{"type":"detected","id":1,"width":2,"height":2,"regions":[],"timing":{"infer_ms":1}}`, TypeDetected, ""},
		{`{"type":"detected","regoins":[]}`, TypeDetected, "regoins"},
		{`{"type":"detected","regions":[{"box":{}},{"box":{"w":1}}]}`, TypeDetected, "regions.1.box.w"},
		{`{"type":"ready","protocol":1,"pipelines":{"p":{"model":[]}}}`, TypeReady, "pipelines.p.model"},
		{`{"type":"classified","answers":[{"lable":"a"}]}`, TypeClassified, "answers.0.lable"},
		{`{"type":"drawn","depth":8}`, TypeDrawn, "depth"},
		{`{"type":"failed","reason":"a"}`, TypeFailed, "reason"},
		{`{"type":"detected","a\"b":1}`, TypeDetected, `a"b`},
		{`{"type":"detected","width":"2"}`, TypeDetected, ""}, // a wrong type is another error
	} {
		if got := UnknownField([]byte(tt.facts), tt.reply); got != tt.want {
			t.Errorf("%s: unknown field %q, want %q", tt.facts, got, tt.want)
		}
	}
}
