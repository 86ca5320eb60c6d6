package fetch

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Every picture of the host takes 0.2 s; the limit is 0.5 s each.
func TestWaitForASlotIsNoTimeOfTheHost(t *testing.T) {
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		time.Sleep(200 * time.Millisecond)
		w.Write([]byte("x"))
	}))
	defer s.Close()
	f := New(Config{MaxBytes: 10, Timeout: 500 * time.Millisecond, PerHost: 1, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	defer f.Close()
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := f.Fetch(t.Context(), s.URL); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	t.Logf("asked %d times", asked.Load())
}
