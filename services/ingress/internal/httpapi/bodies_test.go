package httpapi

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/body"
	"github.com/sightmesh/sightmesh/services/internal/imagefile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newTestBodies(memory int64) *bodies {
	return newBodies(Config{
		Limits: imagefile.Limits{MaxBytes: 100}, MaxFormBytes: 1000, MaxImages: 3,
		BodyRate: body.Rate{BytesPerSecond: 1}, BodyMemory: memory, ClientBodyMemory: memory,
	})
}

const largeMemory = 1 << 20

func multipartForm(field, content string) string {
	return "--b\r\nContent-Disposition: form-data; name=\"meta-note\"\r\n\r\nhello\r\n" +
		"--b\r\nContent-Disposition: form-data; name=\"" + field + "\"; filename=\"x\"\r\n\r\n" + content + "\r\n--b--\r\n"
}

// unusedInput is an empty file input of a web page.
const unusedInput = "--b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"\"\r\n" +
	"Content-Type: application/octet-stream\r\n\r\n\r\n"

// multipartImages returns a form with several images.
func multipartImages(images ...string) string {
	var b strings.Builder
	for _, p := range images {
		b.WriteString("--b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"x\"\r\n\r\n" + p + "\r\n")
	}
	return b.String() + "--b--\r\n"
}

func TestBodies_ReadSeveralImages(t *testing.T) {
	t.Parallel()
	b := newTestBodies(largeMemory)
	form := multipartImages("one", strings.Repeat("x", 101), "three")
	r := httptest.NewRequest(http.MethodPost, "/v1/reports", strings.NewReader(form))
	r.Header.Set("Content-Type", "multipart/form-data; boundary=b")
	in, release, err := b.read(httptest.NewRecorder(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if len(in.uploads) != 3 {
		t.Fatalf("got %d uploads, want 3", len(in.uploads))
	}
	for i, want := range map[int]string{0: "one", 2: "three"} {
		if got := string(in.uploads[i].Image); got != want {
			t.Errorf("upload %d is %q, want %q", i, got, want)
		}
	}
	if code, _ := problemCodeAndField(in.uploads[1].Err); code != v1.TooLarge {
		t.Errorf("upload 1: got %v, want too-large", in.uploads[1].Err)
	}
}

func TestBodies_Read(t *testing.T) {
	t.Parallel()
	const formType, urlencoded = "multipart/form-data; boundary=b", "application/x-www-form-urlencoded"
	const jsonType, png = "application/json", "\x89PNG\r\n\x1a\n"
	full := strings.Repeat("x", 100)
	form := multipartForm("image", "pic")
	for name, tt := range map[string]struct {
		contentType string
		body        io.Reader
		length      int64 // -1 for a body of unknown length
		want        string
		code        v1.Code
	}{
		"bytes":              {"image/png", strings.NewReader("pic"), 3, "pic", ""},
		"no type":            {"", strings.NewReader("pic"), 3, "pic", ""},
		"any bytes":          {"application/octet-stream", strings.NewReader("pic"), 3, "pic", ""},
		"as long as allowed": {"image/png", strings.NewReader(full), 100, full, ""},
		"of unknown length":  {"image/png", strings.NewReader(full), -1, full, ""},
		"form":               {formType, strings.NewReader(form), -1, "pic", ""},
		"form over the limit of the image": {formType, strings.NewReader(multipartForm("image", full)),
			int64(len(multipartForm("image", full))), full, ""},

		"wrong type":               {"text/plain", strings.NewReader("pic"), 3, "", v1.UnsupportedType},
		"unreadable type":          {"image/", strings.NewReader("pic"), 3, "", v1.InvalidHeader},
		"form without boundary":    {"multipart/form-data", strings.NewReader("pic"), 3, "", v1.InvalidHeader},
		"no body":                  {"image/png", nil, 0, "", v1.EmptyBody},
		"no bytes":                 {"image/png", strings.NewReader(""), -1, "", v1.EmptyBody},
		"too long":                 {"image/png", unreadableBody{t}, 101, "", v1.TooLarge},
		"too long, unsaid":         {"image/png", strings.NewReader(full + "x"), -1, "", v1.TooLarge},
		"cut off":                  {"image/png", strings.NewReader("pic"), 4, "", v1.TruncatedBody},
		"cut off before it begins": {"image/png", strings.NewReader(""), 4, "", v1.TruncatedBody},
		"form without an image":    {formType, strings.NewReader(multipartImages()), -1, "", v1.InvalidBody},
		"form with a file":         {formType, strings.NewReader(multipartForm("photo", "pic")), -1, "", v1.UnknownField},
		"form with a large file": {formType, strings.NewReader(multipartForm("photo", strings.Repeat("x", 900))),
			-1, "", v1.UnknownField},
		"form with an empty one": {formType, strings.NewReader(multipartForm("image", "")), -1, "", v1.EmptyBody},
		"form far too long":      {formType, unreadableBody{t}, 1001, "", v1.TooLarge},
		"form far too long, unsaid": {formType, strings.NewReader(multipartForm("image", strings.Repeat("x", 1000))),
			-1, "", v1.TooLarge},
		"10 GB": {"image/png", unreadableBody{t}, 10_000_000_000, "", v1.TooLarge},
		"form of too many images": {formType, strings.NewReader(multipartImages("1", "2", "3", "4")),
			-1, "", v1.TooManyImages},

		"base64 in a form":              {formType, strings.NewReader(multipartForm("imgbase64", "cGlj")), -1, "pic", ""},
		"base64 without a form's parts": {urlencoded, strings.NewReader("imgbase64=cGlj"), -1, "pic", ""},
		"base64, escaped":               {urlencoded, strings.NewReader("imgbase64=%2B%2F8%3D&meta-x=y"), -1, "\xfb\xff", ""},
		"base64, not escaped":           {urlencoded, strings.NewReader("imgbase64=+/8="), -1, "\xfb\xff", ""},
		"base64 as in URLs, unpadded":   {urlencoded, strings.NewReader("imgbase64=-_8"), -1, "\xfb\xff", ""},
		"base64 with line ends":         {urlencoded, strings.NewReader("imgbase64=cG%0D%0Alj%0A"), -1, "pic", ""},
		"data URL": {urlencoded, strings.NewReader("imgbase64=data:image/png%3Bbase64,cGlj"),
			-1, "pic", ""},
		"JSON": {jsonType, strings.NewReader(`{"image":"cGlj"}`), -1, "pic", ""},

		"an image, announced as a form": {urlencoded, strings.NewReader(png + " and more"), -1, png + " and more", ""},
		"JSON with a mark":              {jsonType, strings.NewReader("\xef\xbb\xbf" + `{"image":"cGlj"}`), -1, "pic", ""},
		"data URL, not escaped": {urlencoded, strings.NewReader("imgbase64=data:image/png;base64,cGlj"),
			-1, "pic", ""},
		"a file of another kind": {urlencoded, strings.NewReader("\x00\x00\x00\x18ftypheic;x"), -1,
			"\x00\x00\x00\x18ftypheic;x", ""},
		"a file input that is not used": {formType, strings.NewReader(unusedInput + form), -1, "pic", ""},

		"JSON, announced as a form": {urlencoded, strings.NewReader(`{"image":"cGlj"}`),
			-1, "", v1.UnsupportedType},
		"JSON after blanks, announced as a form": {urlencoded, strings.NewReader(" \r\n\t" + `{"image":"cGlj"}`),
			-1, "", v1.UnsupportedType},
		"JSON after a mark, announced as a form": {urlencoded, strings.NewReader("\xef\xbb\xbf" + `{"image":"cGlj"}`),
			-1, "", v1.UnsupportedType},
		"an array, announced as a form": {urlencoded, strings.NewReader(`[1]`), -1, "", v1.UnsupportedType},
		"JSON without a type":           {"", strings.NewReader(`{"image":"cGlj"}`), -1, "", v1.UnsupportedType},
		"JSON of any bytes": {"application/octet-stream", strings.NewReader(` {"image":"cGlj"}`),
			-1, "", v1.UnsupportedType},
		"a form with text in UTF-8": {urlencoded, strings.NewReader("key=Zürich-1&imgbase64=cGlj"), -1, "pic", ""},
		"a form whose text is cut in a character": {urlencoded, strings.NewReader("key=" + strings.Repeat("ü", 40) +
			"x&imgbase64=cGlj"), -1, "pic", ""},
		"a form whose text is cut in another character": {urlencoded, strings.NewReader("key=x" + strings.Repeat("ü", 40) +
			"&imgbase64=cGlj"), -1, "pic", ""},
		"a JPEG, announced as a form": {urlencoded, strings.NewReader("\xff\xd8\xff\xe0"), -1, "\xff\xd8\xff\xe0", ""},
		"no file was chosen": {formType, strings.NewReader(unusedInput + "--b--\r\n"),
			-1, "", v1.EmptyBody},
		"an unknown field": {formType, strings.NewReader(strings.Replace(form, "meta-note", "note", 1)),
			-1, "", v1.UnknownField},
		"an unknown field of two": {urlencoded, strings.NewReader("imgbase64=cGlj&note=x"),
			-1, "", v1.UnknownField},
		"an unknown field of JSON": {jsonType, strings.NewReader(`{"image":"cGlj","note":"x"}`),
			-1, "", v1.UnknownField},
		"a field without a name": {formType, strings.NewReader(strings.Replace(form, "; name=", "; nom=", 1)),
			-1, "", v1.InvalidBody},
		"an image over its limit, announced as a form": {urlencoded, strings.NewReader(png + full), -1, "", v1.TooLarge},
		"the same, of a known length":                  {urlencoded, strings.NewReader(png + full), 108, "", v1.TooLarge},

		"bad base64":             {urlencoded, strings.NewReader("imgbase64=cGl*"), -1, "", v1.InvalidBody},
		"data URL of text":       {urlencoded, strings.NewReader("imgbase64=data:text/plain,x"), -1, "", v1.InvalidBody},
		"base64 given twice":     {urlencoded, strings.NewReader("imgbase64=cGlj&imgbase64=cGlj"), -1, "", v1.InvalidBody},
		"form of something else": {urlencoded, strings.NewReader("image=cGlj"), -1, "", v1.UnknownField},
		"base64 of nothing":      {urlencoded, strings.NewReader("imgbase64="), -1, "", v1.EmptyBody},
		"bad base64 in JSON":     {jsonType, strings.NewReader(`{"image":"%"}`), -1, "", v1.InvalidBody},
		"JSON of nothing":        {jsonType, strings.NewReader(`{"image":""}`), -1, "", v1.EmptyBody},
		"JSON without an image":  {jsonType, strings.NewReader(`{"image":null}`), -1, "", v1.InvalidBody},
		"JSON with both":         {jsonType, strings.NewReader(`{"image":"cGlj","url":"http://a"}`), -1, "", v1.InvalidBody},
		"JSON with neither":      {jsonType, strings.NewReader(`{}`), -1, "", v1.InvalidBody},
		"JSON far too long":      {jsonType, unreadableBody{t}, 2*100 + formAllowance + 1, "", v1.TooLarge},
		"JSON cut off":           {jsonType, failingReader{io.ErrUnexpectedEOF}, -1, "", v1.TruncatedBody},
		"form cut off": {formType, io.MultiReader(strings.NewReader(form[:140]), failingReader{io.ErrUnexpectedEOF}),
			-1, "", v1.TruncatedBody},
		"not a form":    {formType, strings.NewReader("pic"), 3, "", v1.InvalidBody},
		"too slow":      {"image/png", failingReader{os.ErrDeadlineExceeded}, 3, "", v1.TruncatedBody},
		"form too slow": {formType, failingReader{os.ErrDeadlineExceeded}, -1, "", v1.TruncatedBody},
		"broken":        {"image/png", failingReader{errors.New("broken")}, 3, "", v1.InvalidBody},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newTestBodies(largeMemory)
			r := httptest.NewRequest(http.MethodPost, "/v1/images", tt.body)
			r.ContentLength = tt.length
			r.Header.Set("Content-Type", tt.contentType)
			in, release, err := b.read(httptest.NewRecorder(), r)
			var image []byte
			if err == nil {
				image, _, err = in.imageOrURL()
				if err != nil {
					release()
				}
			}
			if code, _ := problemCodeAndField(err); code != tt.code {
				t.Fatalf("got %v, want %q", err, tt.code)
			}
			if err != nil && tt.code == "" {
				t.Fatalf("got %v, want no error", err)
			}
			if string(image) != tt.want {
				t.Errorf("got %q, want %q", image, tt.want)
			}
			if err == nil {
				if b.memory.Used() < int64(len(image)) {
					t.Error("the memory of the image was not counted")
				}
				release()
				release() // a second call has no effect
			}
			if b.memory.Used() != 0 {
				t.Error("the memory was not released")
			}
		})
	}
}

// TestBodies_NameTheFieldThatWasSent covers forms whose image is in another field than the one that is expected.
func TestBodies_NameTheFieldThatWasSent(t *testing.T) {
	t.Parallel()
	const formType, urlencoded = "multipart/form-data; boundary=b", "application/x-www-form-urlencoded"
	const wrongField = `the field "file" has a file, but the field of an image is "image"`
	const noImage, noBase64 = `the form has no field "image", `, `the form has no field "imgbase64", `
	const knownFields = "pipeline, priority, callback, key, meta-*, min_score, labels, top"
	large := multipartForm("file", strings.Repeat("x", 10_000))
	note := "--b\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\n1\r\n--b--\r\n"
	for name, tt := range map[string]struct {
		path, contentType, body string
		field, detail           string
	}{
		"a file":                  {"/v1/images", formType, large, "file", wrongField},
		"a file of a report":      {"/v1/reports", formType, large, "file", wrongField},
		"a file, on an old route": {"/upload", formType, large, "image", noImage + `but "file", "meta-note"`},
		"an unknown field": {"/v1/images", formType, note, "note",
			`"note" is not known here; known are image, imgbase64, ` + knownFields},
		"one of an old route": {"/upload", formType, note, "image", noImage + `but "note"`},
		"known fields": {"/v1/images", formType, strings.Replace(note, "note", "key", 1), "image",
			noImage + `but "key"`},
		"nothing": {"/v1/images", formType, "--b--\r\n", "image", noImage + `and no other field`},
		"a web form": {"/v1/images", urlencoded, "image=cGlj&meta-a=b", "image",
			`"image" is not known here; known are imgbase64, ` + knownFields},
		"one with known fields": {"/v1/images", urlencoded, "key=1&meta-a=b", "imgbase64",
			noBase64 + `but "key", "meta-a"`},
		"one of an old route too": {"/tyocr", urlencoded, "image=cGlj&meta-a=b", "imgbase64",
			noBase64 + `but "image", "meta-a"`},
		"an unreadable Content-Disposition": {"/v1/images", formType,
			strings.Replace(note, `"note"`, `"image"; filename="a"b.png"`, 1), "Content-Disposition",
			"the Content-Disposition of part 1 of the form cannot be parsed"},
		"no name": {"/v1/images", formType, strings.Replace(note, `; name="note"`, "", 1), "Content-Disposition",
			"part 1 of the form has no name in its Content-Disposition"},
		"JSON of an image type": {"/v1/images", "image/png", "{}", "Content-Type",
			"the body looks like JSON: send Content-Type: application/json"},
		"JSON without a type": {"/v1/images", "application/octet-stream", "{}", "Content-Type",
			"the body looks like JSON: send Content-Type: application/json"},
		"an empty URL": {"/v1/images", "application/json", `{"url":""}`, "url", "url is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newTestBodies(largeMemory)
			b.maxForm = int64(len(tt.body))
			r := httptest.NewRequest(http.MethodPost, tt.path, strings.NewReader(tt.body))
			r.Header.Set("Content-Type", tt.contentType)
			_, _, err := b.read(httptest.NewRecorder(), r)
			var p *v1.Problem
			if !errors.As(err, &p) {
				t.Fatalf("got %v, want a problem", err)
			}
			if p.Field != tt.field {
				t.Errorf("the field is %q, want %q", p.Field, tt.field)
			}
			if p.Detail != tt.detail {
				t.Errorf("the detail is %q, want %q", p.Detail, tt.detail)
			}
		})
	}
}

// formWithFields returns a form with an image and these names and values of fields.
func formWithFields(fields ...string) string {
	var b strings.Builder
	for i := 0; i < len(fields); i += 2 {
		b.WriteString("--b\r\nContent-Disposition: form-data; name=\"" + fields[i] + "\"\r\n\r\n" + fields[i+1] + "\r\n")
	}
	return b.String() + multipartImages("p")
}

// TestBodies_BoundTheFieldsOfAForm checks that what is too much is cut but not accepted, and that an old route
// skips it.
func TestBodies_BoundTheFieldsOfAForm(t *testing.T) {
	t.Parallel()
	read := func(path, form string) (fields, int64, error) {
		b := newTestBodies(largeMemory)
		b.maxForm = int64(len(form))
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form))
		r.Header.Set("Content-Type", "multipart/form-data; boundary=b")
		in, release, err := b.read(httptest.NewRecorder(), r)
		if err != nil {
			return nil, 0, err
		}
		defer release()
		return in.fields, b.memory.Used(), nil
	}
	long := formWithFields("labels", strings.Repeat("x", 100_000))
	got, _, err := read("/v1/images", long)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(got["labels"]); n != maxFormValue {
		t.Errorf("%d bytes of a long value are kept, want %d", n, maxFormValue)
	}
	got, used, err := read("/upload", long)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 0 {
		t.Errorf("the fields of an old route are %v, want none", got)
	}
	if used > maxFormValue {
		t.Errorf("%d bytes are reserved for the field of an old route, want its name only", used)
	}
	var many []string
	for n := range 1000 {
		many = append(many, "meta-"+strconv.Itoa(n), "x")
	}
	got, _, err = read("/v1/images", formWithFields(many...))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != maxFormFields {
		t.Errorf("%d fields of many are kept, want %d", len(got), maxFormFields)
	}
	var same []string
	for range 1000 {
		same = append(same, "pipeline", "text")
	}
	_, _, err = read("/v1/images", formWithFields(same...))
	if want := "invalid-parameter: pipeline is given 1000 times"; err == nil || err.Error() != want {
		t.Errorf("a field that is repeated: got %v, want %s", err, want)
	}
	b := newTestBodies(20 * fieldOverhead)
	r := httptest.NewRequest(http.MethodPost, "/v1/images", strings.NewReader(formWithFields(same[:40]...)))
	b.maxForm = 10_000
	r.Header.Set("Content-Type", "multipart/form-data; boundary=b")
	_, _, err = b.read(httptest.NewRecorder(), r)
	if code, _ := problemCodeAndField(err); code != v1.Overloaded {
		t.Errorf("fields over the memory: got %v, want %s", err, v1.Overloaded)
	}
}

// unreadableBody fails the test when it is read.
type unreadableBody struct{ t *testing.T }

func (u unreadableBody) Read([]byte) (int, error) {
	u.t.Error("the body was read, although the headers suffice to reject it")
	return 0, io.EOF
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

func TestBodies_LimitMemory(t *testing.T) {
	t.Parallel()
	b := newTestBodies(150)
	post := func(length int64) (func(), *httptest.ResponseRecorder, error) {
		r := httptest.NewRequest(http.MethodPost, "/v1/images", bytes.NewReader(make([]byte, 100)))
		r.ContentLength = length
		w := httptest.NewRecorder()
		_, release, err := b.read(w, r)
		return release, w, err
	}
	release, _, err := post(100)
	if err != nil {
		t.Fatal(err)
	}
	for _, length := range []int64{100, -1} {
		_, w, err := post(length)
		if code, _ := problemCodeAndField(err); code != v1.Overloaded {
			t.Errorf("one more of length %d: %v, want %s", length, err, v1.Overloaded)
		}
		if got := retry.FormatAfter(err); got != "1" {
			t.Errorf("one more of length %d: Retry-After is %q, want 1", length, got)
		}
		if got := w.Header().Get("Connection"); got != "close" {
			t.Errorf("one more of length %d: Connection is %q, want close", length, got)
		}
	}
	release()
	if release, _, err = post(100); err != nil {
		t.Errorf("after the first was done: %v", err)
	} else {
		release()
	}
}

// TestBodies_ReserveNoMemoryForAnnouncedBytes has requests that announce a large body and send little of it.
func TestBodies_ReserveNoMemoryForAnnouncedBytes(t *testing.T) {
	t.Parallel()
	const announced = 8 << 20
	for name, tt := range map[string]struct {
		contentType, sent string
		length, want      int64
	}{
		"multipart":            {"multipart/form-data; boundary=b", "--b\r\n", announced, 0},
		"multipart, no length": {"multipart/form-data; boundary=b", "--b\r\n", -1, 0},
		"JSON":                 {"application/json", `{"ima`, announced, decodeFactor * 5},
		"an image":             {"image/png", "hello", announced, 64 << 10}, // the first step of body.ReadAll
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBodies(Config{
					Limits: imagefile.Limits{MaxBytes: announced}, MaxFormBytes: announced, MaxImages: 3,
					BodyRate: body.Rate{BytesPerSecond: 1}, BodyMemory: 2 * announced, ClientBodyMemory: 2 * announced,
				})
				in, out := net.Pipe()
				r := httptest.NewRequest(http.MethodPost, "/v1/images", in)
				r.ContentLength = tt.length
				r.Header.Set("Content-Type", tt.contentType)
				var reading sync.WaitGroup
				reading.Go(func() {
					defer in.Close()
					if _, _, err := b.read(httptest.NewRecorder(), r); err == nil {
						t.Error("the body was accepted, want an error after its end")
					}
				})
				if _, err := out.Write([]byte(tt.sent)); err != nil {
					t.Error(err)
				}
				synctest.Wait() // until read waits for more bytes
				if n := b.memory.Used(); n != tt.want {
					t.Errorf("%d bytes are reserved, want %d", n, tt.want)
				}
				out.Close()
				reading.Wait()
			})
		})
	}
}

// pipeWriter is a ResponseRecorder whose read deadline is that of the pipe that the body comes from.
type pipeWriter struct {
	*httptest.ResponseRecorder
	body net.Conn
}

func (w pipeWriter) SetReadDeadline(t time.Time) error { return w.body.SetReadDeadline(t) }

// TestBodies_RejectABodyBelowTheLowestRate also checks that a slow body above the lowest rate is accepted. The bodies
// arrive on the fake clock of a synctest bubble.
func TestBodies_RejectABodyBelowTheLowestRate(t *testing.T) {
	t.Parallel()
	for pause, want := range map[time.Duration]struct {
		code  v1.Code
		after time.Duration
	}{
		20 * time.Millisecond:  {"", 1800 * time.Millisecond},
		300 * time.Millisecond: {v1.TruncatedBody, 501 * time.Millisecond}, // a window and Grace
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newTestBodies(largeMemory)
			b.rate = body.Rate{BytesPerSecond: 10, Window: 500 * time.Millisecond, Grace: time.Millisecond}
			in, out := net.Pipe()
			var client sync.WaitGroup
			client.Go(func() {
				defer out.Close()
				for range 90 {
					if _, err := out.Write([]byte("x")); err != nil {
						return
					}
					time.Sleep(pause)
				}
			})
			r := httptest.NewRequest(http.MethodPost, "/v1/images", in)
			r.Header.Set("Content-Type", "image/png")
			start := time.Now()
			_, release, err := b.read(pipeWriter{httptest.NewRecorder(), in}, r)
			after := time.Since(start)
			in.Close()
			client.Wait()
			if err == nil {
				release()
			}
			if code, _ := problemCodeAndField(err); code != want.code {
				t.Errorf("a byte every %v: got %v, want %q", pause, err, want.code)
			} else if err != nil && code == "" {
				t.Errorf("a byte every %v: got %v, want no error", pause, err)
			}
			if after != want.after {
				t.Errorf("a byte every %v: the read ended after %v, want %v", pause, after, want.after)
			}
			if n := b.memory.Used(); n != 0 {
				t.Errorf("a byte every %v: %d bytes are reserved after the request, want 0", pause, n)
			}
		})
	}
}

func TestClientKey(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"192.0.2.1:5": "192.0.2.1", "[::ffff:192.0.2.1]:5": "192.0.2.1",
		"[2001:db8:1:2:3::4]:5": "2001:db8:1:2::/64", "[fe80::1%eth0]:5": "fe80::/64", "pipe": "pipe",
	} {
		if got := clientKey(&http.Request{RemoteAddr: addr}); got != want {
			t.Errorf("%s: %q, want %q", addr, got, want)
		}
	}
}
