package drawings

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/imagefile"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// busyDelay is the Retry-After of requests that another worker can serve.
const busyDelay = time.Second

// handle starts serving a request in a goroutine, or rejects it.
func (s *Service) handle(r *bus.Request) {
	if err := s.requests.TryGo(func(free func()) { s.serve(r, free) }); err != nil {
		s.reject(context.Background(), r, err)
	}
}

func busyError(lanes int) error {
	p := v1.NewProblem(v1.Overloaded, "as many requests to draw as there may be wait for %d lanes", lanes)
	return retry.After(p, busyDelay)
}

func stoppingError() error {
	return retry.After(v1.NewProblem(v1.Unavailable, "this worker is stopping"), busyDelay)
}

// serve replies to a request that occupies a place. It frees the place before it sends the
// last piece.
func (s *Service) serve(r *bus.Request, free func()) {
	ctx := telemetry.Extract(s.baseCtx, r.Msg.Header)
	ctx, span := s.tracer.Start(ctx, "draw", trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(bus.ServerAttributes(s.conn)...),
		trace.WithAttributes(bus.RequestAttributes(r.Msg, "draw", subject.Draw())...))
	defer span.End()
	last, err := s.draw(ctx, r.Msg)
	free()
	var lost *lostError
	switch {
	case errors.As(err, &lost):
		telemetry.Fail(span, err)
		r.Fail(err)
		s.metrics.requests.WithLabelValues("lost").Inc()
		s.logger.WarnContext(ctx, "cannot send a drawn image", "error", err)
		return
	case err != nil:
		s.reject(ctx, r, err)
		return
	}
	s.metrics.requests.WithLabelValues("done").Inc()
	if err := r.Respond(last.Data, last.Header); err != nil {
		s.logger.WarnContext(ctx, "cannot reply", "error", err)
	}
}

// draw draws the regions of a request on its image, sends all pieces except the last one,
// and returns the last piece.
func (s *Service) draw(ctx context.Context, m *nats.Msg) (last *nats.Msg, err error) {
	request, file, err := v1.DecodeDrawRequest(m.Data)
	if err != nil {
		return nil, v1.NewProblem(v1.InvalidBody, "%v", err)
	}
	if _, err := imagefile.Inspect(file, s.limits); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, request.Timeout(requestTimeout))
	defer cancel()
	l, err := s.pool.Acquire(ctx)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return nil, retry.After(v1.NewProblem(v1.Overloaded, "no lane that draws was free in time"), busyDelay)
	case err != nil:
		return nil, fmt.Errorf("wait for a lane: %w", err)
	}
	defer l.Release()
	drawRequest := lane.Draw{Pipeline: name, MediaType: request.MediaType, Regions: request.Regions}
	_, encoded, err := l.Draw(ctx, drawRequest, file)
	if err != nil {
		return nil, err
	}
	return s.send(ctx, m.Reply, encoded)
}

// lostError says that the client of a request did not receive its reply.
type lostError struct{ err error }

func (e *lostError) Error() string { return e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// send sends all pieces of an image except the last one, and returns the last piece. It
// sends a piece when the client has replied to the one before.
func (s *Service) send(ctx context.Context, to string, image []byte) (last *nats.Msg, err error) {
	piece := v1.Piece{Total: (len(image) + v1.MaxPiece - 1) / v1.MaxPiece}
	if piece.Total > v1.MaxPieces {
		return nil, v1.NewProblem(v1.TooLarge, "the drawn image has %d bytes", len(image)).
			WithLimit(v1.MaxPieces * v1.MaxPiece)
	}
	for ; ; piece.Number++ {
		m := nats.NewMsg(to)
		m.Header.Set(v1.HeaderPiece, piece.String())
		n := min(len(image), v1.MaxPiece)
		m.Data, image = image[:n], image[n:]
		if piece.Number == piece.Total-1 {
			return m, nil
		}
		if err := s.sendPiece(ctx, m); err != nil {
			return nil, &lostError{fmt.Errorf("send piece %v: %w", piece, err)}
		}
	}
}

// sendPiece sends a piece and waits until the client requests the next one.
func (s *Service) sendPiece(ctx context.Context, m *nats.Msg) error {
	ctx, cancel := context.WithTimeout(ctx, pieceTimeout)
	defer cancel()
	_, err := s.conn.RequestMsgWithContext(ctx, m)
	return err //nolint:wrapcheck // the caller adds the piece
}

// reject replies with the problem of err. It logs an err that is not a problem, and replies
// with unavailable.
func (s *Service) reject(ctx context.Context, r *bus.Request, err error) {
	var p *v1.Problem
	switch {
	case errors.As(err, &p):
	case errors.Is(err, context.Canceled):
		err = stoppingError()
		errors.As(err, &p)
	default:
		s.logger.ErrorContext(ctx, "cannot draw", "error", err)
		p = v1.NewProblem(v1.Unavailable, "no lane can draw now")
		err = retry.After(p, busyDelay)
	}
	s.metrics.requests.WithLabelValues(string(p.Code)).Inc()
	if err := bus.Reject(ctx, r, p, err); err != nil {
		s.logger.WarnContext(ctx, "cannot reply", "error", err)
	}
}
