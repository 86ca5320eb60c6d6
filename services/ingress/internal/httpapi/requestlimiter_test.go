package httpapi

import (
	"errors"
	"strings"
	"testing"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func TestRequestLimiter_LimitsTotalAndEachClient(t *testing.T) {
	t.Parallel()
	p := newRequestLimiter("event streams", RequestLimit{Total: 3, PerClient: 2})
	var leaves []func()
	for _, client := range []string{"a", "a", "b"} {
		release, err := p.acquire(client)
		if err != nil {
			t.Fatalf("%s: %v", client, err)
		}
		leaves = append(leaves, release)
	}
	rejected := func(client, want string) {
		t.Helper()
		_, err := p.acquire(client)
		var p *v1.Problem
		if !errors.As(err, &p) {
			t.Fatalf("%s: got %v, want a problem", client, err)
		}
		if p.Code != v1.Overloaded {
			t.Errorf("%s: the code is %s, want %s", client, p.Code, v1.Overloaded)
		}
		if !strings.Contains(p.Detail, want) {
			t.Errorf("%s: the detail is %q, want %q", client, p.Detail, want)
		}
		if got := retry.FormatAfter(err); got != "5" {
			t.Errorf("%s: Retry-After is %q, want 5", client, got)
		}
	}
	rejected("c", "3 event streams are open")
	leaves[2]()
	leaves[2]()
	rejected("a", "2 event streams of this client are open")
	leaves[0]()
	leaves[1]()
	if p.open != 0 {
		t.Errorf("%d are open, want none", p.open)
	}
	if len(p.clients) != 0 {
		t.Errorf("clients have places: %v, want none", p.clients)
	}
}
