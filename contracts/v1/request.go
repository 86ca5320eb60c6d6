package v1

// ImageRequest is the JSON body of POST /v1/images. It has either Image or URL.
type ImageRequest struct {
	// Image is the file in base64, in the standard or the URL alphabet.
	Image string `json:"image,omitempty"`
	// URL is the URL from which the image is fetched.
	URL string `json:"url,omitempty"`
	RequestFields
	// MinScore is the lowest score of the regions in the response, from 0 to 1; any score if 0.
	MinScore float64 `json:"min_score,omitempty"`
	// Labels are the labels of the regions in the response; any label if empty.
	Labels []string `json:"labels,omitempty"`
	// Top is the maximum number of regions in the response, those with the highest scores; all if 0.
	Top int `json:"top,omitempty"`
}

// RequestFields are the settings in a JSON body. Each can be given in the query or in a
// header instead.
type RequestFields struct {
	// Pipeline is the name of a pipeline of GET /v1/pipelines; the first of them if empty.
	Pipeline string `json:"pipeline,omitempty"`
	// Priority is interactive or bulk; that of the pipeline if empty.
	Priority string `json:"priority,omitempty"`
	// Callback is the URL of the webhook, which gets the outcome.
	Callback string `json:"callback,omitempty"`
	// Key is the idempotency key: requests with the same key are the same job.
	Key string `json:"key,omitempty"`
	// Metadata is returned with the result.
	Metadata map[string]string `json:"metadata,omitempty"`
}

// ReportRequest is the JSON body of POST /v1/reports.
type ReportRequest struct {
	Images []ReportSource `json:"images"`
	RequestFields
}
