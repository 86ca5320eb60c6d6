package drawings

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sightmesh/sightmesh/contracts/client"
	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/lane/pool"
	"github.com/sightmesh/sightmesh/services/detect/internal/detectors"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
	"github.com/sightmesh/sightmesh/services/internal/imagefile"
	"github.com/sightmesh/sightmesh/services/internal/run"
	"github.com/sightmesh/sightmesh/services/internal/run/runtest"
	"github.com/sightmesh/sightmesh/services/internal/worker"
)

// testTimeout limits waits that only a test that hangs reaches.
const testTimeout = time.Minute

// TestMain makes the test binary also the lane program of detect, and a lane program that
// never responds.
func TestMain(m *testing.M) {
	switch strings.Join(os.Args[1:], " ") {
	case worker.LaneCommand:
		if err := detectors.Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	case "hang":
		if err := lane.Run(hangingLane{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// hangingLane is a lane that never responds to a request to draw.
type hangingLane struct{ lane.Handler }

func (hangingLane) Start(s lane.Start) (map[string]lane.Loaded, error) {
	return map[string]lane.Loaded{name: {}}, nil
}

func (hangingLane) Draw(lane.Draw, []byte) (lane.Drawn, []byte, error) { select {} }

// startService runs the drawing service of a detect process with these flags until the test ends.
// Its lane has a minute for each image, because a busy machine draws slowly.
func startService(t *testing.T, s *bustest.Server, args ...string) *runtest.Service {
	t.Helper()
	var o Options
	var lanes worker.Options
	limits := imagefile.DefaultLimits()
	d := runtest.Start(t, run.Spec{
		Name: "detect",
		Flags: func(fs *flag.FlagSet) {
			o.Register(fs)
			lanes.Register(fs)
			limits.Register(fs)
		},
		New: func(p *run.Process) (run.Service, error) {
			return newWithLaneTimeout(p, o, lanes, limits, testTimeout)
		},
	}, append([]string{"--nats", s.URL}, args...)...)
	awaitService(t, s)
	return d
}

// startHanging runs a service with one lane, which never responds.
func startHanging(t *testing.T, s *bustest.Server) *runtest.Service {
	t.Helper()
	d := runtest.Start(t, run.Spec{
		Name: "detect",
		New: func(p *run.Process) (run.Service, error) {
			return newService(p, pool.Config{
				Lanes: 1, StartTimeout: testTimeout,
				Programs: []pool.Program{{
					Name: name, Argv: []string{os.Args[0], "hang"},
					Pipelines: map[string]pool.Pipeline{name: {Timeout: testTimeout}},
				}},
			}, imagefile.DefaultLimits())
		},
	}, "--nats", s.URL, "--grace", "1ms")
	awaitService(t, s)
	return d
}

// awaitService waits until a worker replies to requests to draw.
func awaitService(t *testing.T, s *bustest.Server) {
	t.Helper()
	nc := s.Connect(t)
	eventually.Succeeds(t, testTimeout, func() error {
		_, err := nc.Request(subject.Draw(), nil, testTimeout)
		return err
	})
}

// newClient returns a client of the mesh.
func newClient(t *testing.T, s *bustest.Server) *client.Client {
	t.Helper()
	c, err := client.New(s.Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// encode encodes an image as PNG.
func encode(t *testing.T, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// noiseImage returns an image that cannot be compressed.
func noiseImage(w, h int) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	source := rand.NewChaCha8([32]byte{})
	source.Read(img.Pix)
	for i := 3; i < len(img.Pix); i += 4 {
		img.Pix[i] = 255
	}
	return img
}

// checkCode checks that err is a problem with this code.
func checkCode(t *testing.T, err error, want v1.Code) {
	t.Helper()
	var p *v1.Problem
	if !errors.As(err, &p) {
		t.Errorf("got %v, want a problem with the code %s", err, want)
	} else if p.Code != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestService_Draws(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, pipeline.BuiltInNames()...)
	startService(t, s)
	blank := image.NewGray(image.Rect(0, 0, 200, 100))
	regions := []v1.Region{{Box: v1.Box{X: 50, Y: 40, Width: 100, Height: 50}, Label: "face", Score: 1}}
	for _, kind := range []string{"png", "jpeg"} {
		out, err := newClient(t, s).Draw(t.Context(), encode(t, blank), v1.Result{Regions: regions}, "image/"+kind)
		if err != nil {
			t.Fatal(err)
		}
		img, got, err := image.Decode(bytes.NewReader(out))
		if err != nil {
			t.Fatal(err)
		}
		if got != kind {
			t.Errorf("the image is a %s, want %s", got, kind)
		}
		if r, g, b, _ := img.At(50, 60).RGBA(); r+g+b < 0x8000 {
			t.Errorf("%s: the edge of the box is %v", kind, img.At(50, 60))
		}
		if r, g, b, _ := img.At(100, 70).RGBA(); r+g+b > 0x2000 {
			t.Errorf("%s: the inside of the box is %v, want black", kind, img.At(100, 70))
		}
	}
}

func TestService_DrawsInSeveralPieces(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, pipeline.BuiltInNames()...)
	startService(t, s)
	img := noiseImage(1000, 800)
	out, err := newClient(t, s).Draw(t.Context(), encode(t, img), v1.Result{}, "image/png")
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 3*v1.MaxPiece {
		t.Fatalf("the image has %d bytes, want several pieces", len(out))
	}
	got, err := png.Decode(bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	for y := range 800 {
		for x := range 1000 {
			if color.RGBAModel.Convert(got.At(x, y)) != img.At(x, y) {
				t.Fatalf("%d,%d is %v, want %v", x, y, got.At(x, y), img.At(x, y))
			}
		}
	}
}

func TestService_AppliesTheImageLimits(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, pipeline.BuiltInNames()...)
	startService(t, s, "--max-pixels", "100", "--max-bytes", "1000")
	c := newClient(t, s)
	for name, tt := range map[string]struct {
		file []byte
		want v1.Code
	}{
		"pixels":  {encode(t, image.NewGray(image.Rect(0, 0, 11, 10))), v1.TooManyPixels},
		"bytes":   {encode(t, noiseImage(20, 20)), v1.TooLarge},
		"type":    {[]byte("no image"), v1.UnsupportedType},
		"nothing": {nil, v1.EmptyBody},
		"damaged": {encode(t, image.NewGray(image.Rect(0, 0, 10, 10)))[:40], v1.Damaged},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.Draw(t.Context(), tt.file, v1.Result{}, "image/png")
			checkCode(t, err, tt.want)
		})
	}
}

func TestService_RejectsAnInvalidRequest(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, pipeline.BuiltInNames()...)
	startService(t, s)
	m, err := s.Connect(t).Request(subject.Draw(), []byte(`{"media_type":"image/gif"}`+"\n"), testTimeout)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Header.Get("Nats-Service-Error-Code"); got != "400" {
		t.Errorf("the code is %q, want 400: %s", got, m.Data)
	}
}

// TestService_LimitsWaitingRequests fills every place: one more request is rejected. When
// the process then stops, it rejects each waiting request with unavailable.
func TestService_LimitsWaitingRequests(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, pipeline.BuiltInNames()...)
	d := startHanging(t, s)
	nc := s.Connect(t)
	replies, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	body, err := v1.DrawRequest{MediaType: "image/png"}.Encode(encode(t, image.NewGray(image.Rect(0, 0, 8, 8))))
	if err != nil {
		t.Fatal(err)
	}
	const places = 1 + waitersPerLane
	for range places {
		if err := nc.PublishRequest(subject.Draw(), replies.Subject, body); err != nil {
			t.Fatal(err)
		}
	}
	c, err := client.New(nc) // on the same connection, so that its request comes last
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Draw(t.Context(), encode(t, image.NewGray(image.Rect(0, 0, 8, 8))), v1.Result{}, "image/png")
	checkCode(t, err, v1.Overloaded)
	if after, _ := retry.Delay(err); after != busyDelay {
		t.Errorf("Retry-After is %v, want %v", after, busyDelay)
	}
	d.Stop()
	for range places {
		m, err := replies.NextMsg(testTimeout)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(m.Data, []byte(v1.Unavailable)) {
			t.Errorf("the reply to a waiting request is %q, want %s", m.Data, v1.Unavailable)
		}
	}
	if err := d.Wait(t); err != nil {
		t.Errorf("the service ended with %v", err)
	}
}

// TestService_LimitsTheTimeOfARequest repeats the request while the lane is being started. The client waits for less
// than requestTimeout, the limit of requests without one.
func TestService_LimitsTheTimeOfARequest(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, pipeline.BuiltInNames()...)
	startHanging(t, s)
	request := v1.DrawRequest{MediaType: "image/png", TimeoutMS: 50}
	body, err := request.Encode(encode(t, image.NewGray(image.Rect(0, 0, 8, 8))))
	if err != nil {
		t.Fatal(err)
	}
	nc := s.Connect(t)
	var reply []byte
	eventually.Succeeds(t, testTimeout, func() error {
		m, err := nc.Request(subject.Draw(), body, requestTimeout/2)
		if err != nil {
			return err
		}
		if reply = m.Data; bytes.Contains(reply, []byte(v1.Overloaded)) {
			return fmt.Errorf("no lane was free in time: %s", reply)
		}
		return nil
	})
	if !bytes.Contains(reply, []byte(v1.DeadlineExceeded)) {
		t.Errorf("the reply is %s, want %s", reply, v1.DeadlineExceeded)
	}
}

// TestService_StopFinishesRequests stops the process between two pieces of an image: the
// client still receives the other pieces.
func TestService_StopFinishesRequests(t *testing.T) {
	t.Parallel()
	s := bustest.Start(t, pipeline.BuiltInNames()...)
	d := startService(t, s)
	nc := s.Connect(t)
	replies, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	body, err := v1.DrawRequest{MediaType: "image/png"}.Encode(encode(t, noiseImage(800, 600)))
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.PublishRequest(subject.Draw(), replies.Subject, body); err != nil {
		t.Fatal(err)
	}
	m, err := replies.NextMsg(testTimeout)
	if err != nil {
		t.Fatal(err)
	}
	d.Stop()
	other := newClient(t, s)
	for { // until the endpoint has been removed
		_, err := other.Draw(t.Context(), []byte("no image"), v1.Result{}, "image/png")
		var p *v1.Problem
		if errors.As(err, &p) && p.Code == v1.NoWorker {
			break
		}
	}
	for pieces := 1; ; pieces++ {
		p, err := v1.ParsePiece(m.Header.Get(v1.HeaderPiece))
		if err != nil {
			t.Fatalf("%v: %s", err, m.Data)
		}
		if p.Number != pieces-1 {
			t.Fatalf("got piece %v after %d", p, pieces-1)
		}
		if p.Number == p.Total-1 {
			break
		}
		if err := m.Respond(nil); err != nil {
			t.Fatal(err)
		}
		if m, err = replies.NextMsg(testTimeout); err != nil {
			t.Fatalf("after piece %v: %v", p, err)
		}
	}
	if err := d.Wait(t); err != nil {
		t.Errorf("the service ended with %v", err)
	}
}

func TestNew_WithoutLanesReturnsNil(t *testing.T) {
	t.Parallel()
	d, err := New(&run.Process{}, Options{lanes: 0}, worker.Options{}, imagefile.DefaultLimits())
	if err != nil {
		t.Error(err)
	}
	if d != nil {
		t.Errorf("got %v, want no service", d)
	}
}

func TestOptions_Validate(t *testing.T) {
	t.Parallel()
	for lanes, want := range map[int]string{-1: "draw-lanes: -1, want 0 or more", 0: "", 1: ""} {
		got := ""
		if err := (&Options{lanes: lanes}).Validate(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%d lanes: the error is %q, want %q", lanes, got, want)
		}
	}
}
