package fetch

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// TestFetcher_TimeoutExcludesTheWaitForAPermit has two fetches of 4 s with a limit of 7 s for each: the
// second one ends after 8 s.
func TestFetcher_TimeoutExcludesTheWaitForAPermit(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(4 * time.Second)
		w.Write([]byte("x"))
	}))
	defer s.Close()
	f := New(Config{
		MaxBytes: 10, Timeout: 7 * time.Second, PerHost: 1, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})
	defer f.Close()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if _, err := f.Fetch(t.Context(), s.URL); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
