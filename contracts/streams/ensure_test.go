package streams

import (
	"maps"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

func TestMerge_KeepsLimitsOfOperators(t *testing.T) {
	t.Parallel()
	defaults := limits{maxBytes: 200}
	for name, tt := range map[string]struct {
		have   int64
		record limits
		fixed  limits
		want   int64
	}{
		"unchanged":                               {200, limits{maxBytes: 200}, nil, 200},
		"raised by a newer version":               {100, limits{maxBytes: 100}, nil, 200},
		"lowered by a newer version":              {300, limits{maxBytes: 300}, nil, 300},
		"lowered by the operator":                 {50, limits{maxBytes: 100}, nil, 50},
		"raised by the operator":                  {500, limits{maxBytes: 100}, nil, 500},
		"no limit, by the operator":               {-1, limits{maxBytes: 100}, nil, -1},
		"set by cfg":                              {500, limits{maxBytes: 100}, limits{maxBytes: 10}, 10},
		"low, from before there was a record":     {50, nil, nil, 200},
		"high, from before there was a record":    {500, nil, nil, 500},
		"no limit from before there was a record": {-1, nil, nil, -1},
	} {
		if got := merge(limits{maxBytes: tt.have}, defaults, tt.record, tt.fixed)[maxBytes]; got != tt.want {
			t.Errorf("%s: the limit is %d, want %d", name, got, tt.want)
		}
	}
}

// TestPlan_IsStable plans twice: the second set-up changes nothing of the first.
func TestPlan_IsStable(t *testing.T) {
	t.Parallel()
	first, _, err := plan(Config{Replicas: 3, ResultsAge: 3 * time.Hour}, nil)
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]*jetstream.StreamInfo{}
	for _, s := range first {
		s.Metadata = maps.Clone(s.Metadata)
		s.Metadata["_nats.level"], s.Metadata["team"] = "1", "blue"
		have[s.Name] = &jetstream.StreamInfo{Config: s}
	}
	second, lowered, err := plan(Config{Update: Update{KeepStorage: true}}, have)
	if err != nil {
		t.Fatal(err)
	}
	if len(lowered) > 0 {
		t.Errorf("the second plan lowers %v", lowered)
	}
	for i, s := range second {
		if s.Replicas != 3 {
			t.Errorf("%s has %d replicas, want 3", s.Name, s.Replicas)
		}
		if s.MaxAge != first[i].MaxAge {
			t.Errorf("%s keeps for %v, want %v", s.Name, s.MaxAge, first[i].MaxAge)
		}
		if s.MaxBytes != first[i].MaxBytes {
			t.Errorf("%s holds %d bytes, want %d", s.Name, s.MaxBytes, first[i].MaxBytes)
		}
		if s.Metadata["team"] != "blue" {
			t.Errorf("%s lost the metadata of the operator: %v", s.Name, s.Metadata)
		}
		if _, found := s.Metadata["_nats.level"]; found {
			t.Errorf("%s contains metadata of the server: %v", s.Name, s.Metadata)
		}
	}
}

func TestTotalBytes(t *testing.T) {
	t.Parallel()
	if got, want := TotalBytes(Config{}), TotalBytes(Config{Update: Update{MaxStore: 1 << 40}}); got != want {
		t.Errorf("a high MaxStore raises the total from %d to %d", got, want)
	}
	got := TotalBytes(Config{Update: Update{MaxStore: MinStore}})
	if got > MinStore {
		t.Errorf("the total is %d, want at most %d", got, MinStore)
	}
	small := Streams(Config{})
	shrink(small, MinStore)
	for _, s := range small {
		if (s.Name == Images || s.Name == Crops) && s.MaxBytes < 4*(MaxMessage+HeaderAllowance) {
			t.Errorf("%s holds %d bytes, too few for four of the largest messages", s.Name, s.MaxBytes)
		}
	}
}

func TestFormatBytes(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		17: "17 bytes", 1536: "1.50 KiB", 256 << 20: "256.00 MiB", 25 << 28: "6.25 GiB",
	} {
		if got := FormatBytes(n); got != want {
			t.Errorf("%d is written %q, want %q", n, got, want)
		}
	}
}
