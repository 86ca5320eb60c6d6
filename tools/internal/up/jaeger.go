package up

import (
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// jaegerConfig is the configuration of Jaeger, version 2. It reads its addresses from the environment.
//
//go:embed jaeger.yaml
var jaegerConfig string

// jaeger is a child process that stores the traces of the mesh.
type jaeger struct {
	*child
	http string // address of its API and pages
	otlp string // address to which spans are sent
}

// newJaeger finds the program jaeger, and chooses its addresses. It will serve HTTP on addr; port 0 is replaced by a
// free port.
func newJaeger(addr string, log *slog.Logger, out *printer) (*jaeger, error) {
	path, err := findProgram("jaeger")
	if err != nil {
		return nil, fmt.Errorf("find jaeger beside this program or on the PATH: %w (make jaeger builds it; "+
			"https://www.jaegertracing.io/download has binaries)", err)
	}
	j := &jaeger{}
	if j.http, err = freeAddress("Jaeger", "--jaeger-http", addr); err != nil {
		return nil, err
	}
	if j.otlp, err = freeAddress("the traces", "--jaeger", anyPort); err != nil {
		return nil, err
	}
	env := []string{
		"SIGHTMESH_JAEGER_HTTP=" + j.http, "SIGHTMESH_JAEGER_OTLP=" + j.otlp,
		"OTEL_TRACES_SAMPLER=always_off", // Jaeger would send its own traces to another address
	}
	j.child = newChild("jaeger", []string{path, "--config", "yaml:" + jaegerConfig}, env, log, out)
	return j, nil
}

// freeAddress returns addr. Port 0 is replaced by a port that is free at the time of the call.
func freeAddress(what, flag, addr string) (string, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", fmt.Errorf("serve %s: %w (%s sets another address)", what, err, flag)
	}
	defer l.Close() //nolint:errcheck // nothing was read or written
	return l.Addr().String(), nil
}

// environ returns the environment variables with which a service sends its traces to Jaeger. They override those of
// the environment. Metrics and logs are still sent to the address in the environment. Spans are exported every 0.5 s
// instead of every 5 s, unless the environment sets another interval.
func (j *jaeger) environ() []string {
	// Jaeger assumes one clock for services with the same address. Without the address, it warns of each span that
	// ends after its parent.
	resource := "ip=127.0.0.1"
	if r := os.Getenv("OTEL_RESOURCE_ATTRIBUTES"); r != "" {
		resource += "," + r
	}
	env := []string{
		"OTEL_RESOURCE_ATTRIBUTES=" + resource,
		"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://" + j.otlp + "/v1/traces",
		"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf",
	}
	if os.Getenv("OTEL_BSP_SCHEDULE_DELAY") == "" {
		env = append(env, "OTEL_BSP_SCHEDULE_DELAY=500")
	}
	return env
}

// tracePrefix returns the prefix of the URL of a trace.
func (j *jaeger) tracePrefix() string { return "http://" + j.http + "/trace/" }

// start runs Jaeger in a goroutine. The caller must call stop, which ends Jaeger and kills it after grace.
func (j *jaeger) start(grace time.Duration) (stop func()) {
	var running sync.WaitGroup
	running.Go(j.run)
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		j.stop(ctx)
		running.Wait()
	}
}

// awaitReady waits until Jaeger responds.
func (j *jaeger) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := j.probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for jaeger to respond: %w: %w", ctx.Err(), err)
		}
	}
}

// probe requests the list of services from Jaeger once.
func (j *jaeger) probe(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+j.http+"/api/services", nil)
	if err != nil {
		return fmt.Errorf("request the services from jaeger: %w", err)
	}
	res, err := probeClient.Do(req)
	if err != nil {
		return fmt.Errorf("request the services from jaeger: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("request the services from jaeger: %s", res.Status)
	}
	return nil
}
