package sessions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/body"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const maxBytes = 1000

// server serves sessions whose frames a function of the test processes.
type server struct {
	url      string
	stop     context.CancelFunc // of Stopping
	memory   *body.Memory
	outcomes atomic.Int64
	ended    chan error // of each session
}

const allMemory = 100 * maxBytes

func startServer(t *testing.T, change func(*Config), read func(ctx context.Context, image string) v1.Result) *server {
	t.Helper()
	stopping, stop := context.WithCancel(context.Background())
	s := &server{stop: stop, memory: body.NewMemory(allMemory, allMemory), ended: make(chan error, 10)}
	var sessions sync.WaitGroup // the HTTP server does not wait for them
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sessions.Add(1)
		defer sessions.Done()
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		cfg := Config{
			Conn: conn, Window: 4, MaxBytes: maxBytes,
			NewReservation: func() *body.Reservation { return s.memory.NewReservation("") },
			Rate:           body.Rate{BytesPerSecond: 1}, Idle: time.Minute, WriteTimeout: time.Minute,
			PingInterval: time.Minute,
			Process:      func(ctx context.Context, image []byte, _ func()) v1.Result { return read(ctx, string(image)) },
			CountOutcome: func(v1.Status) { s.outcomes.Add(1) },
		}
		if change != nil {
			change(&cfg)
		}
		s.ended <- Serve(t.Context(), stopping, cfg)
	}))
	s.url = h.URL
	t.Cleanup(func() {
		stop()
		h.Close()
		sessions.Wait()
		if s.memory.Used() != 0 {
			t.Error("the memory of frames was not released")
		}
	})
	return s
}

type client struct {
	*websocket.Conn
	t   *testing.T
	ctx context.Context
}

func (s *server) dial(t *testing.T) *client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	c, _, err := websocket.Dial(ctx, s.url, nil) //nolint:bodyclose // a session has none
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(1 << 20)
	t.Cleanup(func() { c.CloseNow() })
	return &client{c, t, ctx}
}

func (c *client) text(format string, args ...any) {
	c.t.Helper()
	if err := c.Write(c.ctx, websocket.MessageText, fmt.Appendf(nil, format, args...)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) frame(image string) {
	c.t.Helper()
	if err := c.Write(c.ctx, websocket.MessageBinary, []byte(image)); err != nil {
		c.t.Fatal(err)
	}
}

// readAll reads to the end: the outcomes, the last message, and the close code. It can be called from any
// goroutine.
func (c *client) readAll() (outcomes []v1.FrameOutcome, end v1.SessionEnd, code websocket.StatusCode) {
	c.t.Helper()
	for {
		_, data, err := c.Read(c.ctx)
		if err != nil {
			return outcomes, end, websocket.CloseStatus(err)
		}
		var a v1.FrameOutcome
		if strings.Contains(string(data), `"next"`) {
			err = json.Unmarshal(data, &end)
		} else if err = json.Unmarshal(data, &a); err == nil {
			outcomes = append(outcomes, a)
		}
		if err != nil {
			c.t.Errorf("%s: %v", data, err)
			return outcomes, end, 0
		}
	}
}

// checkEnd fails the test unless a session has ended with this message and close code. A
// code "" means after the end mark.
func (c *client) checkEnd(
	end v1.SessionEnd, status websocket.StatusCode, next int64, code v1.Code, want websocket.StatusCode,
) {
	c.t.Helper()
	if end.End != (code == "") {
		c.t.Errorf("the last message has end %v", end.End)
	}
	if end.Next != next {
		c.t.Errorf("the next frame is %d, want %d", end.Next, next)
	}
	var got v1.Code
	if end.Problem != nil {
		got = end.Problem.Code
	}
	if got != code {
		c.t.Errorf("the session ended with the problem %q, want %q", got, code)
	}
	if status != want {
		c.t.Errorf("the close code is %d, want %d", status, want)
	}
}

// echo returns the image as text, after different times.
func echo(ctx context.Context, image string) v1.Result {
	select {
	case <-time.After(time.Duration(len(image)*7%13) * time.Millisecond):
	case <-ctx.Done():
	}
	if image == "bad" {
		return v1.Result{Status: v1.Failed, Problem: v1.NewProblem(v1.Damaged, "bad")}
	}
	return v1.Result{Status: v1.Done, Text: &image}
}

func TestServe_WritesOutcomesInOrder(t *testing.T) {
	t.Parallel()
	var now, most atomic.Int64
	s := startServer(t, nil, func(ctx context.Context, image string) v1.Result {
		for n := now.Add(1); ; {
			if old := most.Load(); n <= old || most.CompareAndSwap(old, n) {
				break
			}
		}
		defer now.Add(-1)
		return echo(ctx, image)
	})
	c := s.dial(t)
	const n = 60
	sent := make(chan error, 1)
	go func() {
		var err error
		for i := 0; i < n && err == nil; i++ {
			err = c.Write(c.ctx, websocket.MessageBinary, []byte(strings.Repeat("x", i+1)))
		}
		if err == nil {
			err = c.Write(c.ctx, websocket.MessageText, []byte(`{"end": true}`))
		}
		sent <- err
	}()
	outcomes, end, code := c.readAll()
	if err := <-sent; err != nil {
		t.Errorf("the frames and the end mark: %v", err)
	}
	c.checkEnd(end, code, n, "", websocket.StatusNormalClosure)
	if end.Frames != n {
		t.Errorf("the last message counts %d frames, want %d", end.Frames, n)
	}
	for i, a := range outcomes {
		if a.Frame != int64(i) {
			t.Fatalf("outcome %d is of frame %d", i, a.Frame)
		}
		if a.Status != v1.Done {
			t.Fatalf("frame %d is %s, want %s", i, a.Status, v1.Done)
		}
		if got, want := *a.Result.Text, strings.Repeat("x", i+1); got != want {
			t.Fatalf("frame %d has the text %q, want %q", i, got, want)
		}
	}
	if len(outcomes) != n {
		t.Errorf("got %d outcomes, want %d", len(outcomes), n)
	}
	if got := s.outcomes.Load(); got != n {
		t.Errorf("%d outcomes are counted, want %d", got, n)
	}
	if got := most.Load(); got < 2 || got > 4 {
		t.Errorf("%d frames were processed at a time, want 2 to 4", got)
	}
	if err := <-s.ended; err != nil {
		t.Error(err)
	}
}

func TestServe_ABadFrameFailsAlone(t *testing.T) {
	t.Parallel()
	c := startServer(t, func(c *Config) { c.From = 7 }, echo).dial(t)
	c.frame("a")
	c.frame("bad")
	c.frame(strings.Repeat("x", 2*maxBytes))
	c.text(`{"frame": 20}`)
	c.frame("b")
	c.text(`{"end": true}`)
	outcomes, end, code := c.readAll()
	var got []string
	for _, a := range outcomes {
		line := fmt.Sprint(a.Frame, " ", a.Status)
		if a.Problem != nil {
			line += " " + string(a.Problem.Code)
		}
		got = append(got, line)
	}
	if want := "7 done, 8 failed damaged, 9 failed too-large, 20 done"; strings.Join(got, ", ") != want {
		t.Errorf("the outcomes are %v, want %s", got, want)
	}
	c.checkEnd(end, code, 21, "", websocket.StatusNormalClosure)
}

func TestServe_EndsAfterAnInvalidMessage(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		send func(c *client)
		code v1.Code
		ws   websocket.StatusCode
	}{
		"out of order": {func(c *client) {
			c.text(`{"frame": 0}`)
			c.frame("again")
		}, v1.FrameOutOfOrder, websocket.StatusPolicyViolation},
		"no such number": {func(c *client) {
			c.text(`{"frame": 9007199254740993}`)
			c.frame("too far")
		}, v1.FrameOutOfOrder, websocket.StatusPolicyViolation},
		"no JSON":  {func(c *client) { c.text("hello") }, v1.InvalidMessage, websocket.StatusPolicyViolation},
		"no field": {func(c *client) { c.text("{}") }, v1.InvalidMessage, websocket.StatusPolicyViolation},
		"long text": {func(c *client) { c.text(`{"end": true, "x": %q}`, strings.Repeat("x", maxControl)) },
			v1.InvalidMessage, websocket.StatusPolicyViolation},
		"far too large": {func(c *client) { c.frame(strings.Repeat("x", 10*maxBytes)) },
			v1.TooLarge, websocket.StatusMessageTooBig},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startServer(t, nil, echo).dial(t)
			c.frame("before")
			tt.send(c)
			outcomes, end, ws := c.readAll()
			if len(outcomes) != 1 {
				t.Fatalf("got %d outcomes, want 1", len(outcomes))
			}
			if outcomes[0].Status != v1.Done {
				t.Errorf("the frame before is %s, want %s", outcomes[0].Status, v1.Done)
			}
			c.checkEnd(end, ws, 1, tt.code, tt.ws)
		})
	}
}

func TestServe_LatestDropsWaitingFrames(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	s := startServer(t, func(c *Config) {
		c.Latest, c.Window = true, 1
	}, func(ctx context.Context, image string) v1.Result {
		if image == "first" {
			<-hold
		}
		return echo(ctx, image)
	})
	c := s.dial(t)
	c.frame("first")
	for i := range 20 {
		c.frame(fmt.Sprint("later ", i))
	}
	type all struct {
		outcomes []v1.FrameOutcome
		end      v1.SessionEnd
	}
	read := make(chan all, 1)
	go func() {
		var a all
		a.outcomes, a.end, _ = c.readAll()
		read <- a
	}()
	// The frames have been received when the pong arrives.
	if err := c.Ping(c.ctx); err != nil {
		t.Fatal(err)
	}
	close(hold)
	c.text(`{"end": true}`)
	got := <-read
	if n := len(got.outcomes); n != 21 {
		t.Fatalf("got %d outcomes, want 21", n)
	}
	if got.end.Next != 21 {
		t.Errorf("the next frame is %d, want 21", got.end.Next)
	}
	for i, a := range got.outcomes {
		want := v1.Dropped
		if i == 0 || i == 20 {
			want = v1.Done
		}
		if a.Frame != int64(i) {
			t.Errorf("outcome %d is of frame %d", i, a.Frame)
		}
		if a.Status != want {
			t.Errorf("frame %d is %s, want %s", i, a.Status, want)
		}
	}
	if text := *got.outcomes[20].Result.Text; text != "later 19" {
		t.Errorf("the last frame has the text %q, want later 19", text)
	}
}

func TestServe_EndsWhenTheClientDoesNotRead(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 1<<20)
	s := startServer(t, func(c *Config) {
		c.WriteTimeout = 200 * time.Millisecond
	}, func(context.Context, string) v1.Result {
		return v1.Result{Status: v1.Done, Text: &big}
	})
	c := s.dial(t)
	for {
		if err := c.Write(c.ctx, websocket.MessageBinary, []byte("image")); err != nil {
			break // the session was ended
		}
	}
	if err := <-s.ended; !errors.Is(err, errNotReading) {
		t.Errorf("the session of a client that reads nothing ended with %v, want %v", err, errNotReading)
	}
	if n := s.outcomes.Load(); n > 100 {
		t.Errorf("%d outcomes were written, want 100 or fewer", n)
	}
}

// checkProblem reads to the end of a session, which must end with a problem after so many
// outcomes.
func (c *client) checkProblem(frames int64, code v1.Code) {
	c.t.Helper()
	outcomes, end, ws := c.readAll()
	if n := int64(len(outcomes)); n != frames {
		c.t.Errorf("got %d outcomes, want %d", n, frames)
	}
	c.checkEnd(end, ws, frames, code, websocket.StatusPolicyViolation)
}

func TestServe_EndsWhenTheClientIsIdle(t *testing.T) {
	t.Parallel()
	c := startServer(t, func(c *Config) { c.Idle = 100 * time.Millisecond }, echo).dial(t)
	c.checkProblem(0, v1.Idle)
}

func TestServe_EndsWhenAFrameIsTooSlow(t *testing.T) {
	t.Parallel()
	c := startServer(t, func(c *Config) {
		c.MaxBytes = allMemory
		c.Rate = body.Rate{BytesPerSecond: 100 * maxBytes, Window: 200 * time.Millisecond, Grace: time.Millisecond}
	}, echo).dial(t)
	w, err := c.Writer(c.ctx, websocket.MessageBinary)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, strings.Repeat("x", 20*maxBytes)); err != nil {
		t.Fatal(err)
	}
	c.checkProblem(0, v1.TruncatedBody)
}

// TestServe_FrameTimeExcludesTheWaitForMemory reserves all memory for longer than a frame may
// take to arrive.
func TestServe_FrameTimeExcludesTheWaitForMemory(t *testing.T) {
	t.Parallel()
	const window = 3 * time.Second
	c := startServer(t, func(c *Config) {
		c.Rate = body.Rate{BytesPerSecond: 1000, Window: window, Grace: time.Millisecond}
		newReservation := c.NewReservation
		others := newReservation()
		if err := others.Grow(allMemory); err != nil {
			t.Error(err)
		}
		c.NewReservation = func() *body.Reservation { // when the frame begins to arrive
			time.AfterFunc(window*3/2, others.Release)
			return newReservation()
		}
	}, echo).dial(t)
	c.frame("a")
	c.text(`{"end": true}`)
	outcomes, end, code := c.readAll()
	if len(outcomes) != 1 {
		t.Errorf("got %d outcomes, want 1", len(outcomes))
	}
	c.checkEnd(end, code, 1, "", websocket.StatusNormalClosure)
}

func TestServe_CancelsFramesWhenTheClientDisconnects(t *testing.T) {
	t.Parallel()
	begun := make(chan struct{})
	s := startServer(t, nil, func(ctx context.Context, _ string) v1.Result {
		close(begun)
		<-ctx.Done()
		return v1.Result{}
	})
	c := s.dial(t)
	c.frame("a")
	<-begun
	c.CloseNow()
	select {
	case err := <-s.ended:
		if err != nil {
			t.Error(err)
		}
		if n := s.outcomes.Load(); n != 0 {
			t.Errorf("%d outcomes are counted, want 0", n)
		}
	case <-time.After(time.Minute):
		t.Fatal("the session has not ended")
	}
}

func TestServe_FinishesReceivedFramesWhenStopping(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	var begun sync.WaitGroup
	begun.Add(2)
	s := startServer(t, nil, func(ctx context.Context, image string) v1.Result {
		begun.Done()
		<-hold
		return echo(ctx, image)
	})
	c := s.dial(t)
	c.frame("a")
	c.frame("b")
	begun.Wait()
	s.stop()
	close(hold)
	outcomes, end, ws := c.readAll()
	if len(outcomes) != 2 {
		t.Errorf("got %d outcomes, want 2", len(outcomes))
	}
	c.checkEnd(end, ws, 2, v1.Unavailable, websocket.StatusGoingAway)
}

func TestServe_RepliesToPingsAfterTheEndMark(t *testing.T) {
	work := make(chan struct{})
	s := startServer(t, nil, func(ctx context.Context, image string) v1.Result { <-work; return echo(ctx, image) })
	c := s.dial(t)
	c.frame("one")
	c.text(`{"end": true}`)
	done := make(chan struct{})
	go func() { defer close(done); c.readAll() }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.Ping(ctx); err != nil {
		t.Errorf("ping before the last outcome: %v", err)
	}
	close(work)
	<-done
}

func TestServe_CancelsFramesWhenTheClientDisconnectsAfterTheEndMark(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan struct{})
	s := startServer(t, nil, func(ctx context.Context, _ string) v1.Result {
		close(begun)
		<-ctx.Done()
		close(ended)
		return v1.Result{}
	})
	c := s.dial(t)
	c.frame("one")
	<-begun
	c.text(`{"end": true}`)
	c.CloseNow()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("the frame is still processed after the client has disconnected")
	}
}

// TestServe_PingsAClientThatSendsNothing checks the pings that keep a connection open behind a proxy.
func TestServe_PingsAClientThatSendsNothing(t *testing.T) {
	t.Parallel()
	s := startServer(t, func(c *Config) { c.PingInterval = 10 * time.Millisecond }, nil)
	pings := make(chan struct{}, 3)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	options := &websocket.DialOptions{OnPingReceived: func(context.Context, []byte) bool {
		select {
		case pings <- struct{}{}:
		default:
		}
		return true
	}}
	c, _, err := websocket.Dial(ctx, s.url, options) //nolint:bodyclose // a session has none
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	reading := c.CloseRead(ctx) // pings are handled where messages are read
	for range cap(pings) {
		select {
		case <-pings:
		case <-reading.Done():
			t.Fatal("the session ended")
		}
	}
}
