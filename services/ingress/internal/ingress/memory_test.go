package ingress

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// dialRaw opens a connection from a local address, and sends text.
func (d *instance) dialRaw(t *testing.T, from, text string) net.Conn {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := dialer.DialContext(t.Context(), "tcp", strings.TrimPrefix(d.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c
}

// checkAccepted posts an image and checks that it is accepted.
func (d *instance) checkAccepted(t *testing.T, name string) {
	t.Helper()
	checkResponse(t, name, d.mustPost(t, "", "Prefer", "respond-async"), http.StatusAccepted, "")
}

// awaitMetric waits until a metric without labels has this value.
func (d *instance) awaitMetric(t *testing.T, name string, want int) {
	t.Helper()
	line := fmt.Sprintf("\n%s %d\n", name, want)
	eventually.Succeeds(t, testTimeout, func() error {
		res, err := http.Get("http://" + d.log.admin() + "/metrics")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			return err
		}
		if !bytes.Contains(text, []byte(line)) {
			return fmt.Errorf("the metrics have no line %q", line)
		}
		return nil
	})
}

// TestMemory_IdleBodiesBlockNoImages has requests whose announced sizes exceed the memory. All of them stay in flight,
// so none was rejected.
func TestMemory_IdleBodiesBlockNoImages(t *testing.T) {
	t.Parallel()
	d := startServed(t, 2, 10)
	const head = "POST /v1/images HTTP/1.1\r\nHost: x\r\n"
	for _, kind := range []string{
		"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 67108864\r\n\r\n--b\r\n",
		"Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n--b\r\n\r\n",
		"Content-Type: application/json\r\nContent-Length: 16000000\r\n\r\n{\"ima",
		"Content-Length: 8388608\r\n\r\nhello",
	} {
		for range 40 {
			d.dialRaw(t, "127.0.0.1", head+kind)
		}
	}
	d.awaitMetric(t, "sightmesh_http_requests_in_flight", 160)
	d.checkAccepted(t, "an image, with 160 idle requests open")
}

// TestMemory_ChunkedFormsOfManyClients sends 40 forms of 19 kB, all of which arrive in part before one is
// complete.
func TestMemory_ChunkedFormsOfManyClients(t *testing.T) {
	t.Parallel()
	d := startServed(t, 2, 10)
	image := append(smallImage(), make([]byte, 19_000)...) // with bytes after its end
	var half, all sync.WaitGroup
	half.Add(40)
	for range 40 {
		all.Go(func() {
			pr, pw := io.Pipe()
			form := multipart.NewWriter(pw)
			go func() {
				part, err := form.CreateFormFile("image", "x.png")
				if err == nil {
					_, err = part.Write(image[:10_000])
				}
				half.Done()
				half.Wait()
				if err == nil {
					_, err = part.Write(image[10_000:])
				}
				pw.CloseWithError(firstError(err, form.Close()))
			}()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.url+"/v1/images", pr)
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Content-Type", form.FormDataContentType())
			req.Header.Set("Prefer", "respond-async")
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			if body, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusAccepted {
				t.Errorf("a form got %d %s", res.StatusCode, body)
			}
		})
	}
	all.Wait()
}

// firstError returns the first error.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestMemory_OneClientCannotReserveAll(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	d := startServed(t, 2, 10, "--body-memory", fmt.Sprint(16*mib), "--client-body-memory", fmt.Sprint(8*mib))
	head := "POST /v1/images HTTP/1.1\r\nHost: x\r\nContent-Length: 8388608\r\n\r\n"
	// Whichever request reserves its memory second is rejected. Its response can be lost with its connection.
	eventually.Succeeds(t, testTimeout, func() error {
		type response struct {
			status int
			body   []byte
			err    error
		}
		responses := make(chan response, 2)
		for _, content := range [][]byte{make([]byte, 5*mib), []byte("hello")} { // the first reserves 8 MiB
			c := d.dialRaw(t, "127.0.0.2", head)
			defer c.Close()
			c.SetReadDeadline(time.Now().Add(testTimeout))
			if _, err := c.Write(content); err != nil {
				return err
			}
			go func() {
				res, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					responses <- response{err: err}
					return
				}
				defer res.Body.Close()
				body, err := io.ReadAll(res.Body)
				responses <- response{res.StatusCode, body, err}
			}()
		}
		got := <-responses
		if got.err != nil {
			return fmt.Errorf("two requests of one client: %w", got.err)
		}
		if got.status != http.StatusTooManyRequests {
			t.Errorf("one of two requests of a client: got %d %s, want 429", got.status, got.body)
		}
		if !bytes.Contains(got.body, []byte("this client")) {
			t.Errorf("the problem is %s, want the limit of this client", got.body)
		}
		return nil
	})
	d.checkAccepted(t, "an image of another client")
}

// TestMemory_FramesBlockNoImages has frames that have arrived in part, which keep their memory.
func TestMemory_FramesBlockNoImages(t *testing.T) {
	t.Parallel()
	d := startServed(t, 2, 10, "--body-memory", "8388608")
	for range 3 {
		c := d.session(t, "")
		go c.Read(c.ctx) // receives the pong
		w, err := c.Writer(c.ctx, websocket.MessageBinary)
		if err == nil {
			_, err = w.Write(make([]byte, 5000))
		}
		if err == nil {
			err = c.Ping(c.ctx) // ingress replies when it has read the part of the frame before
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	d.checkAccepted(t, "an image, with incomplete frames")
}

func TestMemory_FetchedImagesAreCounted(t *testing.T) {
	t.Parallel()
	// There is room for one image of full size.
	d := startServed(t, 2, 10, "--allow-networks", "127.0.0.0/8", "--body-memory", "8388608")
	sent, end := make(chan struct{}), make(chan struct{})
	host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Write(make([]byte, 8_388_000))
		close(sent)
		<-end
	}))
	t.Cleanup(host.Close)
	first := make(chan struct{})
	go func() {
		defer close(first)
		d.postURL(t.Context(), host.URL)
	}()
	<-sent
	other := startImageHost(t, func(*http.Request) bool { return true })
	eventually.Succeeds(t, testTimeout, func() error { // until the first image has been read
		code, _, err := d.postURL(t.Context(), other)
		if err != nil {
			return err
		}
		if code != http.StatusTooManyRequests {
			return fmt.Errorf("an image during the first fetch got %d, want 429", code)
		}
		return nil
	})
	close(end)
	<-first
	code, _, err := d.postURL(t.Context(), other)
	if err != nil {
		t.Error(err)
	}
	if code != http.StatusAccepted {
		t.Errorf("an image after the first fetch: got %d, want 202", code)
	}
}

func TestMemory_LimitsNATSRequests(t *testing.T) {
	t.Parallel()
	d := startServed(t, 2, 10, "--nats-memory", "8388608")
	large := append(smallImage(), make([]byte, 8_388_000)...) // with bytes after its end
	first, err := d.nc.SubscribeSync(d.nc.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.nc.PublishRequest(subject.Analyze("text"), first.Subject, large); err != nil {
		t.Fatal(err)
	}
	m := d.nextImage(t) // the first request waits for its result
	res, err := d.nc.Request(subject.Analyze("text"), append(smallImage(), make([]byte, 1000)...), testTimeout)
	if err != nil {
		t.Fatalf("a request over the limit: %v", err)
	}
	if code := res.Header.Get("Nats-Service-Error-Code"); code != "429" {
		t.Errorf("got the code %q, want 429", code)
	}
	if after := res.Header.Get("Retry-After"); after != "1" {
		t.Errorf("got Retry-After %q, want 1", after)
	}
	id := d.storeResult(t, m, true)
	got, err := first.NextMsg(testTimeout)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(got.Data, []byte(id)) {
		t.Errorf("the first request got %s, want the result of %s", got.Data, id)
	}
}

func TestMemory_RejectsASlowBody(t *testing.T) {
	t.Parallel()
	d := startServed(t, 2, 10, "--body-timeout", "1s") // which has no effect
	start := time.Now()
	c := d.dialRaw(t, "127.0.0.1", "POST /v1/images HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nhello")
	c.SetReadDeadline(start.Add(testTimeout))
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var p v1.Problem
	if err := json.NewDecoder(res.Body).Decode(&p); err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusBadRequest {
		t.Errorf("got %d, want 400", res.StatusCode)
	}
	if p.Code != v1.TruncatedBody {
		t.Errorf("the code is %s, want %s", p.Code, v1.TruncatedBody)
	}
	if want := "use a faster connection, or send a smaller image"; !strings.Contains(p.Detail, want) {
		t.Errorf("the detail is %q, want %q", p.Detail, want)
	}
	if elapsed := time.Since(start); elapsed < 14*time.Second {
		t.Errorf("rejected after %v, want 15 s of grace and window", elapsed)
	}
	if want := "body-timeout no longer has an effect"; !strings.Contains(d.log.text(), want) {
		t.Errorf("the log has no line %q", want)
	}
}
