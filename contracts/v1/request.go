package v1

// ImageRequest is the JSON body of POST /v1/images. It has either an image or a
// URL.
type ImageRequest struct {
	// Image is the file in base64, in the standard or the URL alphabet.
	Image string `json:"image,omitempty"`
	// URL is where the image is fetched from.
	URL string `json:"url,omitempty"`
}

// ReportRequest is the JSON body of POST /v1/reports.
type ReportRequest struct {
	Images []ReportSource `json:"images"`
}
