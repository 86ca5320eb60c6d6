package ingress

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestHTTP_BodyNeverArrives checks that a request gets a response although its body never arrives, even when
// no handler reads the body.
func TestHTTP_BodyNeverArrives(t *testing.T) {
	d := startServed(t, 2, 10)
	for _, head := range []string{
		"POST /v1/images HTTP/1.1\r\n", "POST /v1/images?pipeline=nosuch HTTP/1.1\r\n",
		"POST /v1/images HTTP/1.1\r\nContent-Type: text/plain\r\n", "GET /v1/pipelines HTTP/1.1\r\n",
		"POST /nothing HTTP/1.1\r\n",
	} {
		t.Run(head, func(t *testing.T) {
			t.Parallel()
			c, err := net.Dial("tcp", strings.TrimPrefix(d.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			fmt.Fprintf(c, "%sHost: x\r\nContent-Length: 100\r\n\r\n", head)
			c.SetReadDeadline(time.Now().Add(headerTimeout + testTimeout))
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatalf("no response: %v", err)
			}
			res.Body.Close()
		})
	}
}
