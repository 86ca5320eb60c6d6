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
	ID       string    `json:"id"`
	Pipeline string    `json:"pipeline"`
	Accepted time.Time `json:"accepted"`
	// Deadline after which an image without outcome fails.
	Deadline time.Time         `json:"deadline"`
	Callback string            `json:"callback,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Images   []ReportSource    `json:"images"`
}

// ReportSource is one image that a report asked for.
type ReportSource struct {
	// URL to fetch the picture from; empty for one that was uploaded.
	URL string `json:"url,omitempty"`
	// Location is where the picture was taken, in the client's words.
	Location string            `json:"location,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

// Fetch is the body of a FETCHES message: the image of a report that is to be
// fetched.
type Fetch struct {
	URL      string    `json:"url"`
	Deadline time.Time `json:"deadline"`
}

// Report is what is known of a report. Its status is running until every
// image has its outcome, then done, whatever the outcomes are.
type Report struct {
	ID       string            `json:"id"`
	Pipeline string            `json:"pipeline"`
	Status   Status            `json:"status"`
	Accepted time.Time         `json:"accepted"`
	Counts   Counts            `json:"counts"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Callback *Callback         `json:"callback,omitempty"`
	// Images in the order in which they were given; left out where only the
	// counts are told.
	Images []ReportImage `json:"images,omitempty"`
}

// Counts says how many images of a report there are and have an outcome.
type Counts struct {
	Total  int `json:"total"`
	Done   int `json:"done"`
	Failed int `json:"failed"`
}

// ReportImage is one image of a report: what was asked, and its outcome once
// there is one.
type ReportImage struct {
	ReportSource
	// ID is the job of the image.
	ID string `json:"id"`
	// Status is queued until the image has its outcome.
	Status Status  `json:"status"`
	Result *Result `json:"result,omitempty"`
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
