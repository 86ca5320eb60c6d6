package httpapi

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sightmesh/sightmesh/contracts/pipeline"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func orderAPI() *API {
	a := newAPI(plenty)
	a.Wait, a.MaxWait, a.Callbacks = 20*time.Second, time.Minute, true
	a.Pipelines = []pipeline.Pipeline{{Name: "text"}, {Name: "faces"}}
	a.byName = map[string]pipeline.Pipeline{"text": a.Pipelines[0], "faces": a.Pipelines[1]}
	return a
}

func TestOrder(t *testing.T) {
	t.Parallel()
	a := orderAPI()
	r := httptest.NewRequest(http.MethodPost, "/v1/images?pipeline=faces&priority=bulk&callback=https://client.example/done", nil)
	r.Header.Set("Idempotency-Key", "k1")
	r.Header.Set("X-Sight-Meta-Camera-Id", "3 ü")
	r.Header.Set("Prefer", "respond-async")
	o, err := a.order(r)
	if err != nil {
		t.Fatal(err)
	}
	if o.pipeline.Name != "faces" || o.priority != subject.Bulk || o.callback != "https://client.example/done" || o.key != "k1" ||
		len(o.metadata) != 1 || o.metadata["camera-id"] != "3 ü" || !o.prefer.async {
		t.Errorf("got %+v", o)
	}
	o, err = a.order(httptest.NewRequest(http.MethodPost, "/v1/images", nil))
	if err != nil || o.pipeline.Name != "text" || o.priority != subject.Interactive || o.key != "" || len(o.metadata) != 0 {
		t.Errorf("when nothing is said: %+v, %v", o, err)
	}
}

func TestOrdersThatCannotBeTaken(t *testing.T) {
	t.Parallel()
	manyMeta := http.Header{}
	for i := range maxMetadata + 1 {
		manyMeta.Set(metaPrefix+"n"+strconv.Itoa(i), "x")
	}
	for name, tt := range map[string]struct {
		query  string
		header http.Header
		code   v1.Code
		field  string
	}{
		"pipeline":            {"pipeline=cats", nil, v1.UnknownPipeline, "pipeline"},
		"priority":            {"priority=now", nil, v1.InvalidParameter, "priority"},
		"two pipelines":       {"pipeline=text&pipeline=faces", nil, v1.InvalidParameter, "pipeline"},
		"callback of a file":  {"callback=file:///etc/passwd", nil, v1.InvalidParameter, "callback"},
		"callback of no host": {"callback=https:", nil, v1.InvalidParameter, "callback"},
		"long callback":       {"callback=https://a/" + strings.Repeat("x", maxURL), nil, v1.InvalidParameter, "callback"},
		"long key":            {"", http.Header{"Idempotency-Key": {strings.Repeat("k", maxKey+1)}}, v1.InvalidHeader, "Idempotency-Key"},
		"metadata twice":      {"", http.Header{"X-Sight-Meta-A": {"1", "2"}}, v1.InvalidHeader, "X-Sight-Meta-A"},
		"metadata of bytes":   {"", http.Header{"X-Sight-Meta-A": {"\xff"}}, v1.InvalidHeader, "X-Sight-Meta-a"},
		"metadata no name":    {"", http.Header{"X-Sight-Meta-": {"1"}}, v1.InvalidHeader, "X-Sight-Meta-"},
		"much metadata":       {"", http.Header{"X-Sight-Meta-A": {strings.Repeat("x", maxMeta)}}, v1.InvalidHeader, "X-Sight-Meta-a"},
		"many metadata":       {"", manyMeta, v1.InvalidHeader, "X-Sight-Meta-n0"},
		"prefer":              {"", http.Header{"Prefer": {"wait=long"}}, v1.InvalidHeader, "Prefer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(http.MethodPost, "/v1/images?"+tt.query, nil)
			for k, v := range tt.header {
				r.Header[k] = v
			}
			_, err := orderAPI().order(r)
			if code, _ := problemOf(err); code != tt.code || fieldOf(err) != tt.field {
				t.Errorf("got %v of %q, want %s of %q", err, fieldOf(err), tt.code, tt.field)
			}
		})
	}
	a := orderAPI()
	a.Callbacks = false
	if _, err := a.order(httptest.NewRequest(http.MethodPost, "/v1/images?callback=https://a/", nil)); fieldOf(err) != "callback" {
		t.Errorf("a callback without a secret to sign it: %v", err)
	}
}
