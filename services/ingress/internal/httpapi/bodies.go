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

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/body"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/ingress/internal/reportintake"
	"github.com/sightmesh/sightmesh/services/internal/imagefile"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// Names of the image in a form: its bytes, or its bytes in base64.
const (
	imageField  = "image"
	base64Field = "imgbase64"
)

// formAllowance is what a form may have besides the image.
const formAllowance = 64 << 10

// bodyKind is the form in which a body brings an image.
type bodyKind int

const (
	rawBody bodyKind = iota
	multipartBody
	urlencodedBody
	jsonBody
)

// bodies reads the bodies of requests. All that are held at a time share its
// memory.
type bodies struct {
	maxBytes  int64 // of an image
	maxForm   int64
	maxImages int // in a form
	rate      body.Rate
	memory    *body.Memory
}

func newBodies(cfg Config) *bodies {
	return &bodies{
		maxBytes: cfg.Limits.MaxBytes, maxForm: cfg.MaxFormBytes, maxImages: cfg.MaxImages,
		rate: cfg.BodyRate.WithDefaults(), memory: body.NewMemory(cfg.BodyMemory, cfg.ClientBodyMemory),
	}
}

// bodyContent is what a body brought: images, or the URL of one.
type bodyContent struct {
	uploads []reportintake.Upload
	url     string
	fields  fields              // what the body says besides
	grow    func(n int64) error // takes memory for what is fetched from url
}

// imageOrURL returns the image of an input that has one, or its URL.
func (in bodyContent) imageOrURL() (image []byte, url string, err error) {
	if in.url != "" {
		return nil, in.url, nil
	}
	return in.uploads[0].Image, "", in.uploads[0].Err
}

// read reads the body of a request. What cannot be accepted is rejected before
// the body is read. The caller calls release when it no longer holds the
// images; more than once does no harm.
func (b *bodies) read(w http.ResponseWriter, r *http.Request) (in bodyContent, release func(), err error) {
	_, span := telemetry.StartChild(r.Context(), "read body") // a slow client is to be seen
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
	content, hold, err := b.open(w, r, b.limit(kind))
	if err != nil {
		return in, nil, err
	}
	if kind == urlencodedBody {
		if content, kind, err = b.sniff(w, r, content); err != nil {
			hold.Release()
			return in, nil, err
		}
	}
	var said url.Values
	switch kind {
	case rawBody:
		in.uploads = make([]reportintake.Upload, 1)
		in.uploads[0].Image, err = readRaw(content, hold, r.ContentLength, b.maxBytes)
	case multipartBody:
		in.uploads, said, err = b.readForm(content, hold, boundary, isStrict(r))
	case urlencodedBody:
		in.uploads, said, err = readURLEncoded(decodingReader{content, hold})
	case jsonBody:
		in, err = readJSON(decodingReader{content, hold})
	}
	if err == nil && in.fields == nil {
		in.fields, err = formFields(r, said)
	}
	if err == nil && len(in.uploads) == 1 && in.uploads[0].Err == nil && len(in.uploads[0].Image) == 0 {
		err = v1.NewProblem(v1.EmptyBody, "the picture has no bytes")
	}
	if err != nil {
		hold.Release()
		return in, nil, b.readError(w, err, b.limit(kind))
	}
	if kind == urlencodedBody || kind == jsonBody { // the rest was for decoding
		held := 0
		for _, u := range in.uploads {
			held += cap(u.Image)
		}
		hold.ShrinkTo(int64(held))
	}
	in.grow = hold.Grow
	return in, hold.Release, nil
}

// limit is how many bytes a body may have. Base64 takes four bytes for three,
// and a form may escape some of them.
func (b *bodies) limit(k bodyKind) int64 {
	switch k {
	case multipartBody:
		return b.maxForm
	case urlencodedBody, jsonBody:
		return 2*b.maxBytes + formAllowance
	}
	return b.maxBytes
}

// open returns the body of a request as far as its limit, and what it has of the
// memory: nothing yet. Reading fails with [os.ErrDeadlineExceeded] when the body
// arrives too slowly.
func (b *bodies) open(w http.ResponseWriter, r *http.Request, limit int64) (io.Reader, *body.Reservation, error) {
	if r.ContentLength > limit {
		w.Header().Set("Connection", "close") // the body stays unread
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

// sniff tells a web form from an image that was announced as one, which is what clients
// do that announce nothing, such as curl.
func (b *bodies) sniff(w http.ResponseWriter, r *http.Request, content io.Reader) (io.Reader, bodyKind, error) {
	buffered := bufio.NewReader(content)
	head, _ := buffered.Peek(imagefile.HeadBytes) // an error comes again when it is read
	binary := bytes.ContainsFunc(head, func(c rune) bool { return c < ' ' && c != '\r' && c != '\n' && c != '\t' || c > '~' })
	switch {
	case bytes.HasPrefix(head, []byte("{")):
		return nil, 0, v1.NewProblem(v1.UnsupportedType, "the body looks like JSON: send Content-Type: application/json").
			WithField("Content-Type")
	case imagefile.TypeOf(head) == "" && !binary:
		return buffered, urlencodedBody, nil
	case r.ContentLength > b.maxBytes:
		w.Header().Set("Connection", "close") // the body stays unread
		return nil, 0, b.tooLarge(b.maxBytes)
	}
	return http.MaxBytesReader(w, io.NopCloser(buffered), b.maxBytes), rawBody, nil
}

// pacedReader moves the read deadline of a connection while a body arrives fast
// enough. A body that trickles in would hold its memory for ever.
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
	if errors.Is(err, http.ErrNotSupported) { // not every writer in tests has a deadline
		return nil
	}
	return err
}

// decodeFactor is how many bytes each byte of a body takes that is decoded: the
// body, its text, a copy and the image.
const decodeFactor = 4

// decodingReader takes memory for a body that is decoded as it arrives.
type decodingReader struct {
	io.Reader
	hold *body.Reservation
}

func (d decodingReader) Read(p []byte) (int, error) {
	n, err := d.Reader.Read(p)
	if n > 0 {
		if growErr := d.hold.Grow(decodeFactor * int64(n)); growErr != nil {
			return 0, growErr
		}
	}
	return n, err
}

// parseBodyKind tells the kinds of bodies apart.
func parseBodyKind(h http.Header) (k bodyKind, boundary string, err error) {
	if coding := h.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return 0, "", v1.NewProblem(v1.UnsupportedType, "Content-Encoding is %.20q, want a body that is not compressed", coding).
			WithField("Content-Encoding")
	}
	header := h.Get("Content-Type")
	if header == "" {
		return rawBody, "", nil // found out from the content
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

// readRaw reads a body that is an image. length is what was announced, negative
// for nothing.
func readRaw(r io.Reader, hold *body.Reservation, length, limit int64) ([]byte, error) {
	largest := limit
	if length >= 0 {
		largest = length
	}
	data, err := body.ReadAll(r, hold.Grow, largest)
	if err == nil && int64(len(data)) < length {
		err = io.ErrUnexpectedEOF
	}
	return data, err
}

// Bounds of the fields of a form that are no images.
const (
	maxFormFields = 64
	maxFormField  = 8 << 10 // bytes
)

// formFields reads the fields of a form. The old routes ignore them, as their originals did.
func formFields(r *http.Request, said url.Values) (fields, error) {
	if !isStrict(r) {
		return nil, nil //nolint:nilnil // none is read
	}
	return readFields(said, true, submissionFields...)
}

// readForm reads every image of a form, in order, and its other fields. An image that is
// wrong takes nothing from the others. A file input of a page that was left empty is no
// image. A file in another field is a problem when strict, and is skipped otherwise.
func (b *bodies) readForm(
	r io.Reader, hold *body.Reservation, boundary string, strict bool,
) (uploads []reportintake.Upload, said url.Values, err error) {
	said = url.Values{}
	unused := 0
	m := multipart.NewReader(r, boundary)
	for n := 1; ; n++ {
		part, err := m.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, formError(err)
		}
		name := part.FormName()
		fileName, isFile := partFileName(part)
		switch {
		case name == "":
			return nil, nil, v1.NewProblem(v1.InvalidBody, "part %d of the form has no name in its Content-Disposition", n).
				WithField("Content-Disposition")
		case isImageField(name):
		case isFile && strict:
			return nil, nil, v1.NewProblem(v1.UnknownField, "the field %.60q has a file, but the field of an image is %q",
				name, imageField).WithField(fmt.Sprintf("%.60s", name))
		default:
			if err := readField(part, name, isFile, said, hold); err != nil {
				return nil, nil, err
			}
			continue
		}
		if len(uploads) == b.maxImages {
			return nil, nil, reportintake.TooManyImages(b.maxImages)
		}
		u, err := b.readUpload(part, name, hold)
		if err != nil {
			return nil, nil, err
		}
		if len(u.Image) == 0 && u.Err == nil && isFile && fileName == "" {
			unused++
			continue
		}
		uploads = append(uploads, u)
	}
	switch {
	case len(uploads) > 0:
		return uploads, said, nil
	case unused > 0:
		return nil, nil, v1.NewProblem(v1.EmptyBody, "no file was chosen for %s", imageField).WithField(imageField)
	}
	return nil, nil, missingField(imageField, said)
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

// readField reads a field of a form that is no image. It skips the content of a file.
func readField(part *multipart.Part, name string, isFile bool, said url.Values, hold *body.Reservation) error {
	given := 0
	for _, values := range said {
		given += len(values)
	}
	if given == maxFormFields {
		return v1.NewProblem(v1.InvalidBody, "the form has more than %d fields", maxFormFields).WithLimit(maxFormFields)
	}
	if isFile {
		said.Add(name, "")
		return nil
	}
	data, err := body.ReadAll(io.LimitReader(part, maxFormField+1), hold.Grow, maxFormField+1)
	if err != nil {
		return formError(err)
	}
	if len(data) > maxFormField {
		return v1.NewProblem(v1.InvalidParameter, "%.60s may have %d bytes", name, maxFormField).
			WithField(fmt.Sprintf("%.60s", name)).WithLimit(maxFormField)
	}
	said.Add(name, string(data))
	return nil
}

// readUpload reads an image of a form.
func (b *bodies) readUpload(part *multipart.Part, name string, hold *body.Reservation) (reportintake.Upload, error) {
	data, err := body.ReadAll(io.LimitReader(part, 2*b.maxBytes), hold.Grow, 2*b.maxBytes)
	if err != nil {
		return reportintake.Upload{}, formError(err)
	}
	u := reportintake.Upload{Image: data}
	if name == base64Field {
		if err := hold.Grow(int64(len(data))); err != nil {
			return reportintake.Upload{}, err
		}
		u.Image, u.Err = decodeBase64(data, base64Field)
	}
	if int64(len(u.Image)) > b.maxBytes {
		u = reportintake.Upload{Err: b.tooLarge(b.maxBytes)}
	}
	return u, nil
}

// partFileName returns the name of the file that a part has; isFile is false for a part
// without a file. The name is "" for a file input for which no file was chosen.
func partFileName(part *multipart.Part) (name string, isFile bool) {
	_, params, err := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
	if err != nil {
		return "", false
	}
	name, isFile = params["filename"]
	return name, isFile
}

func readURLEncoded(r io.Reader) ([]reportintake.Upload, url.Values, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, nil, err
	}
	// Some clients escape neither the '+' of base64 nor the ';' of a data URL.
	form, err := url.ParseQuery(keepPlus(strings.ReplaceAll(string(data), ";", "%3B")))
	if err != nil {
		return nil, nil, v1.NewProblem(v1.InvalidBody, "the form cannot be read: %v", err)
	}
	values := form[base64Field]
	if len(values) == 0 {
		return nil, nil, missingField(base64Field, form)
	}
	if len(values) > 1 {
		return nil, nil, v1.NewProblem(v1.InvalidBody, "the form has %d fields %q, want one", len(values), base64Field).
			WithField(base64Field)
	}
	delete(form, base64Field)
	image, err := decodeBase64([]byte(values[0]), base64Field)
	return []reportintake.Upload{{Image: image, Err: err}}, form, nil
}

func readJSON(r io.Reader) (bodyContent, error) {
	var in struct { // a v1.ImageRequest
		Image string `json:"image"`
		URL   string `json:"url"`
		bodyFields
	}
	if err := decodeJSON(r, &in); err != nil {
		return bodyContent{}, err
	}
	said, err := jsonFields(in.bodyFields)
	switch {
	case err != nil:
		return bodyContent{}, err
	case in.Image != "" && in.URL != "":
		return bodyContent{}, v1.NewProblem(v1.InvalidBody, "image and url are both given, want one").WithField("url")
	case in.URL != "":
		return bodyContent{url: in.URL, fields: said}, checkLength(in.URL, "url")
	case in.Image == "":
		return bodyContent{}, v1.NewProblem(v1.InvalidBody, "neither image nor url is given").WithField("image")
	}
	image, err := decodeBase64([]byte(in.Image), "image")
	return bodyContent{uploads: []reportintake.Upload{{Image: image, Err: err}}, fields: said}, nil
}

// checkLength checks the length of the URL of an image, which is in a field.
func checkLength(url, field string) error {
	if len(url) <= intake.MaxURL {
		return nil
	}
	return v1.NewProblem(v1.InvalidBody, "%s has %d bytes, and the URL of an image may have %d", field, len(url), intake.MaxURL).
		WithField(field).WithLimit(intake.MaxURL)
}

// formError tells a form that is not one from one that could not be read.
func formError(err error) error {
	var tooLarge *http.MaxBytesError
	var p *v1.Problem
	if errors.As(err, &p) || errors.As(err, &tooLarge) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return v1.NewProblem(v1.InvalidBody, "the form cannot be read: %v", err)
}

// readError says what is wrong with a body that could not be read.
func (b *bodies) readError(w http.ResponseWriter, err error, limit int64) error {
	var p *v1.Problem
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &p) && p.Code == v1.Overloaded:
		w.Header().Set("Connection", "close") // the rest stays unread
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

// tooLarge names the limit of an image, or of the body that brings some.
func (b *bodies) tooLarge(limit int64) *v1.Problem {
	if limit == b.maxBytes {
		return v1.NewProblem(v1.TooLarge, "a picture may have %d bytes", limit).WithLimit(limit)
	}
	return v1.NewProblem(v1.TooLarge, "this body may have %d bytes, and a picture in it %d", limit, b.maxBytes).
		WithLimit(limit)
}
