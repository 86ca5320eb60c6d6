package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// testProblems checks the problem of every mistake that a request can make.
func testProblems(t *testing.T, m *mesh) {
	page := samplePage(t)
	for _, tt := range []struct {
		name   string
		method string
		path   string
		header []string
		body   []byte
		want   v1.Code
		field  string
	}{
		{name: "unknown pipeline", path: "/v1/images?pipeline=nosuch", body: page, want: v1.UnknownPipeline,
			field: "pipeline"},
		{name: "pipeline twice", path: "/v1/images?pipeline=text&pipeline=faces", body: page, want: v1.InvalidParameter,
			field: "pipeline"},
		{name: "pipeline empty", path: "/v1/images?pipeline=", body: page, want: v1.InvalidParameter, field: "pipeline"},
		{name: "broken query", path: "/v1/images?pipeline=%zz", body: page, want: v1.InvalidParameter, field: "query"},
		{name: "bad priority", path: "/v1/images?priority=now", body: page, want: v1.InvalidParameter, field: "priority"},
		{name: "bad wait", path: "/v1/images", header: []string{"Prefer", "wait=soon"}, body: page, want: v1.InvalidHeader,
			field: "Prefer"},
		{name: "unsupported type", path: "/v1/images", header: []string{"Content-Type", "text/html"}, body: page,
			want: v1.UnsupportedType, field: "Content-Type"},
		{name: "malformed type", path: "/v1/images", header: []string{"Content-Type", "image/"}, body: page,
			want: v1.InvalidHeader, field: "Content-Type"},
		{name: "form without boundary", path: "/v1/images", header: []string{"Content-Type", "multipart/form-data"},
			body: page, want: v1.InvalidHeader, field: "Content-Type"},
		{name: "malformed form", path: "/v1/images", header: []string{"Content-Type", "multipart/form-data; boundary=x"},
			body: page, want: v1.InvalidBody, field: "image"},
		{name: "empty body", path: "/v1/images", body: nil, want: v1.EmptyBody},
		{name: "text", path: "/v1/images", body: []byte("hello, is this an image?"), want: v1.UnsupportedType},
		{name: "damaged header", path: "/v1/images", body: page[:20], want: v1.Damaged},
		{name: "damaged inside", path: "/v1/images", body: page[:len(page)/2], want: v1.Damaged},
		{name: "too large", path: "/v1/images", body: append(bytes.Clone(page), make([]byte, 8<<20)...), want: v1.TooLarge},
		{name: "unknown job", method: http.MethodGet, path: "/v1/images/01ARZ3NDEKTSV4RRFFQ69G5FAV", want: v1.UnknownJob},
		{name: "impossible job", method: http.MethodGet, path: "/v1/images/a.b", want: v1.UnknownJob},
		{name: "wrong method", method: http.MethodPut, path: "/v1/images", want: v1.MethodNotAllowed},
		{name: "unknown path", method: http.MethodGet, path: "/v2/nothing", want: v1.NotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			method := tt.method
			if method == "" {
				method = http.MethodPost
			}
			req, err := http.NewRequest(method, m.base()+"/", bytes.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			req.URL.Opaque = tt.path // sent unchanged, also when it is malformed
			if method == http.MethodPost {
				req.Header.Set("Content-Type", "application/octet-stream")
			}
			a, err := doRequest(req, tt.header...)
			if err != nil {
				t.Fatal(err)
			}
			checkProblem(t, a, tt.want)
			if a.problem.Field != tt.field {
				t.Errorf("field %q, want %q", a.problem.Field, tt.field)
			}
		})
	}
	t.Run("form", func(t *testing.T) {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		w.WriteField("pipeline", "text")
		part, err := w.CreateFormFile("image", "page.png")
		if err != nil {
			t.Fatal(err)
		}
		part.Write(page)
		w.Close()
		a := m.post(t, "", b.Bytes(), "Content-Type", w.FormDataContentType())
		switch {
		case a.status != http.StatusOK:
			t.Errorf("got %v: status %v, want 200", a, a.status)
		case a.result.Status != v1.Done:
			t.Errorf("got %v: status %v, want done", a, a.result.Status)
		}
	})
	t.Run("form without the image", func(t *testing.T) {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		w.WriteField("pipeline", "text")
		w.Close()
		checkProblem(t, m.post(t, "", b.Bytes(), "Content-Type", w.FormDataContentType()), v1.InvalidBody)
	})
	t.Run("ten gigabytes are rejected before they are sent", func(t *testing.T) {
		a := sendRaw(t, m, "POST /v1/images HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"+
			"Content-Length: 10000000000\r\nExpect: 100-continue\r\n\r\n", false)
		checkProblem(t, a, v1.TooLarge)
		if a.problem.Limit != 8<<20 {
			t.Errorf("limit %d, want %d", a.problem.Limit, 8<<20)
		}
	})
	t.Run("endless body", func(t *testing.T) {
		req, err := http.NewRequest(http.MethodPost, m.base()+"/v1/images", endless{})
		if err != nil {
			t.Fatal(err)
		}
		a, err := doRequest(req, "Content-Type", "image/png")
		if err != nil {
			t.Fatalf("the client got no response: %v", err)
		}
		checkProblem(t, a, v1.TooLarge)
	})
	t.Run("body cut off", func(t *testing.T) {
		a := sendRaw(t, m, fmt.Sprintf("POST /v1/images HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"+
			"Content-Length: %d\r\n\r\n%s", len(page), page[:1000]), true)
		checkProblem(t, a, v1.TruncatedBody)
	})
	t.Run("form cut off", func(t *testing.T) {
		a := sendRaw(t, m, "POST /v1/images HTTP/1.1\r\nHost: x\r\n"+
			"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 900\r\n\r\n"+
			"--x\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\nabc", true)
		checkProblem(t, a, v1.TruncatedBody)
	})
	t.Run("pipelines", func(t *testing.T) {
		a := m.get(t, "/v1/pipelines")
		for _, want := range []string{
			`"name":"text"`, `"name":"faces"`, `"name":"objects"`, `"name":"codes"`, `"ready":true`,
			"tesseract-chi_sim", "haarcascade_frontalface_alt2", "docs/models.md", "image/webp",
		} {
			if !strings.Contains(string(a.body), want) {
				t.Errorf("no %s in %s", want, a.body)
			}
		}
		if a := m.get(t, "/openapi.json"); a.status != http.StatusOK {
			t.Errorf("GET /openapi.json: %v, want 200", a)
		}
	})
}

// checkProblem checks that a response is the problem with a code.
func checkProblem(t *testing.T, a response, want v1.Code) {
	t.Helper()
	p := v1.NewProblem(want, "")
	switch {
	case a.problem.Code != want:
		t.Errorf("got %v, want the problem %s", a, want)
	case a.status != p.Status:
		t.Errorf("got %v: HTTP status %d, want %d", a, a.status, p.Status)
	case a.problem.Status != p.Status:
		t.Errorf("got %v: status %d, want %d", a, a.problem.Status, p.Status)
	case a.problem.Type != p.Type:
		t.Errorf("got %v: type %s, want %s", a, a.problem.Type, p.Type)
	case a.problem.Detail == "":
		t.Errorf("got %v: no detail", a)
	}
	if len(a.problem.TraceID) != 32 {
		t.Errorf("the trace ID of %s is %q, want 32 digits", want, a.problem.TraceID)
	}
}

// endless is a body without an end.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// sendRaw sends the bytes of a request and reads the response. closeWrite ends the
// request: the server reads EOF after it.
func sendRaw(t *testing.T, m *mesh, request string, closeWrite bool) response {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(m.base(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(responseTimeout))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	if closeWrite {
		conn.(*net.TCPConn).CloseWrite()
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("no response: %v", err)
	}
	defer res.Body.Close()
	a := response{status: res.StatusCode, header: res.Header}
	if a.body, err = io.ReadAll(res.Body); err != nil {
		t.Fatal(err)
	}
	return a.mustDecode(t)
}
