package fetch

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// TestFetcher_TimeoutExcludesTheWaitForAPermit has two fetches that take 60 % of the time limit each: the second
// one ends after the time limit. A busy machine gets another try with more time.
func TestFetcher_TimeoutExcludesTheWaitForAPermit(t *testing.T) {
	t.Parallel()
	const longest = 32 * time.Second
	for timeout := 2 * time.Second; ; timeout *= 2 {
		err := fetchTwice(t, timeout, timeout*6/10)
		if err == nil {
			return
		}
		if timeout >= longest {
			t.Fatalf("with a time limit of %v: %v", timeout, err)
		}
	}
}

// fetchTwice fetches two images at the same time from a host that takes the duration work for each.
func fetchTwice(t *testing.T, timeout, work time.Duration) error {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(work)
		w.Write([]byte("x"))
	}))
	defer s.Close()
	f := New(Config{
		MaxBytes: 10, Timeout: timeout, PerHost: 1, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})
	defer f.Close()
	var fetches errgroup.Group
	for range 2 {
		fetches.Go(func() error {
			_, err := f.Fetch(t.Context(), s.URL)
			return err
		})
	}
	return fetches.Wait()
}
