package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// HTTP returns a sender to the ingress at base, such as http://127.0.0.1:8080.
func HTTP(base, pipeline string, concurrency int) Sender {
	client := &http.Client{Transport: &http.Transport{MaxIdleConns: concurrency, MaxIdleConnsPerHost: concurrency}}
	url := strings.TrimRight(base, "/") + "/v1/images?pipeline=" + pipeline
	return func(ctx context.Context, p Image) (v1.Result, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(p.Data))
		if err != nil {
			return v1.Result{}, err
		}
		req.Header.Set("Content-Type", "application/octet-stream")
		res, err := client.Do(req)
		if err != nil {
			return v1.Result{}, errors.New("no connection")
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			return v1.Result{}, errors.New("no response")
		}
		if res.StatusCode != http.StatusOK {
			return v1.Result{}, fmt.Errorf("%d%s", res.StatusCode, problemCode(body))
		}
		var r v1.Result
		if err := json.Unmarshal(body, &r); err != nil {
			return r, errors.New("the result is not JSON")
		}
		return r, nil
	}
}

// NATS returns a sender of requests over a connection.
func NATS(nc *nats.Conn, pipeline string) Sender {
	to := subject.Analyze(pipeline)
	return func(ctx context.Context, p Image) (v1.Result, error) {
		m, err := nc.RequestWithContext(ctx, to, p.Data)
		if err != nil {
			return v1.Result{}, err
		}
		if c := m.Header.Get(micro.ErrorCodeHeader); c != "" {
			return v1.Result{}, errors.New(c + problemCode(m.Data))
		}
		var r v1.Result
		if err := json.Unmarshal(m.Data, &r); err != nil {
			return r, errors.New("the result is not JSON")
		}
		if r.Status != v1.Done {
			return r, errors.New(string(r.Status))
		}
		return r, nil
	}
}

// problemCode returns the code of the problem in a body, or the status of a job that
// ran longer than the wait.
func problemCode(body []byte) string {
	var p struct {
		Code   v1.Code   `json:"code"`
		Status v1.Status `json:"status"`
	}
	if json.Unmarshal(body, &p) == nil && p.Code != "" {
		return " " + string(p.Code)
	}
	return ""
}
