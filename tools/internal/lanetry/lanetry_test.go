package lanetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/image/bmp"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/tools/internal/exit"
)

// TestMain makes this program a lane when its first argument is lane.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "lane" {
		if err := lane.Run(testLane{os.Args[2]}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// testLane is a lane that works, or fails as its field does says.
type testLane struct{ does string }

func (l testLane) Start(s lane.Start) (map[string]lane.Loaded, error) {
	loaded := map[string]lane.Loaded{}
	for name, p := range s.Pipelines {
		fmt.Fprintf(os.Stderr, "settings %s\n", p.Settings)
		loaded[name] = lane.Loaded{Models: []v1.Model{{Name: "test", Version: "7"}}}
		if l.does == "not-ready" {
			loaded[name] = lane.Loaded{Error: "no such network"}
		}
	}
	return loaded, nil
}

func (l testLane) Detect(d lane.Detect, file []byte) (lane.Detected, [][]byte, error) {
	found := lane.Detected{Width: 2, Height: 1, Regions: []lane.Region{
		{Box: v1.Box{Width: 2, Height: 1}, Score: 0.5, Label: d.MediaType},
	}}
	switch l.does {
	case "wrong":
		found.Regions[0].Score = 93.7
	case "die":
		fmt.Fprintln(os.Stderr, "out of luck")
		os.Exit(3)
	case "damaged":
		return found, nil, v1.NewProblem(v1.Damaged, "%d bytes are no image", len(file))
	}
	if !d.Crops {
		return found, nil, nil
	}
	found.Crops = []lane.Crop{{Width: 2, Height: 1, Channels: 1}}
	return found, [][]byte{{1, 2}}, nil
}

func (l testLane) Classify(c lane.Classify, pixels []byte) (lane.Classified, error) {
	return lane.Classified{Answers: []lane.CropLabel{{
		Region: 0, Text: fmt.Sprintf("%dx%dx%d %v", c.Crops[0].Width, c.Crops[0].Height, c.Crops[0].Channels, pixels),
	}}}, nil
}

// testImage writes an image of 2 × 1 pixels, of which the first is blue.
func testImage(t *testing.T, asBMP bool) string {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, 2, 1))
	copy(m.Pix, []byte{0, 0, 255, 255, 0, 0, 255, 255})
	var b bytes.Buffer
	encode, name := func() error { return png.Encode(&b, m) }, "image.png"
	if asBMP {
		encode, name = func() error { return bmp.Encode(&b, m) }, "image.bmp"
	}
	if err := encode(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// buffer is a bytes.Buffer that several goroutines write to.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// runTry runs the command with its arguments, flags first.
func runTry(t *testing.T, argv ...string) (stdout []byte, stderr string, err error) {
	t.Helper()
	fs := flag.NewFlagSet("lane try", flag.ContinueOnError)
	var cfg Config
	cfg.Register(fs)
	if err := fs.Parse(argv); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	var errs buffer
	err = Run(t.Context(), cfg, fs.Args(), &out, &errs)
	return out.Bytes(), errs.String(), err
}

// decodeReply reads what the command printed into reply.
func decodeReply(t *testing.T, stdout []byte, reply any) {
	t.Helper()
	if err := json.Unmarshal(stdout, reply); err != nil {
		t.Fatalf("standard output is no JSON: %v:\n%s", err, stdout)
	}
}

func TestRun_PrintsTheReplyOfThePythonExample(t *testing.T) {
	t.Parallel()
	stdout, stderr, err := runTry(t, "python3", "../../../docs/lanes/colour.py", testImage(t, true))
	if err != nil {
		t.Fatalf("%v:\n%s", err, stderr)
	}
	var found lane.Detected
	decodeReply(t, stdout, &found)
	if len(found.Regions) != 1 {
		t.Fatalf("%d regions, want 1:\n%s", len(found.Regions), stdout)
	}
	if got := found.Regions[0].Label; got != "blue" {
		t.Errorf("label %q, want blue", got)
	}
	for _, want := range []string{"ready after ", "model mean-colour 1\n", "detect took ", "MiB at most"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("standard error has no %q:\n%s", want, stderr)
		}
	}
}

func TestRun_PassesSettingsAndShowsTheOutputOfTheLane(t *testing.T) {
	t.Parallel()
	stdout, stderr, err := runTry(t, "--settings", `{"a":1}`, os.Args[0], "lane", "work", testImage(t, false))
	if err != nil {
		t.Fatalf("%v:\n%s", err, stderr)
	}
	if want := `settings {"a":1}`; !strings.Contains(stderr, want) {
		t.Errorf("standard error has no %q:\n%s", want, stderr)
	}
	var found lane.Detected
	decodeReply(t, stdout, &found)
	if len(found.Crops) != 0 {
		t.Errorf("%d crops, want none without --crops", len(found.Crops))
	}
	if got := found.Regions[0].Label; got != "image/png" {
		t.Errorf("the lane got the media type %q, want image/png", got)
	}
}

func TestRun_SendsEmptySettingsByDefault(t *testing.T) {
	t.Parallel()
	_, stderr, err := runTry(t, os.Args[0], "lane", "work", testImage(t, false))
	if err != nil {
		t.Fatalf("%v:\n%s", err, stderr)
	}
	if want := "settings {}\n"; !strings.Contains(stderr, want) {
		t.Errorf("standard error has no %q:\n%s", want, stderr)
	}
}

func TestRun_RequestsCrops(t *testing.T) {
	t.Parallel()
	stdout, stderr, err := runTry(t, "--crops", os.Args[0], "lane", "work", testImage(t, false))
	if err != nil {
		t.Fatalf("%v:\n%s", err, stderr)
	}
	var found lane.Detected
	decodeReply(t, stdout, &found)
	if len(found.Crops) != 1 {
		t.Errorf("%d crops, want 1", len(found.Crops))
	}
}

func TestRun_SendsTheImageAsOneCropToClassify(t *testing.T) {
	t.Parallel()
	stdout, stderr, err := runTry(t, "--stage", "classify", os.Args[0], "lane", "work", testImage(t, false))
	if err != nil {
		t.Fatalf("%v:\n%s", err, stderr)
	}
	var named lane.Classified
	decodeReply(t, stdout, &named)
	if got, want := named.Answers[0].Text, "2x1x3 [255 0 0 255 0 0]"; got != want {
		t.Errorf("the lane got the crop %q, want %q: blue, green, red", got, want)
	}
}

func TestRun_LaneThatFails(t *testing.T) {
	t.Parallel()
	for does, want := range map[string]string{
		"wrong":     "regions.0.score: 93.7, want 0 to 1",
		"die":       "out of luck",
		"damaged":   "bytes are no image",
		"not-ready": "no such network",
	} {
		t.Run(does, func(t *testing.T) {
			t.Parallel()
			stdout, _, err := runTry(t, os.Args[0], "lane", does, testImage(t, false))
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want an error with %q", err, want)
			}
			if got := exit.Status(err); got != exit.Failure {
				t.Errorf("exit status %d, want %d", got, exit.Failure)
			}
			if len(stdout) > 0 {
				t.Errorf("standard output is not empty:\n%s", stdout)
			}
			var p *v1.Problem
			if isProblem := errors.As(err, &p); isProblem != (does != "not-ready") {
				t.Errorf("the error is a problem: %t: %v", isProblem, err)
			}
		})
	}
}

// TestRun_NotReadyWithoutAnImage: the file may be an argument of PROGRAM, and IMAGE missing.
func TestRun_NotReadyWithoutAnImage(t *testing.T) {
	t.Parallel()
	file := writeFile(t, "settings.json", "{}")
	_, _, err := runTry(t, os.Args[0], "lane", "not-ready", file)
	want := "the lane is not ready: no such network (" + file + ", the last argument, is not an image)"
	if err == nil || err.Error() != want {
		t.Errorf("the error is %v, want %s", err, want)
	}
}

// TestRun_SendsAFileThatIsNotAnImage: a lane has to reject such files, so users send them.
func TestRun_SendsAFileThatIsNotAnImage(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"empty.png": "", "text.png": "text", "text.txt": "text", "text": "text", "zeros.py": "\x00\x00\x00\x00",
	} {
		stdout, stderr, err := runTry(t, os.Args[0], "lane", "work", writeFile(t, name, content))
		if err != nil {
			t.Errorf("%s: %v:\n%s", name, err, stderr)
			continue
		}
		var found lane.Detected
		decodeReply(t, stdout, &found)
		if len(found.Regions) != 1 {
			t.Errorf("%s: %d regions, want 1", name, len(found.Regions))
		}
	}
}

// writeFile writes a file and returns its path.
func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRun_ErrorsOfArguments checks the text of the errors that tell a user what to change.
func TestRun_ErrorsOfArguments(t *testing.T) {
	t.Parallel()
	file := testImage(t, false)
	for name, tt := range map[string]struct {
		argv []string
		want string
	}{
		"none": {nil, "lane try: no arguments; want PROGRAM [ARGUMENT...] IMAGE, or --pipeline NAME IMAGE"},
		"one": {[]string{"image.png"},
			"lane try: one argument, image.png; want PROGRAM [ARGUMENT...] IMAGE, or --pipeline NAME IMAGE"},
		"flag after PROGRAM": {[]string{"python3", file, "--settings", `{"columns":2}`},
			`image: open {"columns":2}: no such file or directory; flags come before PROGRAM`},
		"no image": {[]string{"python3", "/nothing/here.png"},
			"image: open /nothing/here.png: no such file or directory"},
		"two images": {[]string{"--pipeline", "faces", file, file},
			"lane try --pipeline: want one image, have 2 arguments"},
		"flag after IMAGE": {[]string{"--pipeline", "faces", file, "--stage", "classify"},
			"lane try --pipeline: want one image, have 3 arguments; flags come before IMAGE"},
	} {
		_, _, err := runTry(t, tt.argv...)
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s: the error is %v, want %s", name, err, tt.want)
		}
		if got := exit.Status(err); got != exit.Usage {
			t.Errorf("%s: exit status %d, want %d", name, got, exit.Usage)
		}
	}
}

func TestRun_WrongArguments(t *testing.T) {
	t.Parallel()
	file := testImage(t, false)
	for name, argv := range map[string][]string{
		"no program":            {file},
		"no image":              {"python3", "colour.py", "/nothing/here.png"},
		"stage":                 {"--stage", "draw", "x", file},
		"settings":              {"--settings", "{", "x", file},
		"timeout":               {"--timeout", "0s", "x", file},
		"memory":                {"--lane-memory", "1", "x", file},
		"unknown pipeline":      {"--pipeline", "nosuch", file},
		"pipeline and program":  {"--pipeline", "faces", "x", file},
		"pipeline and crops":    {"--pipeline", "faces", "--crops", file},
		"no such stage":         {"--pipeline", "codes", "--stage", "classify", file},
		"file without pipeline": {"--pipelines", "pipelines.yaml", "x", file},
	} {
		_, _, err := runTry(t, argv...)
		if got := exit.Status(err); got != exit.Usage {
			t.Errorf("%s: exit status %d, want %d: %v", name, got, exit.Usage, err)
		}
	}
}
