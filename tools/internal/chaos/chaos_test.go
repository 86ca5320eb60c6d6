package chaos

import (
	"bytes"
	"errors"
	"image"
	"image/png"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	_ "golang.org/x/image/bmp" // decodes the images

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// done returns the result that a mesh gives for an image.
func done(i Image, id string) v1.Result {
	r := v1.Result{ID: id, Status: v1.Done, Image: &v1.Image{SHA256: i.Sum}}
	for _, code := range i.Codes {
		r.Regions = append(r.Regions, v1.Region{Labels: []v1.Label{{Label: code}}})
	}
	return r
}

func failedResult(id string, code v1.Code) v1.Result {
	return v1.Result{ID: id, Status: v1.Failed, Problem: v1.NewProblem(code, "")}
}

func TestImage_IsUniqueBMP(t *testing.T) {
	seen := map[string]bool{}
	for n := range uint64(100) {
		i := NewImage("client", n%2, n)
		switch {
		case seen[i.Sum]:
			t.Fatalf("image %d has the SHA-256 of an earlier image", n)
		case seen[i.Codes[0]]:
			t.Fatalf("image %d has the codes of an earlier image", n)
		}
		seen[i.Sum], seen[i.Codes[0]] = true, true
		config, format, err := image.DecodeConfig(bytes.NewReader(i.File))
		switch {
		case err != nil:
			t.Fatalf("decode image %d: %v", n, err)
		case format != "bmp":
			t.Fatalf("image %d is %s, want bmp", n, format)
		case config.Width != side:
			t.Fatalf("the width of image %d is %d, want %d", n, config.Width, side)
		case config.Height != side:
			t.Fatalf("the height of image %d is %d, want %d", n, config.Height, side)
		}
	}
}

func TestCopy_IsUniquePNG(t *testing.T) {
	var file bytes.Buffer
	if err := png.Encode(&file, image.NewGray(image.Rect(0, 0, 3, 2))); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for n := range uint64(10) {
		i, err := NewCopy("client", file.Bytes(), []string{"a"}, n%2, n)
		if err != nil {
			t.Fatal(err)
		}
		if seen[i.Sum] {
			t.Fatalf("image %d has the SHA-256 of an earlier image", n)
		}
		seen[i.Sum] = true
		if _, err := png.Decode(bytes.NewReader(i.File)); err != nil {
			t.Fatalf("image %d: %v", n, err)
		}
		r := v1.Result{Image: &v1.Image{SHA256: i.Sum}, Regions: []v1.Region{{Label: "qr-code", Text: "a"}}}
		if err := i.Check(r); err != nil {
			t.Fatalf("image %d: %v", n, err)
		}
	}
	if _, err := NewCopy("client", []byte("BM"), nil, 0, 0); err == nil {
		t.Error("NewCopy of a BMP file: no error")
	}
}

func TestLedger_CountsViolations(t *testing.T) {
	for name, tt := range map[string]struct {
		play func(l *Ledger, i, other Image)
		want map[Guarantee]int
	}{
		"a job that is done": {func(l *Ledger, i, _ Image) {
			l.Accept(i, "1", false)
			l.RecordResult(i, v1.Result{ID: "1", Status: v1.Running}, time.Now())
			l.RecordResult(i, done(i, "1"), time.Now())
			l.RecordResult(i, done(i, "1"), time.Now())
			l.Store("1", i.Sum)
		}, nil},
		"a job that expired": {func(l *Ledger, i, _ Image) {
			l.Accept(i, "1", false)
			l.RecordResult(i, failedResult("1", v1.DeadlineExceeded), time.Now())
		}, nil},
		"a result of another image": {func(l *Ledger, i, other Image) {
			l.Accept(i, "1", false)
			l.RecordResult(i, done(other, "1"), time.Now())
		}, map[Guarantee]int{Wrong: 1}},
		"a result of another client": {func(l *Ledger, i, other Image) {
			l.Accept(i, "1", false)
			l.Accept(other, "2", false)
			l.RecordResult(i, done(other, "2"), time.Now())
		}, map[Guarantee]int{Wrong: 1}},
		"the codes of another image": {func(l *Ledger, i, other Image) {
			l.Accept(i, "1", false)
			r := done(i, "1")
			r.Regions[2] = done(other, "1").Regions[2]
			l.RecordResult(i, r, time.Now())
		}, map[Guarantee]int{Wrong: 1}},
		"one job for two images": {func(l *Ledger, i, other Image) {
			l.Accept(i, "1", false)
			l.Accept(other, "1", false)
		}, map[Guarantee]int{Wrong: 1}},
		"a failure without a reason": {func(l *Ledger, i, _ Image) {
			l.Accept(i, "1", false)
			l.RecordResult(i, failedResult("1", v1.Internal), time.Now())
		}, map[Guarantee]int{Wrong: 1}},
		"done, then failed": {func(l *Ledger, i, _ Image) {
			l.Accept(i, "1", false)
			l.RecordResult(i, done(i, "1"), time.Now())
			l.RecordResult(i, failedResult("1", v1.DeadlineExceeded), time.Now())
		}, map[Guarantee]int{Changed: 1}},
		"done, then running": {func(l *Ledger, i, _ Image) {
			l.Accept(i, "1", false)
			l.RecordResult(i, done(i, "1"), time.Now())
			l.RecordResult(i, v1.Result{ID: "1", Status: v1.Running}, time.Now())
		}, map[Guarantee]int{Changed: 1}},
		"done, and running in an earlier request": {func(l *Ledger, i, _ Image) {
			l.Accept(i, "1", false)
			asked := time.Now()
			l.RecordResult(i, done(i, "1"), time.Now())
			l.RecordResult(i, v1.Result{ID: "1", Status: v1.Running}, asked)
		}, nil},
		"one key, two jobs": {func(l *Ledger, i, _ Image) {
			l.Accept(i, "1", false)
			l.Accept(i, "2", false)
		}, map[Guarantee]int{Duplicated: 1}},
		"one image sent once, two outcomes": {func(l *Ledger, i, _ Image) {
			l.Accept(i, "1", false)
			l.Store("1", i.Sum)
			l.Store("2", i.Sum)
		}, map[Guarantee]int{Duplicated: 1}},
		"rejected, and run": {func(l *Ledger, i, _ Image) {
			l.Reject(i, v1.Problem{Code: v1.Unavailable})
			l.Store("1", i.Sum)
		}, map[Guarantee]int{Ran: 1}},
		"perhaps accepted, and run": {func(l *Ledger, i, _ Image) {
			l.Reject(i, v1.Problem{Code: v1.Unavailable, Job: "1"})
			l.Store("1", i.Sum)
		}, nil},
		"a broken connection, then rejected, and run": {func(l *Ledger, i, _ Image) {
			l.MarkInterrupted(i)
			l.Reject(i, v1.Problem{Code: v1.Unavailable})
			l.Store("1", i.Sum)
		}, nil},
		"a webhook before the response": {func(l *Ledger, i, _ Image) {
			l.RecordWebhook(i, done(i, "1"))
			l.Accept(i, "1", true)
		}, nil},
	} {
		l := NewLedger(1, 0, nil)
		tt.play(l, l.NewImage("a", false), l.NewImage("b", false))
		got := l.Close().Broken
		if len(got) != len(tt.want) {
			t.Errorf("%s: violations %v, want %v", name, got, tt.want)
		}
		for p, n := range tt.want {
			if len(got[p]) != n {
				t.Errorf("%s: %s: violations %v, want %d", name, p, got[p], n)
			}
		}
	}
}

func TestLedger_ImageThatMayRepeat(t *testing.T) {
	l := NewLedger(1, 0, nil)
	i := l.NewImage("session", true)
	l.Store("1", i.Sum)
	l.Accept(i, "2", false)
	l.RecordResult(i, done(i, "2"), time.Now())
	switch c := l.Close(); {
	case len(c.Broken) != 0:
		t.Errorf("violations %v, want none", c.Broken)
	case c.Accepted != 1:
		t.Errorf("%d jobs are accepted, want 1", c.Accepted)
	}
}

func TestLedger_CloseTwice(t *testing.T) {
	l := NewLedger(1, 0, nil)
	i, other := l.NewImage("a", false), l.NewImage("b", false)
	l.Reject(i, v1.Problem{Code: v1.Unavailable})
	l.Store("1", i.Sum)
	l.Accept(other, "2", false)
	l.RecordResult(other, done(other, "2"), time.Now())
	before := l.Close()
	l.RecordResult(other, failedResult("2", v1.Internal), time.Now())
	after := l.Close()
	for name, tt := range map[string]struct{ got, want int }{
		"Ran, first":      {len(before.Broken[Ran]), 1},
		"Changed, first":  {len(before.Broken[Changed]), 0},
		"Ran, second":     {len(after.Broken[Ran]), 1},
		"Changed, second": {len(after.Broken[Changed]), 1},
	} {
		if tt.got != tt.want {
			t.Errorf("%s close: %d violations, want %d", name, tt.got, tt.want)
		}
	}
}

func TestLedger_OpenAndWithoutWebhook(t *testing.T) {
	l := NewLedger(1, 0, nil)
	a, b := l.NewImage("a", false), l.NewImage("b", false)
	l.Accept(a, "1", true)
	l.Accept(b, "2", true)
	l.RecordResult(a, done(a, "1"), time.Now())
	l.RecordWebhook(b, done(b, "2"))
	if open := l.Open(); len(open) != 0 {
		t.Errorf("open jobs %v, want none", open)
	}
	if jobs := l.WithoutWebhook(); len(jobs) != 1 || jobs[0].ID != "1" {
		t.Errorf("jobs without webhook %v, want job 1", jobs)
	}
	if jobs := l.Jobs(); len(jobs) != 2 {
		t.Errorf("jobs %v, want 2", jobs)
	}
}

func TestLedger_ExpiredBeforeItsDeadline(t *testing.T) {
	now := time.Now()
	l := NewLedger(1, 20*time.Second, func() time.Time { return now })
	early, late := l.NewImage("early", false), l.NewImage("late", false)
	l.Accept(early, "1", false)
	l.Accept(late, "2", false)
	now = now.Add(19 * time.Second)
	l.RecordResult(early, failedResult("1", v1.DeadlineExceeded), now)
	now = now.Add(time.Second)
	l.RecordResult(late, failedResult("2", v1.DeadlineExceeded), now)
	c := l.Close()
	if len(c.Expired) != 2 {
		t.Errorf("expired jobs %v, want both", c.Expired)
	}
	if wrong := c.Broken[Wrong]; len(wrong) != 1 || !strings.Contains(wrong[0], "job 1 ") {
		t.Errorf("wrong outcomes %q, want one of job 1", wrong)
	}
}

func TestLedger_Stall(t *testing.T) {
	var now time.Time
	l := NewLedger(1, 0, func() time.Time { return now })
	finish := func(id string, after time.Duration) {
		now = now.Add(after)
		i := l.NewImage("a", false)
		l.Accept(i, id, false)
		l.RecordResult(i, done(i, id), time.Now())
	}
	now = now.Add(time.Hour)
	finish("before", time.Hour)
	l.Watch()
	finish("1", time.Second)
	finish("2", 5*time.Second)
	finish("3", 2*time.Second)
	if got := l.Close().Stall; got != 5*time.Second {
		t.Errorf("the stall is %v, want 5s", got)
	}
}

func TestMarkdown_Rows(t *testing.T) {
	text := Markdown([]Row{
		{Fault: "kill", Topology: "one server", Test: "TestX/kill", Counts: Counts{Accepted: 7}, Recovery: time.Second},
		{Fault: "hold", Topology: "cluster", Counts: Counts{Broken: map[Guarantee][]string{Lost: {"a", "b"}}}},
		{Fault: "skew", Topology: "cluster", NotRun: "no clock"},
	})
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) != 5 {
		t.Fatalf("%d lines, want 5:\n%s", len(lines), text)
	}
	for n, want := range map[int]string{2: "| passed | `TestX/kill` |", 3: "| **2** |", 4: "not run: no clock"} {
		if !strings.Contains(lines[n], want) {
			t.Errorf("line %d has no %q: %s", n, want, lines[n])
		}
	}
	for _, line := range lines {
		if strings.Count(line, " | ") != len(columns)-1 {
			t.Errorf("%d columns, want %d: %s", strings.Count(line, " | ")+1, len(columns), line)
		}
	}
}

func TestReplace_Markers(t *testing.T) {
	const begin, end = "<!-- chaos: begin -->", "<!-- chaos: end -->"
	got, err := Replace([]byte("a\n"+begin+"\nold\n"+end+"\nb\n"), "chaos", "new\n")
	switch want := "a\n" + begin + "\n\nnew\n\n" + end + "\nb\n"; {
	case err != nil:
		t.Error(err)
	case string(got) != want:
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := Replace([]byte("a"), "chaos", "new"); err == nil {
		t.Error("a file without markers: no error")
	}
}

// echo starts a server that sends back the bytes that it receives, and returns a proxy to
// it.
func echo(t *testing.T) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c) // ends with the connection
			}()
		}
	}()
	p, err := NewProxy("127.0.0.1", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// send sends a text and returns the same number of bytes from the connection.
func send(t *testing.T, c net.Conn, text string) string {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, len(text))
	if _, err := io.ReadFull(c, buf); err != nil {
		t.Fatal(err)
	}
	return string(buf)
}

func TestProxy_Cut(t *testing.T) {
	p := echo(t)
	c := dial(t, p)
	if got := send(t, c, "hello"); got != "hello" {
		t.Errorf("got %q, want hello", got)
	}
	p.Cut()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still open")
	}
	if got := send(t, dial(t, p), "again"); got != "again" {
		t.Errorf("got %q, want again", got)
	}
}

func TestProxy_Delay(t *testing.T) {
	p := echo(t)
	c := dial(t, p)
	p.SetDelay(20 * time.Millisecond)
	begin := time.Now()
	send(t, c, "hello")
	if took := time.Since(begin); took < 40*time.Millisecond {
		t.Errorf("the round trip took %v, want at least 40ms", took)
	}
}

func TestProxy_PauseDelaysBytesUntilResume(t *testing.T) {
	for _, d := range []Direction{ToServer, FromServer} {
		p := echo(t)
		c := dial(t, p)
		send(t, c, "hello")
		p.Pause(d)
		if _, err := c.Write([]byte("held")); err != nil {
			t.Fatal(err)
		}
		got, err := receive(t, c, 50*time.Millisecond) // enough to show that bytes pass
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%v: during the pause got %q and the error %v, want that the read waits", d, got, err)
		}
		p.Resume(d)
		if got, err := receive(t, c, time.Minute); got != "held" {
			t.Errorf("%v: after the pause got %q and the error %v, want held", d, got, err)
		}
	}
}

// receive returns the next 4 bytes from the connection. After the time within, it returns the bytes until then.
func receive(t *testing.T, c net.Conn, within time.Duration) (string, error) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4)
	n, err := io.ReadFull(c, buf)
	return string(buf[:n]), err
}
