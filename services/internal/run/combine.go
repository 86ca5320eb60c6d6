package run

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// Combine returns a service that runs several services. When one returns an error,
// the others are stopped.
func Combine(services ...Service) Service { return combined(services) }

type combined []Service

func (s combined) Run(ctx, hard context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, one := range s {
		g.Go(func() error { return one.Run(ctx, hard) })
	}
	return g.Wait()
}
