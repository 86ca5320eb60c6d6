package intake

import (
	"encoding/json"
	"testing"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func TestIntake_StoreRequestsNoReply(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	err := b.Store(t.Context(), Request{
		ID: "r-1", Pipeline: text, Priority: subject.Bulk, Image: newImage(t, 8),
		Metadata:   map[string]string{"camera": "3 ü"},
		WebhookURL: "https://client.example/", Report: &v1.ReportItem{Report: "r", N: 1, Total: 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	m := b.storedMessage(t, "r-1", subject.Bulk)
	for header, want := range map[string]string{
		v1.HeaderMetadata: `{"camera":"3 ü"}`, v1.HeaderCallback: "https://client.example/",
		v1.HeaderReport: "r/1/2", v1.HeaderReply: "",
	} {
		if got := m.Header.Get(header); got != want {
			t.Errorf("%s is %q, want %q", header, got, want)
		}
	}
	if n := b.pendingReplies(); n != 0 {
		t.Errorf("%d jobs wait for a reply, want 0", n)
	}
}

func TestIntake_StoreFailure(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	item := v1.ReportItem{Report: "r", N: 0, Total: 1}
	req := Request{ID: item.Job(), Pipeline: text, Report: &item, Metadata: map[string]string{"a": "b"}}
	if err := b.StoreFailure(t.Context(), req, v1.NewProblem(v1.Damaged, "bad")); err != nil {
		t.Fatal(err)
	}
	s, err := b.js.Stream(t.Context(), streams.Results)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetLastMsgForSubject(t.Context(), subject.Results("text", item.Job()))
	if err != nil {
		t.Fatal(err)
	}
	var r v1.Result
	if err := json.Unmarshal(m.Data, &r); err != nil {
		t.Fatal(err)
	}
	if r.Status != v1.Failed {
		t.Errorf("the result is %s, want %s", r.Status, v1.Failed)
	}
	if r.Problem == nil {
		t.Error("the result has no problem")
	} else if r.Problem.Code != v1.Damaged {
		t.Errorf("the code is %s, want %s", r.Problem.Code, v1.Damaged)
	}
	if got := r.Metadata["a"]; got != "b" {
		t.Errorf("the metadata a is %q, want b", got)
	}
	if got := m.Header.Get(v1.HeaderReport); got != item.String() {
		t.Errorf("%s is %q, want %q", v1.HeaderReport, got, item)
	}
}
