package v1

// ResultsStatus is the reply of one instance of results to a request on its
// status subject.
type ResultsStatus struct {
	Service  string `json:"service"`
	Instance string `json:"instance"`
	Version  string `json:"version"`
}

// IngressStatus is the reply of one instance of ingress to a request on its
// status subject.
type IngressStatus []Pipeline

// WorkerStatus is the reply of one instance of detect or classify to a request
// on its status subject.
type WorkerStatus struct {
	Service  string `json:"service"`  // detect or classify
	Instance string `json:"instance"` // name of the process
	Version  string `json:"version"`  // version of the program
	// Lanes is how many images the instance works on at a time.
	Lanes int `json:"lanes"`
	// Busy is how many lanes are at work.
	Busy int `json:"busy"`
	// Pipelines says, for each pipeline the instance serves, whether it can.
	Pipelines map[string]PipelineStatus `json:"pipelines"`
}

// PipelineStatus is how one instance serves one pipeline.
type PipelineStatus struct {
	// Ready: a lane has loaded the models, or had them and is being restarted.
	Ready bool `json:"ready"`
	// Reason says why not.
	Reason string `json:"reason,omitempty"`
	// Starting says that it is not known yet: lanes load their models for the first time.
	Starting bool    `json:"starting,omitempty"`
	Models   []Model `json:"models,omitempty"` // those that the lanes have loaded
	// ServiceMS is the moving average of how long a lane is held by one
	// message, in milliseconds; 0 before the first.
	ServiceMS float64 `json:"service_ms"`
}

// PipelineState says how a mesh serves a pipeline.
type PipelineState string

// States of a pipeline.
const (
	// PipelineReady: a worker of each stage is ready.
	PipelineReady PipelineState = "ready"
	// PipelineCold: a stage has no worker. Images are accepted, and wait for one until
	// their deadline.
	PipelineCold PipelineState = "cold"
	// PipelineStarting: the workers of a stage load their models.
	PipelineStarting PipelineState = "starting"
	// PipelineUnserved: a stage has no worker, and images are rejected.
	PipelineUnserved PipelineState = "unserved"
	// PipelineFailed: the workers of a stage cannot serve it, or its consumer is missing.
	PipelineFailed PipelineState = "failed"
)

// Pipeline is an entry of GET /v1/pipelines.
type Pipeline struct {
	Name        string `json:"name"`                  // name of the pipeline
	Description string `json:"description,omitempty"` // what it finds
	// Ready says that images are accepted. Those of a pipeline that scales from zero are
	// also accepted while its workers start.
	Ready bool `json:"ready"`
	// State says how the pipeline is served. A mesh of version 0.1.0 does not say it.
	State PipelineState `json:"state,omitempty"`
	// Reason says why State is not ready.
	Reason string  `json:"reason,omitempty"`
	Models []Model `json:"models,omitempty"` // those of its stages
	// DeadlineMS is that of jobs that name no priority.
	DeadlineMS int64 `json:"deadline_ms"`
	MaxRegions int   `json:"max_regions"` // most regions of a result
}

// Pipelines is the body of GET /v1/pipelines.
type Pipelines struct {
	Pipelines []Pipeline `json:"pipelines"` // all there are, served now or not
	Limits    Limits     `json:"limits"`    // limits of every image
}

// Limits are those of every picture.
type Limits struct {
	MaxBytes  int64    `json:"max_bytes"`  // most bytes of a file
	MaxSide   int      `json:"max_side"`   // most pixels of width or height
	MaxPixels int      `json:"max_pixels"` // most pixels of width × height
	Types     []string `json:"types"`      // media types that are read
}
