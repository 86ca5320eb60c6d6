package run

import (
	"context"
	"testing"
	"time"
)

func TestStopContexts_HardEndsAfterTheGracePeriodOnly(t *testing.T) {
	t.Parallel()
	ctx, signal := context.WithCancel(context.Background())
	called := make(chan struct{})
	stopping, hard, cancel := stopContexts(ctx, time.Hour, func() { close(called) })
	if stopping.Err() != nil {
		t.Fatal("stopping ends before the signal")
	}
	if hard.Err() != nil {
		t.Fatal("hard ends before the signal")
	}
	signal()
	<-stopping.Done()
	select {
	case <-called:
	default:
		t.Error("stopping ends before the function was called")
	}
	if hard.Err() != nil {
		t.Error("hard ends before the grace period")
	}
	cancel() // the service has ended before the grace period
	if hard.Err() == nil {
		t.Error("hard does not end with the service")
	}
}
