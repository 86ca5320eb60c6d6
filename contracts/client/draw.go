package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

const (
	// drawTimeout is the longest time that Draw takes.
	drawTimeout = 30 * time.Second
	// pieceTimeout is how long Draw waits for each piece after the first.
	pieceTimeout = 5 * time.Second
)

// Draw returns an image, upright and with the regions of its result drawn on it,
// encoded as mediaType: image/png or image/jpeg. A worker of detect draws it. The
// job stays as it is, whether Draw succeeds or not.
//
// Draw waits until ctx ends, and at most 30 s. Its errors are problems: that of the
// worker, [v1.NoWorker] when no worker draws, [v1.TooLarge] when the image and its
// regions do not fit into a message, and [v1.Unavailable] when no reply came or a piece
// of it was lost.
func (c *Client) Draw(ctx context.Context, image []byte, result v1.Result, mediaType string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, drawTimeout)
	defer cancel()
	deadline, _ := ctx.Deadline()
	request := v1.DrawRequest{
		MediaType: mediaType, Regions: v1.DrawRegions(result.Regions),
		TimeoutMS: max(1, time.Until(deadline).Milliseconds()),
	}
	body, err := request.Encode(image)
	if err != nil {
		return nil, err
	}
	inbox := c.nc.NewInbox()
	sub, err := c.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, newUnavailableError("cannot send a request on %s: %v", subject.Draw(), err)
	}
	defer sub.Unsubscribe() //nolint:errcheck // fails only when the connection is gone
	m := &nats.Msg{Subject: subject.Draw(), Reply: inbox, Header: nats.Header{}, Data: body}
	injectTrace(ctx, m.Header)
	switch err := c.nc.PublishMsg(m); {
	case errors.Is(err, nats.ErrMaxPayload):
		return nil, v1.NewProblem(v1.TooLarge, "the image and its regions have %d bytes, and a message may have %d",
			len(body), c.nc.MaxPayload()).WithLimit(c.nc.MaxPayload())
	case err != nil:
		return nil, newUnavailableError("cannot send a request on %s: %v", subject.Draw(), err)
	}
	return collect(ctx, sub)
}

// collect returns the image whose pieces arrive on sub. It requests each piece after the
// first by a reply to the one before.
func collect(ctx context.Context, sub *nats.Subscription) ([]byte, error) {
	var image []byte
	want := v1.Piece{}
	for {
		m, err := nextPiece(ctx, sub, want)
		if err != nil {
			return nil, err
		}
		got, err := v1.ParsePiece(m.Header.Get(v1.HeaderPiece))
		switch {
		case err != nil:
			return nil, fmt.Errorf("draw: %w", err)
		case want.Total == 0: // the first
			want.Total = got.Total
			image = make([]byte, 0, want.Total*min(len(m.Data), v1.MaxPiece))
		}
		if got != want || len(m.Data) > v1.MaxPiece {
			return nil, newUnavailableError("piece %d of %d of the drawn image was lost: %d of %d came with %d bytes",
				want.Number+1, want.Total, got.Number+1, got.Total, len(m.Data))
		}
		image = append(image, m.Data...)
		if want.Number++; want.Number == want.Total {
			return image, nil
		}
		if err := m.Respond(nil); err != nil {
			return nil, newUnavailableError("cannot request piece %d of %d of the drawn image: %v",
				want.Number+1, want.Total, err)
		}
	}
}

// nextPiece returns the next message, which should be the piece want.
func nextPiece(ctx context.Context, sub *nats.Subscription, want v1.Piece) (*nats.Msg, error) {
	wait := ctx
	if want.Number > 0 {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, pieceTimeout)
		defer cancel()
	}
	m, err := sub.NextMsgWithContext(wait)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, retry.After(v1.NewProblem(v1.NoWorker, "no worker of detect draws"), retryDelay)
	case errors.Is(err, context.Canceled):
		return nil, fmt.Errorf("draw: %w", err)
	case errors.Is(err, context.DeadlineExceeded) && want.Number > 0:
		return nil, newUnavailableError("piece %d of %d of the drawn image did not come in time",
			want.Number+1, want.Total)
	case errors.Is(err, context.DeadlineExceeded):
		return nil, newUnavailableError("no service responded on %s in time", subject.Draw())
	case err != nil:
		return nil, newUnavailableError("cannot receive on %s: %v", subject.Draw(), err)
	}
	return m, serviceError(subject.Draw(), m)
}

// newUnavailableError returns a temporary problem.
func newUnavailableError(format string, args ...any) error {
	return retry.After(v1.NewProblem(v1.Unavailable, format, args...), retryDelay)
}
