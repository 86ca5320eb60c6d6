package httpapi

import (
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// imageField is the name of the picture in a form.
const imageField = "image"

// formAllowance is what a form may have besides the picture.
const formAllowance = 64 << 10

// readPicture reads the picture of a request, as the body itself or as a part
// of a form. What cannot be accepted is refused before the body is read. The
// caller calls release when it no longer holds the picture; more than once
// does no harm.
func (a *API) readPicture(w http.ResponseWriter, r *http.Request) (pic []byte, release func(), err error) {
	form, boundary, err := bodyType(r.Header.Get("Content-Type"))
	if err != nil {
		return nil, nil, err
	}
	limit := a.Limits.MaxBytes
	if form {
		limit += formAllowance
	}
	if r.ContentLength > limit {
		w.Header().Set("Connection", "close") // the body stays unread
		return nil, nil, a.tooLarge()
	}
	if r.ContentLength == 0 {
		return nil, nil, v1.NewProblem(v1.EmptyBody, "send the picture as the body, or as field %q of a form", imageField)
	}
	weight := r.ContentLength
	if weight < 0 {
		weight = limit
	}
	if !a.bodies.TryAcquire(weight) {
		w.Header().Set("Connection", "close")
		return nil, nil, later(v1.NewProblem(v1.Overloaded, "too many bodies are being received"), 1)
	}
	release = sync.OnceFunc(func() { a.bodies.Release(weight) })
	defer func() {
		if err != nil {
			release()
		}
	}()
	// A body that trickles in would hold its memory for ever. Not every
	// writer in tests has a deadline.
	if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(a.BodyTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, release, err
	}
	body := http.MaxBytesReader(w, r.Body, limit)
	if form {
		pic, err = imagePart(body, boundary)
	} else {
		pic, err = readAll(body, r.ContentLength)
	}
	if err != nil {
		return nil, release, a.bodyError(w, err)
	}
	if len(pic) == 0 {
		return nil, release, v1.NewProblem(v1.EmptyBody, "the picture has no bytes")
	}
	return pic, release, nil
}

// bodyType tells a form from a picture.
func bodyType(header string) (form bool, boundary string, err error) {
	if header == "" {
		return false, "", nil // found out from the content
	}
	typ, params, err := mime.ParseMediaType(header)
	if err != nil {
		return false, "", v1.NewProblem(v1.InvalidHeader, "Content-Type cannot be read: %v", err).WithField("Content-Type")
	}
	switch {
	case typ == "multipart/form-data":
		if params["boundary"] == "" {
			return false, "", v1.NewProblem(v1.InvalidHeader, "Content-Type has no boundary").WithField("Content-Type")
		}
		return true, params["boundary"], nil
	case strings.HasPrefix(typ, "image/"), typ == "application/octet-stream":
		return false, "", nil
	}
	return false, "", v1.NewProblem(v1.UnsupportedType, "Content-Type is %.60q, want image/*, application/octet-stream or multipart/form-data", typ).WithField("Content-Type")
}

func readAll(r io.Reader, length int64) ([]byte, error) {
	if length < 0 {
		return io.ReadAll(r)
	}
	pic := make([]byte, length)
	_, err := io.ReadFull(r, pic)
	return pic, err
}

// imagePart reads the first part of the form with the name of the picture.
func imagePart(r io.Reader, boundary string) ([]byte, error) {
	m := multipart.NewReader(r, boundary)
	for {
		part, err := m.NextPart()
		if errors.Is(err, io.EOF) {
			return nil, v1.NewProblem(v1.InvalidBody, "the form has no field %q", imageField).WithField(imageField)
		}
		if err != nil {
			return nil, formError(err)
		}
		if part.FormName() != imageField {
			continue
		}
		pic, err := io.ReadAll(part)
		if err != nil {
			return nil, formError(err)
		}
		return pic, nil
	}
}

// formError tells a form that is not one from one that could not be read.
func formError(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return v1.NewProblem(v1.InvalidBody, "the form cannot be read: %v", err)
}

// bodyError says what is wrong with a body that could not be read.
func (a *API) bodyError(w http.ResponseWriter, err error) error {
	var p *v1.Problem
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &tooLarge):
		return a.tooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.Header().Set("Connection", "close")
		return v1.NewProblem(v1.TruncatedBody, "the body did not arrive within %v", a.BodyTimeout)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		w.Header().Set("Connection", "close")
		return v1.NewProblem(v1.TruncatedBody, "the body ended before it was complete")
	}
	return v1.NewProblem(v1.InvalidBody, "the body cannot be read: %v", err)
}

func (a *API) tooLarge() *v1.Problem {
	return v1.NewProblem(v1.TooLarge, "a picture may have %d bytes", a.Limits.MaxBytes).WithLimit(a.Limits.MaxBytes)
}
