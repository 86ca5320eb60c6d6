package up

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// modelsTimeout is how long ingress may take to learn the state of the workers, after every service is ready.
const modelsTimeout = 5 * time.Second

// awaitPipelines returns the pipelines. It waits until ingress knows the state of the workers
// of each pipeline, because ingress rejects images before that.
func awaitPipelines(ctx context.Context, httpAddr string) ([]v1.Pipeline, error) {
	ctx, cancel := context.WithTimeout(ctx, modelsTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		pipelines, err := listPipelines(ctx, httpAddr)
		if err != nil {
			return nil, fmt.Errorf("list the pipelines: %w", err)
		}
		if !slices.ContainsFunc(pipelines, isStarting) {
			return pipelines, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return pipelines, nil
		}
	}
}

// isStarting reports whether ingress does not know the state of the workers of a pipeline, or of their lanes, yet.
func isStarting(p v1.Pipeline) bool {
	return p.State == v1.PipelineStarting || p.State == v1.PipelineUnserved || p.State == v1.PipelineCold
}

func listPipelines(ctx context.Context, httpAddr string) ([]v1.Pipeline, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+httpAddr+"/v1/pipelines", nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s", res.Status)
	}
	var list v1.Pipelines
	if err := json.NewDecoder(res.Body).Decode(&list); err != nil {
		return nil, err
	}
	return list.Pipelines, nil
}

// describeModels returns one line with the models of each pipeline, or its state when it is not ready.
func describeModels(pipelines []v1.Pipeline) string {
	all := make([]string, 0, len(pipelines))
	for _, p := range pipelines {
		names := make([]string, 0, len(p.Models))
		for _, m := range p.Models {
			names = append(names, m.Name)
		}
		used := strings.Join(names, ", ")
		switch {
		case !p.Ready:
			used = "not ready"
		case p.State != v1.PipelineReady:
			used = string(p.State)
		}
		all = append(all, p.Name+": "+used)
	}
	return strings.Join(all, "; ")
}
