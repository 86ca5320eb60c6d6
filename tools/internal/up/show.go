package up

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/tools/internal/sample"
)

// startSample is the image that the mesh processes at start.
type startSample struct {
	file     string // path that is shown to the user
	data     []byte // nil for none
	pipeline string
	skipped  string // why there is no image; empty with an image, and with --sample none
}

// newSample returns the sample of the flag --sample: the sample page when it is empty, no image for "none", or a file.
// The sample page is sent to the pipeline text. A file is sent to text, or without text to the first pipeline.
func newSample(which, data string, pipelines []string) (startSample, error) {
	hasText := slices.Contains(pipelines, textPipeline)
	switch {
	case which == "none":
		return startSample{}, nil
	case which == "" && !hasText:
		return startSample{
			skipped: "the sample page needs the pipeline text, which does not exist; --sample FILE sets another image",
		}, nil
	case which == "":
		file := filepath.Join(data, "sample.png")
		page, err := drawPage(file)
		return startSample{file: file, data: page, pipeline: textPipeline}, err
	}
	image, err := os.ReadFile(which)
	if err != nil {
		return startSample{}, fmt.Errorf("read the sample: %w", err)
	}
	pipeline := textPipeline
	if !hasText {
		pipeline = pipelines[0]
	}
	return startSample{file: which, data: image, pipeline: pipeline}, nil
}

// textPipeline is the built-in pipeline that reads the sample page.
const textPipeline = "text"

// drawPage draws the page, writes it to a file, and returns it.
func drawPage(file string) ([]byte, error) {
	page, err := sample.PageFile()
	if err != nil {
		return nil, err
	}
	err = errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, page, 0o644))
	if err != nil {
		return nil, fmt.Errorf("write the sample: %w", err)
	}
	return page, nil
}

// process posts the sample as a client does, and prints the result and commands to try. traces is the prefix of the URL
// of a trace; empty without Jaeger.
func (s startSample) process(ctx context.Context, w io.Writer, httpAddr, natsURL, traces string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	url := "http://" + httpAddr + "/v1/images?pipeline=" + s.pipeline
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(s.data))
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
	elapsed := time.Since(began)
	var r v1.Result
	if err := json.Unmarshal(body, &r); err != nil || res.StatusCode != http.StatusOK {
		return fmt.Errorf("post the sample: %s: %s", res.Status, body)
	}
	fmt.Fprintf(w, "\n%s has %d regions, read in %d ms:\n\n", s.file, len(r.Regions), elapsed.Milliseconds())
	if r.Text != nil {
		fmt.Fprintln(w, "    "+strings.ReplaceAll(strings.TrimRight(*r.Text, "\n"), "\n", "\n    "))
	}
	fmt.Fprintf(w, `
trace   %s
HTTP    http://%s    see /openapi.json and /v1/pipelines
        curl -X POST -T %s '%s'
NATS    %s
        nats -s %s micro ls
        nats -s %s req --raw --no-templates --force-stdin sight.v1.analyze.%s < %s
`, traces+r.TraceID, httpAddr, s.file, url, natsURL, natsURL, natsURL, s.pipeline, s.file)
	if e := os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT"); e != "" && traces == "" {
		fmt.Fprintf(w, "traces  are sent to %s\n", e)
	}
	fmt.Fprintf(w, "\nCtrl-C stops the mesh. Accepted images are kept for the next start.\n")
	return nil
}
