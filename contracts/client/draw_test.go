package client_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// serveDrawing replies to the first request to draw with these pieces, each when the
// client has requested it, and then with nothing. It returns the requests.
func serveDrawing(t *testing.T, url string, pieces ...string) (requests <-chan *nats.Msg) {
	t.Helper()
	nc := connect(t, url)
	sub, err := nc.SubscribeSync(subject.Draw())
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	received, ended := make(chan *nats.Msg, 1), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	go func() {
		defer close(ended)
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return // the test has ended
		}
		received <- m
		for _, p := range pieces {
			piece := nats.NewMsg(m.Reply)
			piece.Header.Set(v1.HeaderPiece, p)
			piece.Data = []byte("piece " + p + ";")
			if _, err := nc.RequestMsgWithContext(ctx, piece); err != nil {
				return // the client has left
			}
		}
	}()
	return received
}

func TestClient_DrawJoinsThePieces(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	requests := serveDrawing(t, url, "0/3", "1/3", "2/3")
	result := v1.Result{Regions: []v1.Region{{Box: v1.Box{Width: 7, Height: 8}, Label: "face", Score: 0.5}}}
	drawn, err := newClient(t, url).Draw(t.Context(), []byte("an image"), result, "image/png")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(drawn), "piece 0/3;piece 1/3;piece 2/3;"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	request, image, err := v1.DecodeDrawRequest(receive(t, requests).Data)
	if err != nil {
		t.Fatal(err)
	}
	if string(image) != "an image" {
		t.Errorf("the image of the request is %q", image)
	}
	if request.MediaType != "image/png" {
		t.Errorf("the media type of the request is %q, want image/png", request.MediaType)
	}
	if len(request.Regions) != 1 {
		t.Fatalf("the request has the regions %+v, want one", request.Regions)
	}
	if got := request.Regions[0].Title; got != "face 0.50" {
		t.Errorf("the title of the region is %q, want that of the result", got)
	}
	if ms := request.TimeoutMS; ms < 1 || ms > 30_000 {
		t.Errorf("the request has the timeout %d ms, want up to 30,000", ms)
	}
}

func TestClient_DrawDetectsALostPiece(t *testing.T) {
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
			url := startServer(t)
			serveDrawing(t, url, tt.pieces...)
			_, err := newClient(t, url).Draw(t.Context(), []byte("image"), v1.Result{}, "image/png")
			if p := checkProblem(t, err, v1.Unavailable); !strings.Contains(p.Detail, tt.want) {
				t.Errorf("the detail is %q, want %q in it", p.Detail, tt.want)
			}
			if _, ok := retry.Delay(err); !ok {
				t.Errorf("%v does not say when to try again", err)
			}
		})
	}
}

func TestClient_DrawRejectsAHeaderThatIsNotAPiece(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	serveDrawing(t, url, "1 of 3")
	_, err := newClient(t, url).Draw(t.Context(), []byte("image"), v1.Result{}, "image/png")
	if err == nil || !strings.Contains(err.Error(), v1.HeaderPiece) {
		t.Errorf("the error is %v, want one of %s", err, v1.HeaderPiece)
	}
}

func TestClient_DrawReturnsTheProblemOfTheWorker(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	serve(t, url, subject.Draw(), problemReply(t, v1.NewProblem(v1.Damaged, "half of it"), ""))
	_, err := newClient(t, url).Draw(t.Context(), []byte("image"), v1.Result{}, "image/png")
	if p := checkProblem(t, err, v1.Damaged); p.Detail != "half of it" {
		t.Errorf("the detail is %q, want that of the worker", p.Detail)
	}
}

// TestClient_DrawWithoutAWorker: the server itself replies that nothing is subscribed.
func TestClient_DrawWithoutAWorker(t *testing.T) {
	t.Parallel()
	_, err := newClient(t, startServer(t)).Draw(t.Context(), []byte("image"), v1.Result{}, "image/png")
	checkProblem(t, err, v1.NoWorker)
	if _, ok := retry.Delay(err); !ok {
		t.Errorf("%v does not say when to try again", err)
	}
}

func TestClient_DrawRejectsAnImageThatDoesNotFitIntoAMessage(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	most := connect(t, url).MaxPayload()
	_, err := newClient(t, url).Draw(t.Context(), make([]byte, most), v1.Result{}, "image/png")
	if p := checkProblem(t, err, v1.TooLarge); p.Limit != most {
		t.Errorf("the limit is %d, want %d", p.Limit, most)
	}
}

func TestClient_DrawEndsWithItsContext(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	serveDrawing(t, url)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := newClient(t, url).Draw(ctx, []byte("image"), v1.Result{}, "image/png")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that of the context", err)
	}
}
