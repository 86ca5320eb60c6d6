package pool

import (
	"context"
	"testing"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
)

// Draw returns the signature of a PNG and the title of the first region, unless the order
// says otherwise.
func (l *testLane) Draw(d lane.Draw, order []byte) (lane.Drawn, []byte, error) {
	switch string(order) {
	case "abort":
		abort()
	case "hang":
		select {}
	case "problem":
		return lane.Drawn{}, nil, v1.NewProblem(v1.Damaged, "as ordered")
	case "no size":
		return lane.Drawn{}, []byte("\x89PNG\r\n\x1a\n"), nil
	case "another type":
		return lane.Drawn{Width: 1, Height: 1}, []byte("\xff\xd8\xff"), nil
	case "no pixels":
		return lane.Drawn{Width: 1, Height: 1}, nil, nil
	}
	return lane.Drawn{Width: 3, Height: 2}, []byte("\x89PNG\r\n\x1a\n" + d.Regions[0].Title), nil
}

// draw sends an order to a lane, as a request to draw.
//
//nolint:revive // t first, as everywhere in tests
func (b *testPool) draw(t *testing.T, ctx context.Context, order string) (lane.Drawn, []byte, error) {
	t.Helper()
	l, err := b.Acquire(t.Context())
	if err != nil {
		t.Fatalf("acquire: %v\n%s", err, b.log)
	}
	defer l.Release()
	return l.Draw(ctx, lane.Draw{
		Pipeline: "p", MediaType: "image/png", Regions: []v1.DrawRegion{{Title: "a face"}},
	}, []byte(order))
}

func TestLane_Draw(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p")}})
	drawn, encoded, err := b.draw(t, t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if want := (lane.Drawn{Type: lane.TypeDrawn, ID: drawn.ID, Width: 3, Height: 2}); drawn != want {
		t.Errorf("got %+v, want %+v", drawn, want)
	}
	if want := "\x89PNG\r\n\x1a\na face"; string(encoded) != want {
		t.Errorf("the image is %q, want %q", encoded, want)
	}
}

func TestLane_DrawChecksTheReply(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p")}})
	for order, want := range map[string]string{
		"no size": "width and height: 0 x 0", "another type": "want image/png", "no pixels": "0 bytes of pixels",
		"problem": "as ordered",
	} {
		_, _, err := b.draw(t, t.Context(), order)
		checkProblem(t, order, err, want)
	}
}

func TestLane_DrawHasATimeout(t *testing.T) {
	t.Parallel()
	hasty := program("p")
	hasty.Pipelines["p"] = Pipeline{Timeout: 100 * time.Millisecond}
	b := startPool(t, Config{Programs: []Program{hasty}})
	if _, _, err := b.draw(t, t.Context(), "hang"); problemCode(err) != v1.TooSlow {
		t.Errorf("a lane that hangs: %v, want %s", err, v1.TooSlow)
	}
}

func TestLane_DrawByALaneThatDies(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p")}})
	if _, _, err := b.draw(t, t.Context(), "abort"); problemCode(err) != v1.LaneDied {
		t.Errorf("a lane that dies: %v, want %s", err, v1.LaneDied)
	}
}
