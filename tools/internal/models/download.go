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

// newTransport returns the transport of downloads. A server that cannot be reached is given up soon; the
// transfer itself may take its time.
func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	t.TLSHandshakeTimeout = 10 * time.Second
	t.ResponseHeaderTimeout = 20 * time.Second
	return t
}

// Errors of downloads.
var (
	errCut     = errors.New("the download was cut")
	errStalled = errors.New("no byte came")
)

// cutBackoff is the delay before a download that was cut is resumed.
var cutBackoff = retry.Exponential(500*time.Millisecond, 5*time.Second, 2)

// maxCuts is how often a download may be cut.
const maxCuts = 4

// fromURL downloads a file. A download that is cut is resumed, in the same run and in the next one: what came
// is kept in a file beside it.
func (p *puller) fromURL(ctx context.Context, what string, f File, url, path string) error {
	part := path + ".part"
	for failures := 1; ; failures++ {
		resumed, err := p.download(ctx, what, f, url, part)
		if err == nil {
			if err = f.verify(part); err == nil {
				return os.Rename(part, path)
			}
		}
		switch {
		case errors.Is(err, errCut) && failures < maxCuts:
			if retry.Sleep(ctx, cutBackoff.Delay(failures)) != nil {
				return context.Cause(ctx)
			}
			continue
		case errors.Is(err, errCut):
			return err // the part is for the next run
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		// Nothing may be left of another file, or on a disk that is full.
		if e := os.Remove(part); e != nil && !errors.Is(e, fs.ErrNotExist) {
			return errors.Join(err, e)
		}
		if !resumed || !errors.Is(err, errContent) {
			return err
		}
		// The beginning may have been that of another file: once more, from the start.
	}
}

// download appends to part what is missing of a file, and says whether there was something before.
func (p *puller) download(ctx context.Context, what string, f File, url, part string) (resumed bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644) //nolint:gosec // for every user
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	info, err := out.Stat()
	if err != nil {
		return false, err
	}
	there := info.Size()
	if there >= f.Bytes { // of another file
		there = 0
	}
	resumed = there > 0
	body, there, err := p.get(ctx, url, there)
	if err != nil {
		return resumed, err
	}
	defer body.Close()
	if err := out.Truncate(there); err != nil {
		return resumed, err
	}
	bar, end := p.progress.begin(what, there, f.Bytes)
	defer end()
	stall := time.AfterFunc(p.stall, func() { cancel(fmt.Errorf("%w for %v", errStalled, p.stall)) })
	defer stall.Stop()
	in := readFunc(func(b []byte) (int, error) {
		n, err := body.Read(b)
		stall.Reset(p.stall)
		switch {
		case errors.Is(context.Cause(ctx), errStalled):
			err = fmt.Errorf("%w: %w", errCut, context.Cause(ctx))
		case err != nil && !errors.Is(err, io.EOF) && ctx.Err() == nil:
			err = fmt.Errorf("%w: %w", errCut, err)
		}
		return n, err
	})
	// One byte more than the file has: that it is too long has to be seen.
	n, err := io.Copy(io.MultiWriter(out, bar), io.LimitReader(in, f.Bytes-there+1))
	if errors.Is(err, errCut) {
		err = fmt.Errorf("%w after %d of %d bytes", err, there+n, f.Bytes)
	}
	if err != nil {
		return resumed, err
	}
	return there > 0, out.Sync()
}

// get requests the part of a file after its first bytes. The body that is returned begins after from bytes, which
// is 0 from a server that does not serve ranges.
func (p *puller) get(ctx context.Context, url string, there int64) (body io.ReadCloser, from int64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Accept-Encoding", "identity") // a range is one of the file itself
	if there > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", there))
	}
	res, err := p.client.Do(req)
	if err != nil {
		return nil, 0, withoutURL(err)
	}
	isRest := strings.HasPrefix(res.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", there))
	switch {
	case res.StatusCode == http.StatusOK:
		return res.Body, 0, nil
	case there > 0 && res.StatusCode == http.StatusPartialContent && isRest:
		return res.Body, there, nil
	}
	res.Body.Close()
	if there > 0 && res.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return nil, 0, contentError{"the server responds with " + res.Status}
	}
	return nil, 0, fmt.Errorf("the server responds with %s", res.Status)
}

// withoutURL returns an error of a request without the address, which the message has already.
func withoutURL(err error) error {
	var u *neturl.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// readFunc is a function as a reader.
type readFunc func([]byte) (int, error)

func (f readFunc) Read(b []byte) (int, error) { return f(b) }
