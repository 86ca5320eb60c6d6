package v1

// ImageRequest is the JSON body of POST /v1/images. It has either an image or a
// URL.
type ImageRequest struct {
	// Image is the file in base64, in the standard or the URL alphabet.
	Image string `json:"image,omitempty"`
	// URL is where the image is fetched from.
	URL string `json:"url,omitempty"`
	RequestFields
}

// RequestFields are what a JSON body says of its images. Each can stand in the query or a
// header instead.
type RequestFields struct {
	// Pipeline is the name of one of GET /v1/pipelines; the first of them when empty.
	Pipeline string `json:"pipeline,omitempty"`
	// Priority is interactive or bulk; that of the pipeline when empty.
	Priority string `json:"priority,omitempty"`
	// Callback is the URL that gets the outcome.
	Callback string `json:"callback,omitempty"`
	// Key makes the same request, sent again, the same job.
	Key string `json:"key,omitempty"`
	// Metadata comes back with the result.
	Metadata map[string]string `json:"metadata,omitempty"`
}

// ReportRequest is the JSON body of POST /v1/reports.
type ReportRequest struct {
	Images []ReportSource `json:"images"`
	RequestFields
}
