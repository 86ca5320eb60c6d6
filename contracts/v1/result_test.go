package v1_test

import (
	"encoding/json"
	"testing"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func TestBoxIn(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name          string
		box           v1.Box
		width, height int
		want          v1.Fraction
	}{
		{"the whole picture", v1.Box{Width: 640, Height: 480}, 640, 480, v1.Fraction{Width: 1, Height: 1}},
		{"a quarter", v1.Box{X: 320, Y: 240, Width: 320, Height: 240}, 640, 480, v1.Fraction{X: .5, Y: .5, Width: .5, Height: .5}},
		{"rounded to six decimals", v1.Box{X: 1, Y: 2, Width: 1, Height: 2}, 3, 3, v1.Fraction{X: .333333, Y: .666667, Width: .333333, Height: .666667}},
		{"over the left edge", v1.Box{X: -1, Y: -2, Width: 3, Height: 3}, 3, 3, v1.Fraction{X: -.333333, Y: -.666667, Width: 1, Height: 1}},
		{"no width", v1.Box{X: 1, Width: 1}, 0, 480, v1.Fraction{}},
		{"no height", v1.Box{X: 1, Width: 1}, 640, 0, v1.Fraction{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := tc.box.In(tc.width, tc.height); got != tc.want {
				t.Errorf("%+v in %d x %d = %+v, want %+v", tc.box, tc.width, tc.height, got, tc.want)
			}
		})
	}
}

// What a field is when there is nothing to say is part of the contract.
func TestResultJSON(t *testing.T) {
	t.Parallel()
	noText := ""
	for _, tc := range []struct {
		name   string
		result v1.Result
		want   string
	}{
		{
			"a job under way has three fields",
			v1.Result{ID: "j", Pipeline: "text", Status: v1.Queued},
			`{"id":"j","pipeline":"text","status":"queued"}`,
		},
		{
			"done without regions has an empty list",
			v1.Result{ID: "j", Pipeline: "faces", Status: v1.Done, Regions: []v1.Region{}},
			`{"id":"j","pipeline":"faces","status":"done","regions":[]}`,
		},
		{
			"a pipeline that reads and read nothing has an empty text",
			v1.Result{ID: "j", Pipeline: "text", Status: v1.Done, Regions: []v1.Region{}, Text: &noText},
			`{"id":"j","pipeline":"text","status":"done","regions":[],"text":""}`,
		},
		{
			"timings are complete, a score of zero stays",
			v1.Result{ID: "j", Pipeline: "faces", Status: v1.Done, Regions: []v1.Region{{}}, Timings: &v1.Timings{}},
			`{"id":"j","pipeline":"faces","status":"done","regions":[{"box":{"x":0,"y":0,"width":0,"height":0},` +
				`"fraction":{"x":0,"y":0,"width":0,"height":0},"score":0}],` +
				`"timings":{"queue":0,"decode":0,"detect":0,"classify":0,"join":0,"reply":0}}`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := json.Marshal(tc.result)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestMilliseconds(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]float64{
		0: 0, time.Second: 1000, 1234 * time.Microsecond: 1.234, 999 * time.Nanosecond: 0,
	} {
		if got := v1.Milliseconds(d); got != want {
			t.Errorf("Milliseconds(%v) = %v, want %v", d, got, want)
		}
	}
}

func TestMsgID(t *testing.T) {
	t.Parallel()
	if got, want := v1.MsgID("j", "crops.2"), "j.crops.2"; got != want {
		t.Errorf("MsgID = %q, want %q", got, want)
	}
}
