package intake

import (
	"crypto/sha256"
	"errors"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func TestClaim(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cat, dog := sha256.Sum256([]byte("cat")), sha256.Sum256([]byte("dog"))
	for _, tt := range []struct {
		key  Key
		id   string
		want string
	}{
		{Key{"k1", cat}, "first", "first"},
		{Key{"k1", cat}, "second", "first"},
		{Key{"k2", cat}, "third", "third"},
		{Key{"k1", cat}, "fourth", "first"},
	} {
		if id, err := b.Claim(t.Context(), tt.key, tt.id); err != nil || id != tt.want {
			t.Errorf("%s for %s: got %s, %v, want %s", tt.key.Name, tt.id, id, err, tt.want)
		}
	}
	var p *v1.Problem
	if id, err := b.Claim(t.Context(), Key{"k1", dog}, "fifth"); !errors.As(err, &p) || p.Code != v1.KeyConflict || p.Field != "Idempotency-Key" {
		t.Errorf("another picture: got %s, %v", id, err)
	}
}

func TestOnlyOneOfManyClaims(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	got := make(chan string, 20)
	for i := range cap(got) {
		go func() {
			id, err := b.Claim(t.Context(), Key{Name: "same"}, string(rune('a'+i)))
			if err != nil {
				t.Error(err)
			}
			got <- id
		}()
	}
	first := <-got
	for range cap(got) - 1 {
		if id := <-got; id != first {
			t.Errorf("one got %s, another %s", first, id)
		}
	}
}
