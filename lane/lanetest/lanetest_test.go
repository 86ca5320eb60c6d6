package lanetest

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	_ "image/jpeg" // to decode
	_ "image/png"  // to decode
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
)

// The test binary is also the lane program. Its argument is the rule that it breaks.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "lane" {
		if err := serve(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func serve(broken string) error {
	fmt.Fprintln(os.Stderr, "this program breaks:", broken)
	h := &handler{broken: broken}
	if broken == "ignores end of file" {
		_ = lane.Serve(os.NewFile(lane.FD, "lane"), h) // an error is ignored too
		select {}
	}
	if broken == "says goodbye" {
		f := os.NewFile(lane.FD, "lane")
		if err := lane.Serve(f, h); err != nil {
			return err
		}
		return h.write("bye")
	}
	if broken == "child outside of the group" {
		child := exec.Command("sleep", "1000")
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := child.Start(); err != nil {
			return err
		}
	}
	if broken == "child in the group" { // which a worker ends
		if err := exec.Command("sleep", "1000").Start(); err != nil {
			return err
		}
	}
	return lane.Run(h)
}

// handler finds the whole image and reads nothing, except where it breaks a rule.
type handler struct {
	broken   string
	requests int
}

func (h *handler) Start(s lane.Start) (map[string]lane.Loaded, error) {
	switch h.broken {
	case "hangs at start":
		select {}
	case "serves nothing":
		return map[string]lane.Loaded{pipelineName: {Error: "no such model"}}, nil
	case "writes a banner":
		if err := h.write("ready in 3, 2, 1 ..."); err != nil {
			return nil, err
		}
		select {} // a process that ends is reported as such
	}
	return map[string]lane.Loaded{pipelineName: {Models: []v1.Model{{Name: "whole"}}}}, nil
}

func (h *handler) write(text string) error {
	_, err := os.NewFile(lane.FD, "lane").WriteString(text)
	return err
}

func (h *handler) Detect(d lane.Detect, file []byte) (lane.Detected, [][]byte, error) {
	if h.requests++; h.requests > 1 && h.broken == "serves one request" {
		return lane.Detected{}, nil, errors.New("enough")
	}
	img, _, err := image.DecodeConfig(bytes.NewReader(file))
	if err == nil {
		_, _, err = image.Decode(bytes.NewReader(file))
	}
	if err != nil {
		switch h.broken {
		case "dies of damaged images":
			os.Exit(1)
		case "has no code for damaged images":
			return lane.Detected{}, nil, err
		}
		return lane.Detected{}, nil, v1.NewProblem(v1.Damaged, "%v", err)
	}
	out := lane.Detected{Width: img.Width, Height: img.Height}
	if at := bytes.Index(file, []byte("Exif\x00\x00")); at > 0 && h.broken != "ignores orientation" {
		out.Width, out.Height, out.Orientation = img.Height, img.Width, 6
	}
	region := lane.Region{Box: v1.Box{Width: out.Width, Height: out.Height}, Label: "image"}
	switch h.broken {
	case "score in percent":
		region.Score = 93.7
	case "box outside of small images":
		region.Box.Width = max(out.Width, 2)
	case "ignores max_regions":
		out.Regions = append(out.Regions, region)
	case "misspelt field":
		reply := struct {
			Type    lane.Type `json:"type"`
			ID      uint64    `json:"id"`
			Regions []any     `json:"regoins"`
		}{lane.TypeDetected, d.ID, nil}
		if err := lane.WriteFrame(os.NewFile(lane.FD, "lane"), reply); err != nil {
			return out, nil, err
		}
	case "second frame":
		if err := h.write("\x00\x00\x00\x02\x00\x00\x00\x00{}"); err != nil {
			return out, nil, err
		}
	}
	out.Regions = append(out.Regions, region)
	if h.broken == "no crops" || !d.Crops {
		return out, nil, nil
	}
	out.Crops = []lane.Crop{{Width: 2, Height: 1, Channels: 1}}
	return out, [][]byte{{0, 1}}, nil
}

func (h *handler) Classify(c lane.Classify, _ []byte) (out lane.Classified, err error) {
	for _, crop := range c.Crops {
		a := lane.CropLabel{Region: crop.Region, Labels: []v1.Label{{Label: "dark", Score: 0.5}}}
		switch h.broken {
		case "every crop is region 0":
			a.Region = 0
		case "word outside of small crops":
			a.Words = []v1.Word{{Text: "a", Box: v1.Box{Width: 2, Height: 1}}}
		case "rejects color":
			if crop.Channels == 3 {
				return out, v1.NewProblem(v1.InvalidMessage, "want grey")
			}
		case "one entry":
			out.Answers = nil
		}
		out.Answers = append(out.Answers, a)
	}
	return out, nil
}

// program is the lane program of these tests that breaks a rule.
func program(broken string) Program {
	return Program{
		Args: []string{os.Args[0], "lane", broken}, MediaTypes: []string{jpegType, pngType}, Crops: true,
	}
}

func TestRun_Detect(t *testing.T) {
	t.Parallel()
	p := program("nothing")
	file, err := encode(drawing(33, 22), pngType)
	if err != nil {
		t.Fatal(err)
	}
	p.Images = [][]byte{file}
	Run(t, p)
}

func TestRun_DetectWithoutCrops(t *testing.T) {
	t.Parallel()
	p := program("nothing")
	p.Crops = false
	Run(t, p)
}

func TestRun_Classify(t *testing.T) {
	t.Parallel()
	p := program("nothing")
	p.Stage = subject.Classify
	Run(t, p)
}

// TestRun_ChildInTheGroup: a worker ends such a child together with its lane.
func TestRun_ChildInTheGroup(t *testing.T) {
	t.Parallel()
	Run(t, program("child in the group"))
}

// TestChecks_FindBrokenRules has a program for each rule, and checks that the suite
// names the rule in the right check.
func TestChecks_FindBrokenRules(t *testing.T) {
	t.Parallel()
	const detect, classify = subject.Detect, subject.Classify
	for _, tt := range []struct {
		broken string
		stage  subject.Stage
		check  string
		want   string // in the error
	}{
		{"hangs at start", detect, "Ready", "not ready: start lane program"},
		{"serves nothing", detect, "Ready", "not ready: no such model"},
		{"writes a banner", detect, "Ready", "protocol"},
		{"serves one request", detect, "Images", "image/png of 160 x 120: internal: enough"},
		{"score in percent", detect, "Images", "regions.0.score: 93.7, want 0 to 1"},
		{"no crops", detect, "Images", "crops: 0 of them"},
		{"box outside of small images", detect, "SmallestImage", "regions.0.box: 2 x 1"},
		{"ignores max_regions", detect, "MaxRegions", "regions: 2 of them, want at most 1"},
		{"dies of damaged images", detect, "DamagedImage", "a text file: lane-died"},
		{"has no code for damaged images", detect, "DamagedImage", "want failed with the code damaged"},
		{"ignores orientation", detect, "Orientation", "orientation is 0, want 6"},
		{"second frame", detect, "NothingElseOnTheSocket", `request 1: the reply has the type ""`},
		{"misspelt field", detect, "NothingElseOnTheSocket", `the reply detected has the field "regoins"`},
		{"says goodbye", detect, "NothingElseOnTheSocket", `wrote 3 bytes after its last reply: "bye"`},
		{"ignores end of file", detect, "EndOfFile", "did not exit within"},
		{"ignores end of file", detect, "EndOfFileDuringARequest", "did not exit within"},
		{"child outside of the group", detect, "EndOfFile", "(sleep 1000) is left outside of the process group"},
		{"every crop is region 0", classify, "Crops", "answers.1.region is 0, want 1"},
		{"one entry", classify, "Crops", "answers: 1 of them"},
		{"rejects color", classify, "Crops", "4 crops of 3 channels: invalid-message: want grey"},
		{"word outside of small crops", classify, "SmallestCrop", "answers.0.words.0.box: 2 x 1"},
	} {
		t.Run(tt.broken+"/"+tt.check, func(t *testing.T) {
			t.Parallel()
			p := program(tt.broken)
			p.Stage, p.Timeout, p.StartTimeout = tt.stage, time.Minute, time.Minute
			if tt.broken == "hangs at start" {
				p.StartTimeout = time.Second
			}
			p, err := p.withDefaults()
			if err != nil {
				t.Fatal(err)
			}
			s, err := newSuite(p)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := s.close(); err != nil {
					t.Error(err)
				}
			})
			s.endTimeout = time.Minute
			if tt.broken == "ignores end of file" {
				s.endTimeout, s.program.Timeout = time.Second, time.Second
			}
			cs := checks(p)
			c := cs[slices.IndexFunc(cs, func(c check) bool { return c.name == tt.check })]
			err = c.run(t.Context(), s)
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the error is %q, want %q in it", err, tt.want)
			}
			// The output is read beside the socket, and can arrive after the error.
			eventually.Succeeds(t, time.Minute, func() error {
				if want := "this program breaks: " + tt.broken; !strings.Contains(s.output.String(), want) {
					return fmt.Errorf("the output of the program is %q, want %q in it", s.output, want)
				}
				return nil
			})
		})
	}
}

func TestProgram_InvalidFields(t *testing.T) {
	t.Parallel()
	args := []string{"p"}
	for want, p := range map[string]Program{
		"Args":                {},
		"Stage":               {Args: args, Stage: "draw"},
		"MediaTypes":          {Args: args, MediaTypes: []string{"image/gif"}},
		"Channels":            {Args: args, Channels: []int{4}},
		"field Timeout:":      {Args: args, Timeout: -1},
		"field StartTimeout:": {Args: args, StartTimeout: -1},
		"field Memory:":       {Args: args, Memory: -1},
	} {
		if _, err := p.withDefaults(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v", want, err)
		}
	}
}

// TestRun_Python tests the example of docs/lanes.md.
func TestRun_Python(t *testing.T) {
	t.Parallel()
	script, err := filepath.Abs("../../docs/lanes/colour.py")
	if err != nil {
		t.Fatal(err)
	}
	Run(t, Program{Args: []string{"python3", script}, MediaTypes: []string{bmpType}})
}

func TestProgram_HasEmptySettingsByDefault(t *testing.T) {
	t.Parallel()
	p, err := program("nothing").withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if got := string(p.Setup.Settings); got != "{}" {
		t.Errorf("the settings are %q, want {}", got)
	}
}
