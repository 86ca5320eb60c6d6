package drawings

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
)

// respond answers requests to draw with messages of these pieces, each when the
// one before was answered, and then with no more.
func respond(t *testing.T, s *bustest.Server, pieces ...string) {
	t.Helper()
	nc := s.Connect(t)
	sub, err := nc.SubscribeSync(subject.Draw())
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	go func() {
		defer close(ended)
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return
		}
		for _, p := range pieces {
			piece := nats.NewMsg(m.Reply)
			piece.Header.Set(v1.HeaderPiece, p)
			piece.Data = []byte("piece")
			if _, err := nc.RequestMsgWithContext(ctx, piece); err != nil {
				return
			}
		}
	}()
}

func TestClient_DrawNoticesALostPiece(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		pieces []string
		want   string
	}{
		"left out":       {[]string{"0/3", "2/3"}, "piece 2 of 3"},
		"first left out": {[]string{"1/3"}, "piece 1 of 3"},
		"twice":          {[]string{"0/3", "0/3"}, "piece 2 of 3"},
		"another total":  {[]string{"0/3", "1/2"}, "piece 2 of 3"},
		"no more":        {[]string{"0/3", "1/3"}, "piece 3 of 3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := bustest.StartEmpty(t)
			respond(t, s, tt.pieces...)
			_, err := newClient(t, s).Draw(t.Context(), []byte("image"), v1.Result{}, "image/png")
			checkCode(t, err, v1.Unavailable)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
			if _, ok := retry.Delay(err); !ok {
				t.Errorf("%v does not say that it passes", err)
			}
		})
	}
}

func TestClient_DrawRejectsWhatIsNoPiece(t *testing.T) {
	t.Parallel()
	s := bustest.StartEmpty(t)
	respond(t, s, "1 of 3")
	if _, err := newClient(t, s).Draw(t.Context(), []byte("image"), v1.Result{}, "image/png"); err == nil {
		t.Error("no error")
	}
}

// TestClient_DrawWithoutAWorker: the server itself says that nobody listens.
func TestClient_DrawWithoutAWorker(t *testing.T) {
	t.Parallel()
	_, err := newClient(t, bustest.StartEmpty(t)).Draw(t.Context(), []byte("image"), v1.Result{}, "image/png")
	checkCode(t, err, v1.NoWorker)
	if _, ok := retry.Delay(err); !ok {
		t.Errorf("%v does not say that it passes", err)
	}
}

func TestClient_DrawRejectsWhatDoesNotFitIntoAMessage(t *testing.T) {
	t.Parallel()
	s := bustest.StartEmpty(t)
	_, err := newClient(t, s).Draw(t.Context(), make([]byte, s.Connect(t).MaxPayload()), v1.Result{}, "image/png")
	checkCode(t, err, v1.TooLarge)
}

func TestClient_DrawEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := bustest.StartEmpty(t)
	respond(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newClient(t, s).Draw(ctx, []byte("image"), v1.Result{}, "image/png"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that of the context", err)
	}
}
