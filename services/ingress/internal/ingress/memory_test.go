package ingress

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestFetchedPicturesAreInTheBodyMemory(t *testing.T) {
	d := open(t, "--allow-networks", "127.0.0.0/8", "--body-memory", "8388608")
	d.workers(t, 2, 10)
	var in = make(chan struct{}, 10)
	hold := make(chan struct{})
	for range 3 {
		u := pictures(t, func(*http.Request) { in <- struct{}{}; <-hold })
		go func() {
			req, _ := http.NewRequest("POST", d.url+"/v1/images", strings.NewReader(`{"url":"`+u+`"}`))
			req.Header = http.Header{"Content-Type": {"application/json"}, "Prefer": {"respond-async"}}
			res, err := http.DefaultClient.Do(req)
			if err == nil {
				res.Body.Close()
			}
		}()
	}
	n := 0
	for range 3 {
		select {
		case <-in:
			n++
		case <-time.After(3 * time.Second):
		}
	}
	close(hold)
	if n > 1 {
		t.Errorf("%d pictures of up to 8 MiB are fetched at a time into 8 MiB of memory", n)
	}
}
