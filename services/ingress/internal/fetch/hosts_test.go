package fetch

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// TestFetcher_TimeoutExcludesTheWaitForAPermit uses fetches of 0.2 s with a limit of 0.5 s,
// of which the third waits for two others.
func TestFetcher_TimeoutExcludesTheWaitForAPermit(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
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
}
