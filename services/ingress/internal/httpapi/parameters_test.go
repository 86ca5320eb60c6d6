package httpapi

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
	"github.com/sightmesh/sightmesh/services/internal/regionfilter"
)

func newTestParameters(t *testing.T, callbacks bool) parameters {
	t.Helper()
	nc := bustest.Start(t).Connect(t)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	i, err := intake.New(t.Context(), intake.Config{
		Conn: nc, JetStream: js, Pipelines: []pipeline.Pipeline{{Name: "text"}, {Name: "faces"}}, Webhooks: callbacks,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	return parameters{intake: i, wait: 20 * time.Second, maxWait: time.Minute}
}

func TestParameters_Submission(t *testing.T) {
	t.Parallel()
	p := newTestParameters(t, true)
	r := httptest.NewRequest(http.MethodPost,
		"/v1/images?pipeline=faces&priority=bulk&callback=https://client.example/done", nil)
	r.Header.Set("Idempotency-Key", "k1")
	r.Header.Set("X-Sight-Meta-Camera-Id", "3 ü")
	r.Header.Set("Prefer", "respond-async")
	s, err := p.submission(r)
	if err != nil {
		t.Fatal(err)
	}
	want := intake.Request{
		Pipeline: pipeline.Pipeline{Name: "faces"}, Priority: subject.Bulk,
		WebhookURL: "https://client.example/done", Key: "k1",
		Metadata: map[string]string{"camera-id": "3 ü"},
	}
	if !reflect.DeepEqual(s.Request, want) {
		t.Errorf("got %+v, want %+v", s.Request, want)
	}
	if !s.prefer.Async {
		t.Errorf("the preference is %+v, want async", s.prefer)
	}
	s, err = p.submission(httptest.NewRequest(http.MethodPost, "/v1/images", nil))
	if err != nil {
		t.Fatal(err)
	}
	want = intake.Request{
		Pipeline: pipeline.Pipeline{Name: "text"}, Metadata: map[string]string{},
	}
	if !reflect.DeepEqual(s.Request, want) {
		t.Errorf("by default: got %+v, want %+v", s.Request, want)
	}
}

func TestParameters_NameTheInvalidField(t *testing.T) {
	t.Parallel()
	p := newTestParameters(t, true)
	manyMeta := http.Header{}
	for i := range 17 {
		manyMeta.Set(v1.HTTPMetadataPrefix+"n"+strconv.Itoa(i), "x")
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
		"callback with a password": {
			"callback=http://u:p@client.example/", nil, v1.InvalidParameter, "callback",
		},
		"long callback": {"callback=https://a/" + strings.Repeat("x", 2048), nil, v1.InvalidParameter, "callback"},
		"long key": {"", http.Header{"Idempotency-Key": {strings.Repeat("k", intake.MaxKey+1)}},
			v1.InvalidHeader, "Idempotency-Key"},
		"empty key":           {"", http.Header{"Idempotency-Key": {""}}, v1.InvalidHeader, "Idempotency-Key"},
		"unknown header":      {"", http.Header{"X-Sight-Prio": {"bulk"}}, v1.UnknownField, "X-Sight-Prio"},
		"header of NATS":      {"", http.Header{"Sight-Priority": {"bulk"}}, v1.UnknownField, "Sight-Priority"},
		"two keys":            {"", http.Header{"Idempotency-Key": {"a", "b"}}, v1.InvalidHeader, "Idempotency-Key"},
		"metadata of control": {"meta-%00=1", nil, v1.InvalidParameter, `meta-"\x00"`},
		"metadata twice":      {"", http.Header{"X-Sight-Meta-A": {"1", "2"}}, v1.InvalidHeader, "X-Sight-Meta-A"},
		"metadata of bytes":   {"", http.Header{"X-Sight-Meta-A": {"\xff"}}, v1.InvalidHeader, "X-Sight-Meta-a"},
		"metadata no name":    {"", http.Header{"X-Sight-Meta-": {"1"}}, v1.InvalidHeader, "X-Sight-Meta-"},
		"much metadata": {"", http.Header{"X-Sight-Meta-A": {strings.Repeat("x", 4096)}},
			v1.InvalidHeader, "X-Sight-Meta-a"},
		"many metadata": {"", manyMeta, v1.InvalidHeader, "X-Sight-Meta-n0"},
		"prefer":        {"", http.Header{"Prefer": {"wait=long"}}, v1.InvalidHeader, "Prefer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(http.MethodPost, "/v1/images?"+tt.query, nil)
			for k, v := range tt.header {
				r.Header[k] = v
			}
			_, err := p.submission(r)
			checkProblem(t, "the request", err, tt.code, tt.field)
		})
	}
	r := httptest.NewRequest(http.MethodPost, "/upload", nil)
	r.Header.Set("X-Sight-Prio", "bulk")
	if _, err := p.submission(r); err != nil {
		t.Errorf("an old route with an unknown header: %v", err)
	}
	r = httptest.NewRequest(http.MethodPost, "/v1/images?callback=https://a/", nil)
	_, err := newTestParameters(t, false).submission(r)
	checkProblem(t, "a callback without a secret", err, v1.InvalidParameter, "callback")
}

// TestParameters_FieldsOfABody checks that fields of a body have the same effect as those of the query,
// and that a field in two places is a problem.
func TestParameters_FieldsOfABody(t *testing.T) {
	t.Parallel()
	p := newTestParameters(t, true)
	r := httptest.NewRequest(http.MethodPost, "/v1/images?pipeline=faces&min_score=0.5", nil)
	r.Header.Set("X-Sight-Meta-Camera", "3")
	s, err := p.submission(r)
	if err != nil {
		t.Fatal(err)
	}
	body := fields{"priority": "bulk", "key": "k", "meta-site": "north", "top": "2", "callback": "https://a.example/"}
	if err := p.addFields(&s, body, "the body"); err != nil {
		t.Fatal(err)
	}
	want := intake.Request{
		Pipeline: pipeline.Pipeline{Name: "faces"}, Priority: subject.Bulk, Key: "k", KeyField: "key",
		WebhookURL: "https://a.example/",
		Metadata:   map[string]string{"camera": "3", "site": "north"},
	}
	if !reflect.DeepEqual(s.Request, want) {
		t.Errorf("got %+v, want %+v", s.Request, want)
	}
	if want := (regionfilter.Filter{MinScore: 0.5, Top: 2}); !reflect.DeepEqual(s.filter, want) {
		t.Errorf("the filter is %+v, want %+v", s.filter, want)
	}
	for _, name := range []string{"pipeline", "min_score", "meta-camera"} {
		before := s
		before.places = maps.Clone(s.places)
		err := p.addFields(&before, fields{name: "text"}, "the body")
		checkProblem(t, name+" in two places", err, v1.InvalidParameter, name)
	}
}
