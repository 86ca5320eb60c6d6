package ingress

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/subject"
)

func TestKeyOfAnAddressIsNotFetchedAgain(t *testing.T) {
	d := open(t, "--allow-networks", "127.0.0.0/8")
	d.workers(t, 2, 10)
	n := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n++; n > 1 {
			w.WriteHeader(404) // such as an address that is good once
			return
		}
		w.Write(smallPicture())
	}))
	t.Cleanup(s.Close)
	post := func() (int, string) {
		req, _ := http.NewRequest("POST", d.url+"/v1/images", strings.NewReader(`{"url":"`+s.URL+`"}`))
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", "k1")
		req.Header.Set("Prefer", "respond-async")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(b)
	}
	sub, _ := d.nc.Subscribe(subject.Lookup("*"), func(m *nats.Msg) {
		id, _ := subject.ParseLookup(m.Subject)
		m.Respond([]byte(`{"id":"` + id + `","pipeline":"text","status":"done","regions":[]}`))
	})
	t.Cleanup(func() { sub.Unsubscribe() })
	d.nc.Flush()
	s1, b1 := post()
	s2, b2 := post()
	t.Logf("%d %s\n%d %s", s1, b1, s2, b2)
	if s1 != 202 || s2 >= 300 {
		t.Error("the same key and URL is not the same job")
	}
	if strings.Contains(b2, `"queued"`) {
		t.Error("a done job is said to be queued")
	}
}
