package jsonerror

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestDescribe(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 40)
	for _, tt := range []struct{ name, text, want string }{
		{"", `{"list": [{"n": 1}, {"n": "2"}]}`, `list.1.n: "2", want an integer`},
		{"settings", `{"list": [{"n": 1}, {"n": "2"}]}`, `settings.list.1.n: "2", want an integer`},
		{"", `{"list": {"n": 1}}`, `list: an object, want a list`},
		{"", `{"list": [[]]}`, `list.0: a list, want an object`},
		{"", `[]`, `a list, want an object`},
		{"settings", `7`, `settings: 7, want an object`},
		{"", `{"list": "` + long + `"}`, `list: "` + long[:58] + `, want a list`},
		{"", `{`, "unexpected end of JSON input"},
		{"settings", `{`, "settings: unexpected end of JSON input"},
	} {
		var into struct {
			List []struct{ N int } `json:"list"`
		}
		err := json.Unmarshal([]byte(tt.text), &into)
		if err == nil {
			t.Errorf("%s: no error", tt.text)
			continue
		}
		if got := Describe(tt.name, []byte(tt.text), err); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.text, got, tt.want)
		}
	}
}

func TestLocate(t *testing.T) {
	t.Parallel()
	const text = `{"a": [10, {"b": true}]}`
	for part, want := range map[string][2]string{
		`10`: {"a.0", "10"}, `true`: {"a.1.b", "true"}, `{"b"`: {"a.1", "an object"}, `[`: {"a", "a list"},
	} {
		path, value := Locate([]byte(text), strings.Index(text, part)+1)
		if path != want[0] {
			t.Errorf("%s: the path is %s, want %s", part, path, want[0])
		}
		if value != want[1] {
			t.Errorf("%s: the value is %s, want %s", part, value, want[1])
		}
	}
}
