package fetch

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// TestFetcher_TimeoutExcludesTheWaitForAPermit uses fetches of 1.2 s with a limit of 3 s. The third fetch waits 2.4 s for
// the two others.
func TestFetcher_TimeoutExcludesTheWaitForAPermit(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(1200 * time.Millisecond)
		w.Write([]byte("x"))
	}))
	defer s.Close()
	f := New(Config{MaxBytes: 10, Timeout: 3 * time.Second, PerHost: 1, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
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
