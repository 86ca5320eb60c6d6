package run

import (
	"context"
	"testing"
	"time"
)

func TestHardEndComesWithTheGraceOrNotAtAll(t *testing.T) {
	t.Parallel()
	ctx, signal := context.WithCancel(context.Background())
	called := make(chan struct{})
	stopping, hard, cancel := stopContexts(ctx, time.Hour, func() { close(called) })
	if stopping.Err() != nil || hard.Err() != nil {
		t.Fatal("it ends before the signal")
	}
	signal()
	<-stopping.Done()
	select {
	case <-called:
	default:
		t.Error("it stops before it said so")
	}
	if hard.Err() != nil {
		t.Error("the hard end does not wait for the grace")
	}
	cancel() // finished early: the clock of the grace must not keep running
	if hard.Err() == nil {
		t.Error("the contexts outlive the service")
	}
}
