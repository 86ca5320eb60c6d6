package pool

import (
	"context"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
)

// invalidReply is the JSON of a reply of a lane, and a part of the problem that it causes.
type invalidReply struct{ name, reply, want string }

// testInvalidReplies has a lane send the replies, and checks that each causes a problem and
// ends no process. send sends a request to which the lane sends the reply.
func testInvalidReplies(t *testing.T, replies []invalidReply, send func(l *Lane, reply string) error) {
	t.Helper()
	b := startPool(t, Config{Programs: []Program{program("p", "raw")}})
	l, err := b.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	for _, tt := range replies {
		err := send(l, tt.reply)
		if got := problemCode(err); got != v1.Internal {
			t.Errorf("%s: got %v, want %s", tt.name, err, v1.Internal)
			continue
		}
		if !strings.Contains(err.Error(), "the reply of the lane is invalid: "+tt.want) {
			t.Errorf("%s: the problem is %q, want %q in it", tt.name, err, tt.want)
		}
	}
	if n := b.counts.restarts("p", "died") + b.counts.restarts("p", "protocol"); n != 0 {
		t.Errorf("%d processes were ended, want none", n)
	}
}

func TestLane_InvalidDetectedNamesFieldAndValue(t *testing.T) {
	t.Parallel()
	const box = `"box":{"x":1,"y":0,"width":2,"height":2}`
	region := func(s string) string {
		return `{"type":"detected","id":ID,"width":9,"height":9,"regions":[{` + box + `,"score":1},{` + s + `}]}`
	}
	testInvalidReplies(t, []invalidReply{
		{"float for int", region(`"box":{"x":1.5,"y":0,"width":2,"height":2}`), `regions.1.box.x: 1.5, want an integer`},
		{"string for int", region(`"box":{"x":1,"y":"0","width":2,"height":2}`), `regions.1.box.y: "0", want an integer`},
		{"list for object", region(`"box":[1, 0, 2, 2]`), `regions.1.box: a list, want an object`},
		{"object for list", `{"type":"detected","id":ID,"width":9,"height":9,"regions":{}}`,
			`regions: an object, want a list`},
		{"string for object", region(`"box":"1 0 2 2"`), `regions.1.box: "1 0 2 2", want an object`},
		{"string for size", `{"type":"detected","id":ID, "width" : "9" ,"height":9}`, `width: "9", want an integer`},
		{"too large for an int", region(`"box":{"x":12345678901234567890,"y":0,"width":2,"height":2}`),
			`regions.1.box.x: 12345678901234567890, want an integer`},
		{"no box", region(`"score":0.5`), `regions.1.box: 0 x 0, want a width and a height of 1 or more`},
		{"null for box", region(`"box":null`), `regions.1.box: 0 x 0, want a width and a height of 1 or more`},
		{"box outside", region(`"box":{"x":8,"y":0,"width":2,"height":2}`),
			`regions.1.box: 2 x 2 at 8, 0, which is not inside of 9 x 9`},
		{"score of percent", region(box + `,"score":93.7`), `regions.1.score: 93.7, want 0 to 1`},
		{"string for score", region(box + `,"score":"0.9"`), `regions.1.score: "0.9", want a number`},
		{"number without end", region(box + `,"score":1e999`), `regions.1.score: 1e999, want a number`},
		{"number for label", region(box + `,"label":7`), `regions.1.label: 7, want a string`},
		{"list for label", region(box + `,"label":["face"]`), `regions.1.label: a list, want a string`},
		{"long label", region(box + `,"label":"` + strings.Repeat("x", 300) + `"`),
			`regions.1.label: "` + strings.Repeat("x", 60) + `", 300 bytes, want at most 256`},
		{"label not UTF-8", region(box + `,"label":"fa` + "\xff" + `ce"`), `regions.1.label: "fa\xffce", want UTF-8`},
		{"label of half a character", region(box + `,"label":"fa\ud800ce"`), `regions.1.label: "fa�ce", want UTF-8`},
		{"label with NUL", region(box + `,"label":"fa\u0000ce"`), `regions.1.label: "fa\x00ce", want no NUL`},
		{"field not UTF-8", region(box + `,"la` + "\xff" + `bel":"face"`), `regions.1.la�bel: "la\xffbel", want UTF-8`},
		{"time", `{"type":"detected","id":ID,"width":9,"height":9,"timing":{"infer_ms":"1"}}`,
			`timing.infer_ms: "1", want a number`},
	}, func(l *Lane, reply string) error {
		_, err := detect(context.Background(), l, "p", reply)
		return err
	})
}

func TestLane_InvalidClassifiedNamesFieldAndValue(t *testing.T) {
	t.Parallel()
	reply := func(s string) string {
		return `{"type":"classified","id":ID,"answers":[{"region":0},{"region":1,` + s + `}]}`
	}
	const box = `"box":{"x":1,"y":0,"width":2,"height":2}`
	testInvalidReplies(t, []invalidReply{
		{"float for int", `{"type":"classified","id":ID,"answers":[{"region":0.5},{"region":1}]}`,
			`answers.0.region: 0.5, want an integer`},
		{"string for int", reply(`"words":[{"box":{"x":"1"}}]`), `answers.1.words.0.box.x: "1", want an integer`},
		{"list for object", `{"type":"classified","id":ID,"answers":[[],[]]}`, `answers.0: a list, want an object`},
		{"object for list", reply(`"labels":{"smile":0.5}`), `answers.1.labels: an object, want a list`},
		{"string for label", reply(`"labels":["smile"]`), `answers.1.labels.0: "smile", want an object`},
		{"score of percent", reply(`"score":93.7`), `answers.1.score: 93.7, want 0 to 1`},
		{"label score of percent", reply(`"labels":[{"label":"smile","score":93.7}]`),
			`answers.1.labels.0.score: 93.7, want 0 to 1`},
		{"word score of percent", reply(`"words":[{` + box + `,"text":"a","score":93.7}]`),
			`answers.1.words.0.score: 93.7, want 0 to 1`},
		{"string for score", reply(`"labels":[{"label":"smile","score":"0.9"}]`),
			`answers.1.labels.0.score: "0.9", want a number`},
		{"no label", reply(`"labels":[{"score":0.9}]`), `answers.1.labels.0.label: "", want 1 to 256 bytes`},
		{"number for label", reply(`"labels":[{"label":7,"score":0.9}]`), `answers.1.labels.0.label: 7, want a string`},
		{"long label", reply(`"labels":[{"label":"` + strings.Repeat("x", 300) + `","score":0.9}]`),
			`answers.1.labels.0.label: "` + strings.Repeat("x", 60) + `", 300 bytes, want at most 256`},
		{"label not UTF-8", reply(`"labels":[{"label":"sm` + "\xff" + `le","score":0.9}]`),
			`answers.1.labels.0.label: "sm\xffle", want UTF-8`},
		{"word without box", reply(`"words":[{"text":"a","score":0.9}]`),
			`answers.1.words.0.box: 0 x 0, want a width and a height of 1 or more`},
		{"word outside", reply(`"words":[{"box":{"x":9,"y":0,"width":2,"height":2},"text":"a","score":0.9}]`),
			`answers.1.words.0.box: 2 x 2 at 9, 0, which is not inside of 10 x 10`},
		{"number for text", reply(`"text":12`), `answers.1.text: 12, want a string`},
		{"text not UTF-8", reply(`"text":"a` + "\xff" + `"`), `answers.1.text: "a\xff", want UTF-8`},
		{"text with NUL", reply(`"text":"a\u0000"`), `answers.1.text: "a\x00", want no NUL`},
		{"long text", reply(`"text":"` + strings.Repeat("x", maxText+1) + `"`),
			`answers.1.text: "` + strings.Repeat("x", 60) + `", 1048577 bytes, want at most 1048576`},
		{"word with NUL", reply(`"words":[{` + box + `,"text":"a\u0000","score":0.9}]`),
			`answers.1.words.0.text: "a\x00", want no NUL`},
		{"long word", reply(`"words":[{` + box + `,"text":"` + strings.Repeat("x", maxText+1) + `","score":0.9}]`),
			`answers.1.words.0.text: "` + strings.Repeat("x", 60) + `", 1048577 bytes, want at most 1048576`},
		{"string for drop", reply(`"drop":"no"`), `answers.1.drop: "no", want true or false`},
		{"too few", `{"type":"classified","id":ID,"answers":[]}`, `answers: 0 of them`},
	}, func(l *Lane, reply string) error {
		crop := lane.Crop{Width: 10, Height: 10, Channels: 1}
		_, err := l.Classify(context.Background(), lane.Classify{Pipeline: "p", Crops: []lane.Crop{crop, crop}},
			[]byte(reply))
		return err
	})
}

// TestLane_ReplyWithoutTypeOrIDEndsIt: the next reply could be that of another request.
func TestLane_ReplyWithoutTypeOrIDEndsIt(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p", "raw")}})
	for reply, want := range map[string]string{
		`[{"type":"detected"}]`:         `protocol: the reply is invalid: a list, want an object`,
		`{"type":"detected","id":"ID"}`: `", want an integer`,
		`{"type":"detected","id":1.5}`:  `protocol: the reply is invalid: id: 1.5, want an integer`,
		`{"type":5,"id":ID}`:            `protocol: the reply is invalid: type: 5, want a string`,
	} {
		_, err := b.sendOrder(t, context.Background(), "p", reply)
		if got := problemCode(err); got != v1.LaneDied {
			t.Errorf("%s: got %v, want %s", reply, err, v1.LaneDied)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the problem is %q, want %q in it", reply, err, want)
		}
	}
}

// TestLane_LogsUnknownFieldsOnce checks fields that are misspelt. A worker ignores them.
func TestLane_LogsUnknownFieldsOnce(t *testing.T) {
	t.Parallel()
	b := startPool(t, Config{Programs: []Program{program("p", "raw")}})
	const box = `"box":{"x":0,"y":0,"width":2,"height":2},"score":1`
	for _, fields := range []string{
		`"regoins":[]`, `"regoins":[]`, `"regions":[{` + box + `,"lable":"a"}]`,
		`"regions":[{` + box + `},{` + box + `,"lable":"a"}]`,
	} {
		_, err := b.sendOrder(t, t.Context(), "p", `{"type":"detected","id":ID,"width":9,"height":9,`+fields+`}`)
		if err != nil {
			t.Fatal(err)
		}
	}
	for field, want := range map[string]int{"regoins": 1, "regions.0.lable": 1, "regions.1.lable": 0} {
		if n := strings.Count(b.log.String(), `"field":"`+field+`"`); n != want {
			t.Errorf("%s is in %d lines of the log, want %d:\n%s", field, n, want, b.log)
		}
	}
}
