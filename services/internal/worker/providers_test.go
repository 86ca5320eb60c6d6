package worker

import (
	"reflect"
	"testing"

	"github.com/sightmesh/sightmesh/lane"
)

func TestParseProviders(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]lane.Provider{
		"cuda": {{Name: "cuda"}},
		"tensorrt:1,trt_fp16_enable=1,a=; cuda:1;cpu": {
			{Name: "tensorrt", Device: 1, Settings: map[string]string{"trt_fp16_enable": "1", "a": ""}},
			{Name: "cuda", Device: 1}, {Name: "cpu"},
		},
	} {
		got, err := parseProviders(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", text, got, want)
		}
	}
}

func TestParseProviders_NamesTheWrongValue(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":              `"", want the name of a provider`,
		"cuda;":         `"", want the name of a provider`,
		"cuda:":         `"cuda:", want the number of a GPU behind the colon`,
		"cuda:-1":       `"cuda:-1", want the number of a GPU behind the colon`,
		"cuda:0,limit":  `"limit", want a setting as KEY=VALUE`,
		"cuda:0,=7":     `"=7", want a setting as KEY=VALUE`,
		"cpu;tensorrt,": `"", want a setting as KEY=VALUE`,
	} {
		_, err := parseProviders(text)
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}
