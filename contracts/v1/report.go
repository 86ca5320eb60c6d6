package v1

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sightmesh/sightmesh/contracts/subject"
)

// Manifest is what a report asked for: the first message of a report in
// REPORTS.
type Manifest struct {
	ID       string    `json:"id"`       // ID of the report
	Pipeline string    `json:"pipeline"` // name of the pipeline of its images
	Accepted time.Time `json:"accepted"` // when ingress accepted it
	// Deadline after which an image without outcome fails.
	Deadline time.Time         `json:"deadline"`
	Callback string            `json:"callback,omitempty"` // URL that is called when the report is done
	Metadata map[string]string `json:"metadata,omitempty"` // what the client said of it
	Images   []ReportSource    `json:"images"`             // in order
}

// ReportSource is one image that a report asked for.
type ReportSource struct {
	// URL to fetch the picture from; empty for one that was uploaded.
	URL string `json:"url,omitempty"`
	// Location is where the picture was taken, in the client's words.
	Location string            `json:"location,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"` // what the client said of the image
}

// Fetch is the body of a FETCHES message: the image of a report that is to be
// fetched.
type Fetch struct {
	URL      string    `json:"url"`      // where the image is
	Deadline time.Time `json:"deadline"` // after it the image fails
}

// Report is what is known of a report. Its status is running until every
// image has its outcome, then done, whatever the outcomes are.
type Report struct {
	ID       string            `json:"id"`                 // ID of the report
	Pipeline string            `json:"pipeline"`           // name of the pipeline of its images
	Status   Status            `json:"status"`             // running or done
	Accepted time.Time         `json:"accepted"`           // when it was accepted
	Counts   Counts            `json:"counts"`             // how many images have an outcome
	Metadata map[string]string `json:"metadata,omitempty"` // what the client said of it
	Callback *Callback         `json:"callback,omitempty"` // how its webhook goes
	// Images in the order in which they were given; left out where only the
	// counts are told.
	Images []ReportImage `json:"images,omitempty"`
}

// Counts says how many images of a report there are and have an outcome.
type Counts struct {
	Total  int `json:"total"`  // images of the report
	Done   int `json:"done"`   // images whose job is done
	Failed int `json:"failed"` // images whose job failed
}

// ReportImage is one image of a report: what was asked, and its outcome once
// there is one.
type ReportImage struct {
	ReportSource
	// ID is the job of the image.
	ID string `json:"id"`
	// Status is queued until the image has its outcome.
	Status Status  `json:"status"`
	Result *Result `json:"result,omitempty"` // the outcome
}

// ReportItem says which image of a report a job is.
type ReportItem struct {
	Report string
	// N counts from 0 to Total-1.
	N, Total int
}

// Job is the id of the image's job.
func (i ReportItem) Job() string { return i.Report + "-" + strconv.Itoa(i.N) }

// String gives the value of [HeaderReport].
func (i ReportItem) String() string { return fmt.Sprintf("%s/%d/%d", i.Report, i.N, i.Total) }

// ParseReportItem reads the value of [HeaderReport].
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
