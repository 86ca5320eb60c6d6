package v1

// ResultsStatus is the reply of an instance of results to a request on its status subject.
type ResultsStatus struct {
	Service  string `json:"service"`
	Instance string `json:"instance"`
	Version  string `json:"version"`
}

// IngressStatus is the reply of an instance of ingress to a request on its status subject.
type IngressStatus []Pipeline

// WorkerStatus is the reply of an instance of detect or classify to a request on its
// status subject.
type WorkerStatus struct {
	Service  string `json:"service"`  // detect or classify
	Instance string `json:"instance"` // name of the process
	Version  string `json:"version"`  // version of the program
	// Lanes is how many messages the instance processes at a time.
	Lanes int `json:"lanes"`
	// Busy is the number of lanes that process a message.
	Busy int `json:"busy"`
	// BusyLanes has the lanes that process a message, the longest first. A worker of version 0.1.0 does not have it.
	BusyLanes []BusyLane `json:"busy_lanes,omitempty"`
	// Pipelines has the state of each pipeline of the instance.
	Pipelines map[string]PipelineStatus `json:"pipelines"`
}

// BusyLane is a lane that processes a message: an image, or crops of an image.
type BusyLane struct {
	Pipeline string `json:"pipeline"` // pipeline of the image
	PID      int    `json:"pid"`      // process of the lane, on the machine or in the container of the instance
	// BusyMS is how long the lane has processed the message, in milliseconds. The lane is killed at the timeout of the
	// stage.
	BusyMS float64 `json:"busy_ms"`
}

// PipelineStatus is the state of a pipeline in one instance.
type PipelineStatus struct {
	// Ready is true when a lane has loaded the models, also while it is restarted.
	Ready bool `json:"ready"`
	// Reason is why the pipeline is not ready.
	Reason string `json:"reason,omitempty"`
	// Starting is true while the lanes load their models for the first time.
	Starting bool    `json:"starting,omitempty"`
	Models   []Model `json:"models,omitempty"` // models that the lanes have loaded
	// ServiceMS is the moving average of the service time of a message, in milliseconds. 0
	// before the first message.
	ServiceMS float64 `json:"service_ms"`
}

// PipelineState is the state of a pipeline in the mesh.
type PipelineState string

// States of a pipeline.
const (
	// PipelineReady: a worker of each stage is ready.
	PipelineReady PipelineState = "ready"
	// PipelineCold: a stage has no worker. Images are accepted, and wait for a worker until
	// their deadline.
	PipelineCold PipelineState = "cold"
	// PipelineStarting: the workers of a stage load their models.
	PipelineStarting PipelineState = "starting"
	// PipelineUnserved: a stage has no worker, and images are rejected.
	PipelineUnserved PipelineState = "unserved"
	// PipelineFailed: the workers of a stage cannot serve the pipeline, or its consumer is
	// missing.
	PipelineFailed PipelineState = "failed"
)

// Pipeline is an entry of GET /v1/pipelines.
type Pipeline struct {
	Name        string `json:"name"`                  // name of the pipeline
	Description string `json:"description,omitempty"` // what the pipeline finds
	// Ready is true when images are accepted. A pipeline that scales from zero also accepts
	// images while its workers start.
	Ready bool `json:"ready"`
	// State is how the pipeline is served. A mesh of version 0.1.0 does not have it.
	State PipelineState `json:"state,omitempty"`
	// Reason is why State is not ready.
	Reason string  `json:"reason,omitempty"`
	Models []Model `json:"models,omitempty"` // models of its stages
	// DeadlineMS is the deadline of jobs without a priority, in milliseconds.
	DeadlineMS int64 `json:"deadline_ms"`
	MaxRegions int   `json:"max_regions"` // largest number of regions of a result
}

// Pipelines is the body of GET /v1/pipelines.
type Pipelines struct {
	Pipelines []Pipeline `json:"pipelines"` // all pipelines, also those that are not ready
	Limits    Limits     `json:"limits"`    // limits of every image
}

// Limits are the limits of every image.
type Limits struct {
	MaxBytes  int64    `json:"max_bytes"`  // largest size of a file in bytes
	MaxSide   int      `json:"max_side"`   // largest width or height in pixels
	MaxPixels int      `json:"max_pixels"` // largest width × height in pixels
	Types     []string `json:"types"`      // media types that are read
}
