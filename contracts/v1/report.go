package v1

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sightmesh/sightmesh/contracts/subject"
)

// Manifest is the first message of a report in REPORTS: the images of the report, and its
// settings.
type Manifest struct {
	ID       string    `json:"id"`       // ID of the report
	Pipeline string    `json:"pipeline"` // name of the pipeline of its images
	Accepted time.Time `json:"accepted"` // when ingress accepted it
	// Deadline is the time after which an image without outcome fails.
	Deadline time.Time         `json:"deadline"`
	Callback string            `json:"callback,omitempty"` // URL of the webhook, which is called when the report is done
	Metadata map[string]string `json:"metadata,omitempty"` // metadata of the client
	Images   []ReportSource    `json:"images"`             // in order
}

// ReportSource is one image of the request for a report.
type ReportSource struct {
	// URL of the image; empty for an uploaded image.
	URL string `json:"url,omitempty"`
	// Location is where the image was taken, in the words of the client.
	Location string            `json:"location,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"` // metadata of the client for the image
}

// Fetch is the body of a FETCHES message: an image of a report to fetch.
type Fetch struct {
	URL      string    `json:"url"`      // URL of the image
	Deadline time.Time `json:"deadline"` // time after which the image fails
}

// Report is the state of a report. Its status is running until every image has its
// outcome, and then done, also when images have failed.
type Report struct {
	ID       string            `json:"id"`                 // ID of the report
	Pipeline string            `json:"pipeline"`           // name of the pipeline of its images
	Status   Status            `json:"status"`             // running or done
	Accepted time.Time         `json:"accepted"`           // when it was accepted
	Counts   Counts            `json:"counts"`             // how many images have an outcome
	Metadata map[string]string `json:"metadata,omitempty"` // metadata of the client
	Callback *Callback         `json:"callback,omitempty"` // state of its webhook
	// Images are in the order of the request. Absent where only the counts are reported.
	Images []ReportImage `json:"images,omitempty"`
}

// Counts are the numbers of images of a report.
type Counts struct {
	Total  int `json:"total"`  // images of the report
	Done   int `json:"done"`   // images whose job is done
	Failed int `json:"failed"` // images whose job failed
}

// ReportImage is one image of a report, with its outcome once there is one.
type ReportImage struct {
	ReportSource
	// ID is the job of the image.
	ID string `json:"id"`
	// Status is queued until the image has its outcome.
	Status Status  `json:"status"`
	Result *Result `json:"result,omitempty"` // the outcome
}

// ReportItem is the place of a job in its report.
type ReportItem struct {
	Report string
	// N is the number of the image, from 0 to Total-1.
	N, Total int
}

// Job returns the ID of the job of the image.
func (i ReportItem) Job() string { return i.Report + "-" + strconv.Itoa(i.N) }

// String returns the value of [HeaderReport].
func (i ReportItem) String() string { return fmt.Sprintf("%s/%d/%d", i.Report, i.N, i.Total) }

// ParseReportItem parses the value of [HeaderReport].
func ParseReportItem(s string) (ReportItem, error) {
	f := strings.Split(s, "/")
	if len(f) != 3 || !subject.ValidJob(f[0]) {
		return ReportItem{}, fmt.Errorf("report item %.100q: want <report>/<n>/<total>", s)
	}
	n, err := strconv.Atoi(f[1])
	total, err2 := strconv.Atoi(f[2])
	if err != nil || err2 != nil || n < 0 || n >= total {
		return ReportItem{}, fmt.Errorf("report item %.100q: want 0 <= n < total", s)
	}
	return ReportItem{Report: f[0], N: n, Total: total}, nil
}
