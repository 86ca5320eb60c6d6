package httpapi

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/url"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func TestDecodeBase64(t *testing.T) {
	t.Parallel()
	const want = "\xfb\xef\xff\x00\x01" // in base64 "++//AAE="
	for name, text := range map[string]string{
		"standard alphabet":                "++//AAE=",
		"URL alphabet":                     "--__AAE=",
		"both alphabets":                   "+-/_AAE=",
		"no padding":                       "++//AAE",
		"much padding":                     "++//AAE===",
		"line breaks":                      "++//\r\nAAE=\n",
		"blanks":                           " ++// \tAA E= ",
		"blanks in the padding":            "++//AAE \n=",
		"data URL":                         "data:image/png;base64,++//AAE=",
		"data URL in capitals":             "DATA:IMAGE/PNG;BASE64,++//AAE=",
		"data URL with a parameter":        "data:image/png;charset=utf-8;base64,++//AAE=",
		"data URL without a type":          "data:;base64,++//AAE=",
		"data URL with blanks":             " data:image/png; base64, ++//AAE=",
		"percent-encoded":                  "%2B%2b%2F%2FAAE%3D",
		"percent-encoded blank":            "++%20//AAE%3D",
		"plus for a blank":                 "%2B%2B+%2F%2FAAE%3D",
		"percent-encoded data URL":         "data%3Aimage%2Fpng%3Bbase64%2C%2B%2B%2F%2FAAE%3D",
		"percent-encoding in the data URL": "data:image/png;base64,%2B%2B//AAE=",
	} {
		got, err := decodeBase64([]byte(text), "image")
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if string(got) != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestDecodeBase64_NamesTheWrongCharacter(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"*GljAAAA":                    "image is not base64: character 1 is '*'",
		"cGlj\r\nAA*A":                "image is not base64: character 9 is '*'",
		"cGljä":                       "image is not base64: character 5 is 'ä'",
		"data:image/png;base64,cGl*":  "image is not base64: character 26 is '*'",
		"cGl%2AcGlj":                  "image is not base64: character 4 is '*'",
		"cGlj%":                       "image is not base64: character 5 begins an incomplete percent-encoding",
		"cGlj%2":                      "image is not base64: character 5 begins an incomplete percent-encoding",
		"c%zzj":                       "image is not base64: character 2 begins an incomplete percent-encoding",
		"cGk=cGlj":                    "image is not base64: character 5 follows the padding",
		"cGljc":                       "image is not base64: it ends after 5 characters, which is one too many or too few",
		"data:image/png;base64":       "image is a data URL without a comma",
		"data:text/plain,x":           "image is a data URL that is not base64",
		"Data:image/svg+xml;utf8,svg": "image is a data URL that is not base64",
	} {
		_, err := decodeBase64([]byte(text), "image")
		var p *v1.Problem
		if !errors.As(err, &p) {
			t.Errorf("%q: got %v, want a problem", text, err)
			continue
		}
		if p.Code != v1.InvalidBody {
			t.Errorf("%q: the code is %s, want %s", text, p.Code, v1.InvalidBody)
		}
		if p.Field != "image" {
			t.Errorf("%q: the field is %q, want image", text, p.Field)
		}
		if p.Detail != want {
			t.Errorf("%q: the detail is %q, want %q", text, p.Detail, want)
		}
	}
}

// TestReadURLEncoded_PlusSigns shows that a plus sign is itself, unless the client escapes plus signs: then it is a
// blank.
func TestReadURLEncoded_PlusSigns(t *testing.T) {
	t.Parallel()
	const want = "\xfb\xef\xff\x00\x01"
	for name, form := range map[string]string{
		"not escaped":            "imgbase64=++//AAE=",
		"not escaped, blanks":    "imgbase64=++%20//%20AAE=",
		"escaped":                "imgbase64=%2B%2B%2F%2FAAE%3D",
		"escaped, blanks":        "imgbase64=%2B%2B+%2F%2F+AAE%3D",
		"escaped twice":          "imgbase64=%252B%252B%252F%252FAAE%253D",
		"escaped twice, blanks":  "imgbase64=%252B%252B%2B%252F%252F%2BAAE%253D",
		"data URL, not escaped":  "imgbase64=Data:image/png;Base64,++//AAE=",
		"data URL, a blank":      "imgbase64=data%3Aimage%2Fpng%3Bbase64%2C+%2B%2B%2F%2FAAE%3D",
		"beside another field":   "meta-a=x+y&imgbase64=++//AAE=",
		"a form of a web client": url.Values{"imgbase64": {"++//\n AAE="}}.Encode(),
	} {
		in, err := readURLEncoded(strings.NewReader(form), true)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := in.uploads[0].Err; err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := string(in.uploads[0].Image); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
		if got := in.fields["meta-a"]; got != "" && got != "x y" {
			t.Errorf("%s: the other field is %q, want a plus sign to be a blank", name, got)
		}
	}
}

func FuzzDecodeBase64(f *testing.F) {
	for _, text := range []string{"cGlj", "data:image/png;base64,cGlj", "%2B", "%", "=", "data:", "c G\n-_=="} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		plain, plainErr := base64.StdEncoding.DecodeString(string(text))
		got, err := decodeBase64(text, "image")
		if plainErr == nil && (err != nil || !bytes.Equal(got, plain)) {
			t.Errorf("got %q, %v, want %q", got, err, plain)
		}
		var p *v1.Problem
		if err != nil && !errors.As(err, &p) {
			t.Errorf("got %v, want a problem", err)
		}
	})
}
