package intake

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func TestCheckURL(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"https://client.example/done": "",
		"http://client.example":       "",
		"file:///etc/passwd":          "is not an http or https URL",
		"https:":                      "is not an http or https URL",
		"client.example":              "is not an http or https URL",
		"":                            "is not an http or https URL",
		"http://%zz":                  "is not a URL",
	} {
		got := ""
		if err := CheckURL(raw); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%.40q: got the error %q, want %q", raw, got, want)
		}
	}
}

func TestCheckMetadata_NamesTheEntry(t *testing.T) {
	t.Parallel()
	many := map[string]string{}
	for n := range maxMetadata + 1 {
		many["n"+strconv.Itoa(n)] = "x"
	}
	long := strings.Repeat("k", maxMetadataName+1)
	for _, c := range []struct {
		metadata    map[string]string
		field, want string
	}{
		{nil, "", ""},
		{map[string]string{"camera": "3 ü", strings.Repeat("k", maxMetadataName): ""}, "", ""},
		{map[string]string{"": "1"}, "", "has a name of 0 characters, want 1 to 40"},
		{map[string]string{long: "1"}, long, "has a name of 41 characters, want 1 to 40"},
		{map[string]string{"a": "1", "b": "\xff"}, "b", "is not UTF-8"},
		{many, "n0", "is one of more than 16 entries of metadata"},
		{map[string]string{"a": "1", "b": strings.Repeat("x", maxMetadataSize)}, "b",
			"is too long: metadata may have 4096 bytes"},
		{map[string]string{"a": strings.Repeat("x", maxMetadataSize) + "\xc3"}, "a",
			"is too long: metadata may have 4096 bytes"},
	} {
		field, err := CheckMetadata(c.metadata)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%.40v: got the error %q, want %q", c.metadata, got, c.want)
		}
		if field != c.field {
			t.Errorf("%.40v: the entry is %q, want %q", c.metadata, field, c.field)
		}
	}
}

func TestFieldProblem(t *testing.T) {
	t.Parallel()
	i := &Intake{}
	i.cfg.Webhooks = true
	metadata := func(m map[string]string) error {
		_, err := CheckMetadata(m)
		return err
	}
	many := map[string]string{}
	for n := range maxMetadata + 1 {
		many[strconv.Itoa(n)] = "x"
	}
	for name, tt := range map[string]struct {
		err   error
		limit int64
	}{
		"callback":         {i.CheckWebhookURL("https://a/" + strings.Repeat("x", maxWebhookURL)), maxWebhookURL},
		"name of metadata": {metadata(map[string]string{strings.Repeat("k", maxMetadataName+1): "1"}), maxMetadataName},
		"entries":          {metadata(many), maxMetadata},
		"size of metadata": {metadata(map[string]string{"a": strings.Repeat("x", maxMetadataSize)}), maxMetadataSize},
		"no limit":         {CheckURL("ftp://client.example/"), 0},
	} {
		p := FieldProblem(v1.InvalidHeader, "X-A", tt.err)
		if p.Code != v1.InvalidHeader {
			t.Errorf("%s: the code is %s, want %s", name, p.Code, v1.InvalidHeader)
		}
		if p.Field != "X-A" {
			t.Errorf("%s: the field is %q, want X-A", name, p.Field)
		}
		if p.Limit != tt.limit {
			t.Errorf("%s: the limit is %d, want %d", name, p.Limit, tt.limit)
		}
		if want := "X-A " + tt.err.Error(); p.Detail != want {
			t.Errorf("%s: the detail is %q, want %q", name, p.Detail, want)
		}
	}
}

func TestIntake_CheckWebhookURL(t *testing.T) {
	t.Parallel()
	i := &Intake{}
	if err := i.CheckWebhookURL("https://client.example/"); !errors.Is(err, ErrNoWebhooks) {
		t.Errorf("without a secret: %v, want %v", err, ErrNoWebhooks)
	}
	i.cfg.Webhooks = true
	if err := i.CheckWebhookURL("https://client.example/"); err != nil {
		t.Errorf("with a secret: %v", err)
	}
	if err := i.CheckWebhookURL("http://u:p@client.example/"); err == nil || err.Error() != "contains a user or password" {
		t.Errorf("a URL with a password: %v, want an error that says so", err)
	}
	long := "https://a/" + strings.Repeat("x", maxWebhookURL)
	if err := i.CheckWebhookURL(long); err == nil || err.Error() != "is longer than 2048 bytes" {
		t.Errorf("a long URL: %v", err)
	}
	if err := i.CheckWebhookURL("ftp://client.example/"); err == nil {
		t.Error("a URL of another scheme: no error")
	} else if errors.Is(err, ErrNoWebhooks) {
		t.Errorf("a URL of another scheme: got %v, want an error of the URL", err)
	}
}
