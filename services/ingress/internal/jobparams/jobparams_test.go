package jobparams

import (
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
)

func TestParseKey(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("k", intake.MaxKey)
	for name, tt := range map[string]struct {
		values []string
		want   string
		code   v1.Code
	}{
		"none":     {nil, "", ""},
		"one":      {[]string{"a"}, "a", ""},
		"longest":  {[]string{longest}, longest, ""},
		"empty":    {[]string{""}, "", v1.InvalidHeader},
		"two":      {[]string{"a", "b"}, "", v1.InvalidHeader},
		"too long": {[]string{longest + "k"}, "", v1.InvalidHeader},
	} {
		got, err := ParseKey(tt.values)
		code, field := problemCodeAndField(err)
		if code != tt.code {
			t.Errorf("%s: got the error %v, want the code %q", name, err, tt.code)
		}
		if code != "" && field != "Idempotency-Key" {
			t.Errorf("%s: the field is %q, want Idempotency-Key", name, field)
		}
		if code == "" && got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}
