package httpapi

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/body"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/ingress/internal/reportintake"
	"github.com/sightmesh/sightmesh/services/internal/imagefile"
	"github.com/sightmesh/sightmesh/services/internal/regionfilter"
	"github.com/sightmesh/sightmesh/services/internal/requestfields"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// Names of the form fields with an image: as a file, or in base64.
const (
	imageField  = "image"
	base64Field = "imgbase64"
)

// formAllowance is the size that a form may have in addition to the image, in bytes.
const formAllowance = 64 << 10

// bodyKind is how a body contains images.
type bodyKind int

const (
	rawBody bodyKind = iota
	multipartBody
	urlencodedBody
	jsonBody
)

// bodies reads the bodies of requests, which share its memory.
type bodies struct {
	maxBytes  int64 // maximum of an image
	maxForm   int64
	maxImages int // maximum in a form
	rate      body.Rate
	memory    *body.Memory
}

func newBodies(cfg Config) *bodies {
	return &bodies{
		maxBytes: cfg.Limits.MaxBytes, maxForm: cfg.MaxFormBytes, maxImages: cfg.MaxImages,
		rate: cfg.BodyRate.WithDefaults(), memory: body.NewMemory(cfg.BodyMemory, cfg.ClientBodyMemory),
	}
}

// bodyContent is the content of a body: images, or the URL of one.
type bodyContent struct {
	uploads []reportintake.Upload
	url     string
	fields  fields              // the other fields of the body
	grow    func(n int64) error // reserves memory for the image that is fetched from url
}

// imageOrURL returns the image, or the URL when there is one.
func (in bodyContent) imageOrURL() (image []byte, url string, err error) {
	if in.url != "" {
		return nil, in.url, nil
	}
	return in.uploads[0].Image, "", in.uploads[0].Err
}

// read reads the body of a request. It rejects a body before reading it when the headers suffice for that.
// The caller calls release when it no longer needs the images, once or more often.
func (b *bodies) read(w http.ResponseWriter, r *http.Request) (in bodyContent, release func(), err error) {
	_, span := telemetry.StartChild(r.Context(), "read body") // shows a slow client
	defer func() {
		if err != nil {
			telemetry.Fail(span, err)
		}
		span.End()
	}()
	kind, boundary, err := parseBodyKind(r.Header)
	if err != nil {
		return in, nil, err
	}
	content, reservation, err := b.open(w, r, b.limit(kind))
	if err != nil {
		return in, nil, err
	}
	if kind == urlencodedBody {
		if content, kind, err = b.sniff(w, r, content); err != nil {
			reservation.Release()
			return in, nil, err
		}
	}
	strict := isStrict(r)
	switch kind {
	case rawBody:
		in.uploads = make([]reportintake.Upload, 1)
		in.uploads[0].Image, err = readRaw(content, reservation, r.ContentLength, b.maxBytes)
		if err == nil && isJSON(in.uploads[0].Image) {
			err = unannouncedJSON()
		}
	case multipartBody:
		in, err = b.readForm(content, reservation, boundary, strict)
	case urlencodedBody:
		in, err = readURLEncoded(decodingReader{content, reservation}, strict)
	case jsonBody:
		in, err = readJSON(decodingReader{content, reservation})
	}
	if err == nil && len(in.uploads) == 1 && in.uploads[0].Err == nil && len(in.uploads[0].Image) == 0 {
		err = v1.NewProblem(v1.EmptyBody, "the picture has no bytes")
	}
	if err != nil {
		reservation.Release()
		return in, nil, b.readError(w, err, b.limit(kind))
	}
	if kind == urlencodedBody || kind == jsonBody { // what exceeds the images was for decoding
		held := 0
		for _, u := range in.uploads {
			held += cap(u.Image)
		}
		reservation.ShrinkTo(int64(held))
	}
	in.grow = reservation.Grow
	return in, reservation.Release, nil
}

// limit returns the maximum size of a body. Base64 has four bytes for three, and a form may escape some of
// them.
func (b *bodies) limit(k bodyKind) int64 {
	switch k {
	case multipartBody:
		return b.maxForm
	case urlencodedBody, jsonBody:
		return 2*b.maxBytes + formAllowance
	}
	return b.maxBytes
}

// open returns a reader of the body up to limit, and an empty reservation of memory. A read returns
// [os.ErrDeadlineExceeded] when the body arrives too slowly.
func (b *bodies) open(w http.ResponseWriter, r *http.Request, limit int64) (io.Reader, *body.Reservation, error) {
	if r.ContentLength > limit {
		w.Header().Set("Connection", "close") // the body is not read
		return nil, nil, b.tooLarge(limit)
	}
	if r.ContentLength == 0 {
		return nil, nil, v1.NewProblem(v1.EmptyBody, "the body is empty; /openapi.json says what belongs there")
	}
	content := &pacedReader{
		Reader: http.MaxBytesReader(w, r.Body, limit), conn: http.NewResponseController(w),
		pace: body.NewPace(b.rate, time.Now()),
	}
	if err := content.setDeadline(content.pace.Deadline()); err != nil {
		return nil, nil, err
	}
	return content, b.memory.NewReservation(clientKey(r)), nil
}

// sniffBytes is the length of the start of a body that sniff looks at. It leaves room for a byte order mark and
// blanks before JSON.
const sniffBytes = 64

// sniff distinguishes a web form from an image with the content type of a web form, which clients such as
// curl send by default. It rejects JSON.
func (b *bodies) sniff(w http.ResponseWriter, r *http.Request, content io.Reader) (io.Reader, bodyKind, error) {
	buffered := bufio.NewReader(content)
	head, _ := buffered.Peek(sniffBytes) // the read returns the error again
	switch {
	case isJSON(head):
		return nil, 0, unannouncedJSON()
	case imagefile.TypeOf(head) == "" && isText(head):
		return buffered, urlencodedBody, nil
	case r.ContentLength > b.maxBytes:
		w.Header().Set("Connection", "close") // the body is not read
		return nil, 0, b.tooLarge(b.maxBytes)
	}
	return http.MaxBytesReader(w, io.NopCloser(buffered), b.maxBytes), rawBody, nil
}

// byteOrderMark can be before JSON. RFC 8259 permits ignoring it.
var byteOrderMark = []byte("\xef\xbb\xbf")

// isJSON reports whether a body begins like a JSON object or array.
func isJSON(head []byte) bool {
	head = bytes.TrimLeft(bytes.TrimPrefix(head, byteOrderMark), " \t\r\n")
	return len(head) > 0 && (head[0] == '{' || head[0] == '[')
}

// unannouncedJSON returns the problem of JSON with another content type.
func unannouncedJSON() *v1.Problem {
	return v1.NewProblem(v1.UnsupportedType, "the body looks like JSON: send Content-Type: application/json").
		WithField("Content-Type")
}

// isText reports whether the start of a body is text in UTF-8. Its last character can be incomplete.
func isText(head []byte) bool {
	for utf8.FullRune(head) {
		c, size := utf8.DecodeRune(head)
		isInvalid := c == utf8.RuneError && size == 1
		isControl := c < ' ' && c != '\r' && c != '\n' && c != '\t' || c == '\x7f'
		if isInvalid || isControl {
			return false
		}
		head = head[size:]
	}
	return true
}

// pacedReader extends the read deadline of a connection while a body arrives fast enough. Without a deadline,
// a body that arrives slowly would occupy its memory forever.
type pacedReader struct {
	io.Reader
	conn *http.ResponseController
	pace *body.Pace
}

func (r *pacedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	var setErr error
	if errors.Is(err, io.EOF) {
		setErr = r.setDeadline(time.Time{})
	} else if r.pace.Add(n, time.Now()) {
		setErr = r.setDeadline(r.pace.Deadline())
	}
	if err == nil {
		err = setErr
	}
	return n, err
}

func (r *pacedReader) setDeadline(t time.Time) error {
	err := r.conn.SetReadDeadline(t)
	if errors.Is(err, http.ErrNotSupported) { // some writers in tests have no deadline
		return nil
	}
	return err
}

// decodeFactor is the memory for each byte of a body that is decoded: the body, its text, a copy and the
// image.
const decodeFactor = 4

// decodingReader reserves memory for a body that is decoded while it arrives.
type decodingReader struct {
	io.Reader
	reservation *body.Reservation
}

func (d decodingReader) Read(p []byte) (int, error) {
	n, err := d.Reader.Read(p)
	if n > 0 {
		if growErr := d.reservation.Grow(decodeFactor * int64(n)); growErr != nil {
			return 0, growErr
		}
	}
	return n, err
}

// parseBodyKind returns the kind of a body from its headers.
func parseBodyKind(h http.Header) (k bodyKind, boundary string, err error) {
	if coding := h.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return 0, "", v1.NewProblem(v1.UnsupportedType,
			"Content-Encoding is %.20q, want a body that is not compressed", coding).
			WithField("Content-Encoding")
	}
	header := h.Get("Content-Type")
	if header == "" {
		return rawBody, "", nil // detected from the content
	}
	typ, params, err := mime.ParseMediaType(header)
	if err != nil {
		return 0, "", v1.NewProblem(v1.InvalidHeader, "Content-Type cannot be read: %v", err).WithField("Content-Type")
	}
	switch {
	case typ == "multipart/form-data" && params["boundary"] == "":
		return 0, "", v1.NewProblem(v1.InvalidHeader, "Content-Type has no boundary").WithField("Content-Type")
	case typ == "multipart/form-data":
		return multipartBody, params["boundary"], nil
	case typ == "application/x-www-form-urlencoded":
		return urlencodedBody, "", nil
	case typ == "application/json":
		return jsonBody, "", nil
	case strings.HasPrefix(typ, "image/"), typ == "application/octet-stream":
		return rawBody, "", nil
	}
	return 0, "", v1.NewProblem(v1.UnsupportedType, "Content-Type is %.60q, want image/*, application/octet-stream, "+
		"multipart/form-data, application/x-www-form-urlencoded or application/json", typ).WithField("Content-Type")
}

// readRaw reads a body that is an image. length is the announced length, negative for none.
func readRaw(r io.Reader, reservation *body.Reservation, length, limit int64) ([]byte, error) {
	largest := limit
	if length >= 0 {
		largest = length
	}
	data, err := body.ReadAll(r, reservation.Grow, largest)
	if err == nil && int64(len(data)) < length {
		err = io.ErrUnexpectedEOF
	}
	return data, err
}

// Limits of what is kept of the form fields without an image. They exceed the limits of fields, so that the
// rule of a field rejects what is too much.
const (
	maxFormFields = 64                        // names of fields
	maxFormValue  = regionfilter.MaxValue + 1 // bytes of a value
	fieldOverhead = 64                        // bytes of memory for a field, besides its name and value
)

// Fields of the forms.
var (
	multipartFields  = slices.Concat([]string{imageField, base64Field}, submissionFields)
	urlencodedFields = slices.Concat([]string{base64Field}, submissionFields)
)

// formFields returns the fields of a form. The old routes ignore them, as the original services did.
func formFields(others url.Values, strict bool, known []string) (fields, error) {
	if !strict {
		return nil, nil //nolint:nilnil // no field is read
	}
	return readFields(others, true, known...)
}

// readForm reads every image of a form in order, and its other fields. An invalid image does not affect the
// others. An empty file input of a web page is not an image. When strict, an unknown field and a file in
// another field are problems, before their content is read. Otherwise they are skipped.
func (b *bodies) readForm(
	r io.Reader, reservation *body.Reservation, boundary string, strict bool,
) (in bodyContent, err error) {
	others := url.Values{}
	unused := 0
	m := multipart.NewReader(r, boundary)
	for n := 1; ; n++ {
		part, err := m.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return in, formError(err)
		}
		name := part.FormName()
		fileName, isFile, err := partFileName(part)
		switch {
		case name == "" && err != nil:
			return in, v1.NewProblem(v1.InvalidBody, "the Content-Disposition of part %d of the form cannot be parsed", n).
				WithField("Content-Disposition")
		case name == "":
			return in, v1.NewProblem(v1.InvalidBody, "part %d of the form has no name in its Content-Disposition", n).
				WithField("Content-Disposition")
		case isImageField(name):
		case isFile && strict:
			return in, v1.NewProblem(v1.UnknownField, "the field %.60q has a file, but the field of an image is %q",
				name, imageField).WithField(name)
		case strict && !isKnown(name, multipartFields):
			return in, requestfields.NewUnknownProblem(name, multipartFields)
		default:
			if err := readField(part, name, strict, others, reservation); err != nil {
				return in, err
			}
			continue
		}
		if len(in.uploads) == b.maxImages {
			return in, reportintake.TooManyImages(b.maxImages)
		}
		u, err := b.readUpload(part, name, reservation)
		if err != nil {
			return in, err
		}
		if len(u.Image) == 0 && u.Err == nil && isFile && fileName == "" {
			unused++
			continue
		}
		in.uploads = append(in.uploads, u)
	}
	if in.fields, err = formFields(others, strict, multipartFields); err != nil {
		return in, err
	}
	switch {
	case len(in.uploads) > 0:
		return in, nil
	case unused > 0:
		return in, v1.NewProblem(v1.EmptyBody, "no file was chosen for %s", imageField).WithField(imageField)
	}
	return in, missingField(imageField, others)
}

// isImageField reports whether a field of a form has an image.
func isImageField(name string) bool { return name == imageField || name == base64Field }

// missingField returns the problem of a form that has other fields only, and names them.
func missingField(want string, others url.Values) error {
	if len(others) == 0 {
		return v1.NewProblem(v1.InvalidBody, "the form has no field %q, and no other field", want).WithField(want)
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(others)) {
		names = append(names, fmt.Sprintf("%.60q", name))
	}
	return v1.NewProblem(v1.InvalidBody, "the form has no field %q, but %.200s", want, strings.Join(names, ", ")).
		WithField(want)
}

// readField adds a form field without an image to others. It skips a value that has no effect: that of a
// repeated field, and any value when not strict. It cuts a value that is too long for every field. It skips a
// field after maxFormFields others, because their entries of metadata are too many already.
func readField(
	part *multipart.Part, name string, strict bool, others url.Values, reservation *body.Reservation,
) error {
	if len(others) == maxFormFields && !others.Has(name) {
		return nil
	}
	if err := reservation.Grow(int64(len(name) + fieldOverhead)); err != nil {
		return err
	}
	var value []byte
	if strict && !others.Has(name) {
		var err error
		if value, err = body.ReadAll(io.LimitReader(part, maxFormValue), reservation.Grow, maxFormValue); err != nil {
			return formError(err)
		}
	}
	others.Add(name, string(value))
	return nil
}

// readUpload reads one image of a form.
func (b *bodies) readUpload(
	part *multipart.Part, name string, reservation *body.Reservation,
) (reportintake.Upload, error) {
	data, err := body.ReadAll(io.LimitReader(part, 2*b.maxBytes), reservation.Grow, 2*b.maxBytes)
	if err != nil {
		return reportintake.Upload{}, formError(err)
	}
	u := reportintake.Upload{Image: data}
	if name == base64Field {
		if err := reservation.Grow(int64(len(data))); err != nil {
			return reportintake.Upload{}, err
		}
		u.Image, u.Err = decodeBase64(data, base64Field)
	}
	if int64(len(u.Image)) > b.maxBytes {
		u = reportintake.Upload{Err: b.tooLarge(b.maxBytes)}
	}
	return u, nil
}

// partFileName returns the file name of a part. isFile is false for a part that is not a file. The name is ""
// for a file input without a chosen file. The error is that of a Content-Disposition that cannot be parsed.
func partFileName(part *multipart.Part) (name string, isFile bool, err error) {
	header := part.Header.Get("Content-Disposition")
	if header == "" {
		return "", false, nil
	}
	_, params, err := mime.ParseMediaType(header)
	name, isFile = params["filename"]
	return name, isFile, err
}

// readURLEncoded reads a web form: its image in base64, and its other fields.
func readURLEncoded(r io.Reader, strict bool) (in bodyContent, err error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return in, err
	}
	// Some clients escape neither the '+' of base64 nor the ';' of a data URL.
	form, err := url.ParseQuery(keepPlus(strings.ReplaceAll(string(data), ";", "%3B")))
	if err != nil {
		return in, v1.NewProblem(v1.InvalidBody, "the form cannot be read: %v", err)
	}
	images := form[base64Field]
	delete(form, base64Field)
	if in.fields, err = formFields(form, strict, urlencodedFields); err != nil {
		return in, err
	}
	switch {
	case len(images) == 0:
		return in, missingField(base64Field, form)
	case len(images) > 1:
		return in, v1.NewProblem(v1.InvalidBody, "the form has %d fields %q, want one", len(images), base64Field).
			WithField(base64Field)
	}
	image, err := decodeBase64([]byte(images[0]), base64Field)
	in.uploads = []reportintake.Upload{{Image: image, Err: err}}
	return in, nil
}

// readJSON reads a JSON body: its image in base64 or the URL of the image, and its other fields.
func readJSON(r io.Reader) (in bodyContent, err error) {
	var request struct { // a v1.ImageRequest
		Image *string `json:"image"`
		URL   *string `json:"url"`
		bodyFields
	}
	if err := decodeJSON(r, &request); err != nil {
		return in, err
	}
	if in.fields, err = jsonFields(request.bodyFields); err != nil {
		return in, err
	}
	switch {
	case request.Image != nil && request.URL != nil:
		return in, v1.NewProblem(v1.InvalidBody, "image and url are both given, want one").WithField("url")
	case request.URL != nil && *request.URL == "":
		return in, v1.NewProblem(v1.InvalidBody, "url is empty").WithField("url")
	case request.URL != nil:
		in.url = *request.URL
		return in, checkLength(in.url, "url")
	case request.Image == nil:
		return in, v1.NewProblem(v1.InvalidBody, "neither image nor url is given").WithField("image")
	}
	image, err := decodeBase64([]byte(*request.Image), "image")
	in.uploads = []reportintake.Upload{{Image: image, Err: err}}
	return in, nil
}

// checkLength checks the length of the URL of an image in a field.
func checkLength(url, field string) error {
	if len(url) <= intake.MaxURL {
		return nil
	}
	return v1.NewProblem(v1.InvalidBody, "%s has %d bytes, and the URL of an image may have %d",
		field, len(url), intake.MaxURL).
		WithField(field).WithLimit(intake.MaxURL)
}

// formError returns the problem of an invalid form, or err when the form could not be received.
func formError(err error) error {
	var tooLarge *http.MaxBytesError
	var p *v1.Problem
	if errors.As(err, &p) || errors.As(err, &tooLarge) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return v1.NewProblem(v1.InvalidBody, "the form cannot be read: %v", err)
}

// readError returns the problem of a body that could not be read.
func (b *bodies) readError(w http.ResponseWriter, err error, limit int64) error {
	var p *v1.Problem
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &p) && p.Code == v1.Overloaded:
		w.Header().Set("Connection", "close") // the rest is not read
		return err
	case errors.As(err, &p):
		return p
	case errors.As(err, &tooLarge):
		return b.tooLarge(limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.Header().Set("Connection", "close")
		return b.rate.Problem("the body")
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		w.Header().Set("Connection", "close")
		return v1.NewProblem(v1.TruncatedBody, "the body ended before it was complete")
	}
	return v1.NewProblem(v1.InvalidBody, "the body cannot be read: %v", err)
}

// tooLarge returns the problem of an image, or of a body with images, that exceeds the limit.
func (b *bodies) tooLarge(limit int64) *v1.Problem {
	if limit == b.maxBytes {
		return v1.NewProblem(v1.TooLarge, "a picture may have %d bytes", limit).WithLimit(limit)
	}
	return v1.NewProblem(v1.TooLarge, "this body may have %d bytes, and a picture in it %d", limit, b.maxBytes).
		WithLimit(limit)
}
