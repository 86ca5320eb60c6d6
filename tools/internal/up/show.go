package up

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// show posts the sample as a user would, and prints the answer and what can be
// done next.
func show(ctx context.Context, w io.Writer, httpAddr, natsURL, name string, pic []byte) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	url := "http://" + httpAddr + "/v1/images?pipeline=text"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(pic))
	if err != nil {
		return fmt.Errorf("post the sample: %w", err)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	began := time.Now()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("post the sample: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("post the sample: %w", err)
	}
	took := time.Since(began)
	var r v1.Result
	if err := json.Unmarshal(body, &r); err != nil || res.StatusCode != http.StatusOK {
		return fmt.Errorf("post the sample: %s: %s", res.Status, body)
	}
	fmt.Fprintf(w, "\n%s has %d regions, read in %d ms:\n\n", name, len(r.Regions), took.Milliseconds())
	if r.Text != nil {
		fmt.Fprintln(w, "    "+strings.ReplaceAll(strings.TrimRight(*r.Text, "\n"), "\n", "\n    "))
	}
	fmt.Fprintf(w, `
trace   %s
HTTP    http://%s    what there is: /openapi.json, /v1/pipelines
        curl -X POST -T %s 'http://%s/v1/images?pipeline=text'
NATS    %s
        nats -s %s micro ls
        nats -s %s req --raw sight.v1.analyze.text < %s
`, r.TraceID, httpAddr, name, httpAddr, natsURL, natsURL, natsURL, name)
	if e := os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT"); e != "" {
		fmt.Fprintf(w, "traces  are sent to %s\n", e)
	}
	fmt.Fprintf(w, "\nCtrl-C stops the mesh; what it has accepted is kept.\n")
	return nil
}
