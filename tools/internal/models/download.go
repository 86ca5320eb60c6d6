package models

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	neturl "net/url"
	"os"
	"strings"
	"time"

	"github.com/sightmesh/sightmesh/contracts/retry"
)

// newTransport returns the transport of downloads. A connection has a short timeout. A transfer has none.
func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	t.TLSHandshakeTimeout = 10 * time.Second
	t.ResponseHeaderTimeout = 20 * time.Second
	return t
}

// Errors of downloads.
var (
	errInterrupted = errors.New("the download was interrupted")
	errStalled     = errors.New("no data was received")
)

// resumeBackoff is the delay before an interrupted download is resumed.
var resumeBackoff = retry.Exponential(500*time.Millisecond, 5*time.Second, 2)

// maxAttempts is the maximum number of requests of a run for a download that is interrupted each time.
const maxAttempts = 4

// fetchURL downloads a file. An interrupted download is resumed, in the same run and in the next one: its beginning is
// kept in a file beside path.
func (p *puller) fetchURL(ctx context.Context, what string, f File, url, path string) error {
	part := path + ".part"
	for failures := 1; ; failures++ {
		resumed, err := p.download(ctx, what, f, url, part)
		if err == nil {
			if err = f.verify(part); err == nil {
				return os.Rename(part, path)
			}
		}
		switch {
		case errors.Is(err, errInterrupted) && failures < maxAttempts:
			if retry.Sleep(ctx, resumeBackoff.Delay(failures)) != nil {
				return context.Cause(ctx)
			}
			continue
		case errors.Is(err, errInterrupted):
			return err // the next run resumes the part
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		// The part is deleted, because it is from another file, or the disk is full.
		if e := os.Remove(part); e != nil && !errors.Is(e, fs.ErrNotExist) {
			return errors.Join(err, e)
		}
		if !resumed || !errors.Is(err, errContent) {
			return err
		}
		// The beginning may be from another file: download the whole file once.
	}
}

// download appends the missing bytes of a file to part. resumed says whether part had bytes before.
func (p *puller) download(ctx context.Context, what string, f File, url, part string) (resumed bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644) //nolint:gosec // every user may read models
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	info, err := out.Stat()
	if err != nil {
		return false, err
	}
	offset := info.Size()
	if offset >= f.Bytes { // the part is from another file
		offset = 0
	}
	resumed = offset > 0
	body, offset, err := p.get(ctx, url, offset)
	if err != nil {
		return resumed, err
	}
	defer body.Close()
	if err := out.Truncate(offset); err != nil {
		return resumed, err
	}
	bar, end := p.progress.begin(what, offset, f.Bytes)
	defer end()
	stall := time.AfterFunc(p.stallTimeout, func() { cancel(fmt.Errorf("%w for %v", errStalled, p.stallTimeout)) })
	defer stall.Stop()
	in := readFunc(func(b []byte) (int, error) {
		n, err := body.Read(b)
		stall.Reset(p.stallTimeout)
		switch {
		case errors.Is(context.Cause(ctx), errStalled):
			err = fmt.Errorf("%w: %w", errInterrupted, context.Cause(ctx))
		case err != nil && !errors.Is(err, io.EOF) && ctx.Err() == nil:
			err = fmt.Errorf("%w: %w", errInterrupted, err)
		}
		return n, err
	})
	// One more byte than the size of the file is read, to detect a file that is too long.
	n, err := io.Copy(io.MultiWriter(out, bar), io.LimitReader(in, f.Bytes-offset+1))
	if errors.Is(err, errInterrupted) {
		err = fmt.Errorf("%w after %d of %d bytes", err, offset+n, f.Bytes)
	}
	if err != nil {
		return resumed, err
	}
	return offset > 0, out.Sync()
}

// get requests a file from an offset on. The returned body begins at start, which is 0 when the server does not serve
// ranges.
func (p *puller) get(ctx context.Context, url string, offset int64) (body io.ReadCloser, start int64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Accept-Encoding", "identity") // ranges refer to the file without compression
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	res, err := p.client.Do(req)
	if err != nil {
		return nil, 0, trimURL(err)
	}
	isRest := strings.HasPrefix(res.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", offset))
	switch {
	case res.StatusCode == http.StatusOK:
		return res.Body, 0, nil
	case offset > 0 && res.StatusCode == http.StatusPartialContent && isRest:
		return res.Body, offset, nil
	}
	res.Body.Close()
	if offset > 0 && res.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return nil, 0, contentError{"the server responds with " + res.Status}
	}
	return nil, 0, fmt.Errorf("the server responds with %s", res.Status)
}

// trimURL removes the URL from the error of a request, because the message already has it.
func trimURL(err error) error {
	var u *neturl.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// readFunc makes a function an io.Reader.
type readFunc func([]byte) (int, error)

func (f readFunc) Read(b []byte) (int, error) { return f(b) }
