package v1

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestDrawRegions_Titles(t *testing.T) {
	t.Parallel()
	regions := []Region{
		{Label: "face", Score: 0.97},
		{Label: "text", Text: "hello"},
		{Label: "object", Score: 0.5, Labels: []Label{{Label: "bicycle", Score: 0.9}, {Label: "car"}}},
	}
	for i, want := range []string{"face 0.97", "", "object 0.50, bicycle"} {
		if got := DrawRegions(regions)[i].Title; got != want {
			t.Errorf("region %d has the title %q, want %q", i, got, want)
		}
	}
}

func TestDrawRegions_NoneIsAnEmptyList(t *testing.T) {
	t.Parallel()
	if got := DrawRegions(nil); got == nil || len(got) != 0 {
		t.Errorf("got %#v, want an empty list", got)
	}
}

func TestDrawRequest_EncodeAndDecode(t *testing.T) {
	t.Parallel()
	file := []byte("an\nimage")
	body, err := DrawRequest{MediaType: "image/png", Regions: []DrawRegion{{Title: "a\nb"}}, TimeoutMS: 9}.Encode(file)
	if err != nil {
		t.Fatal(err)
	}
	r, image, err := DecodeDrawRequest(body)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(image, file) {
		t.Errorf("the image is %q, want %q", image, file)
	}
	if r.MediaType != "image/png" {
		t.Errorf("the media type is %s, want image/png", r.MediaType)
	}
	if r.TimeoutMS != 9 {
		t.Errorf("the timeout is %d, want 9", r.TimeoutMS)
	}
	if len(r.Regions) != 1 {
		t.Fatalf("%d regions, want 1", len(r.Regions))
	}
	if r.Regions[0].Title != "a\nb" {
		t.Errorf("the title is %q, want a line break in it", r.Regions[0].Title)
	}
}

func TestDecodeDrawRequest_ErrorNamesTheField(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		"": "no newline", "{}": "no newline", "[]\n": "facts", "{}\n": "media_type",
		`{"media_type":"image/gif"}` + "\n": "image/gif", `{"media_type":"image/png","timeout_ms":-1}` + "\n": "timeout_ms",
		`{"media_type":"image/png","regions":[{"box":{"x":1.5}}]}` + "\n": "regions.box.x",
	} {
		if _, _, err := DecodeDrawRequest([]byte(body)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it", body, err, want)
		}
	}
}

func TestDrawRequest_Timeout(t *testing.T) {
	t.Parallel()
	for ms, want := range map[int64]time.Duration{0: time.Minute, 5: 5 * time.Millisecond, 1 << 62: time.Minute} {
		if got := (DrawRequest{TimeoutMS: ms}).Timeout(time.Minute); got != want {
			t.Errorf("%d ms are %v, want %v", ms, got, want)
		}
	}
}

func TestParsePiece(t *testing.T) {
	t.Parallel()
	for _, want := range []Piece{{0, 1}, {2, 3}, {511, 512}} {
		got, err := ParsePiece(want.String())
		if err != nil {
			t.Errorf("%s: %v", want, err)
		}
		if got != want {
			t.Errorf("%s is parsed as %+v", want, got)
		}
	}
	for _, s := range []string{"", "1", "1/1", "-1/2", "0/0", "0/513", "a/b", "0/1/2"} {
		if got, err := ParsePiece(s); err == nil {
			t.Errorf("%q is %+v, want an error", s, got)
		}
	}
}
