package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts/lane"
	"github.com/sightmesh/sightmesh/services/internal/lanes"
)

// Ask puts one request to a lane and reads its reply into answer, in a span
// with what the lane says of its time below it. request is given the id that
// the reply will carry; timing reads the lane's times out of answer. The
// pixels of the reply are returned.
func Ask(ctx context.Context, tracer trace.Tracer, l *lanes.Lane, pipeline string,
	request func(id uint64) any, pixels []byte, answer any, timing func() lane.Timing,
) ([]byte, error) {
	ctx, span := tracer.Start(ctx, "lane")
	defer span.End()
	start := time.Now()
	reply, err := l.Do(ctx, pipeline, request, pixels)
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
		return nil, err
	}
	if err := json.Unmarshal(reply.Facts, answer); err != nil {
		return nil, fmt.Errorf("read the reply of a lane: %w", err)
	}
	t := timing()
	decoded := start.Add(duration(t.DecodeMS))
	if t.DecodeMS > 0 {
		_, s := tracer.Start(ctx, "decode", trace.WithTimestamp(start))
		s.End(trace.WithTimestamp(decoded))
	}
	_, s := tracer.Start(ctx, "infer", trace.WithTimestamp(decoded))
	s.End(trace.WithTimestamp(decoded.Add(duration(t.InferMS))))
	return reply.Pixels, nil
}

func duration(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
