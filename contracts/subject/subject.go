// Package subject builds and parses the NATS subjects of the mesh. It has no state and
// no connection.
//
// The documentation of package contracts lists the subjects. [ValidPipeline] and
// [ValidJob] check the tokens that come from clients. The parsers return an error for
// a subject that the builders cannot return.
package subject

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Prefix is the prefix of every subject of version 1.
const Prefix = "sight.v1."

// Priority is the priority of a job within its pipeline: interactive jobs are processed
// before bulk jobs.
type Priority string

// The priorities.
const (
	Interactive Priority = "interactive"
	Bulk        Priority = "bulk"
)

// Priorities returns the priorities, the highest first.
func Priorities() []Priority { return []Priority{Interactive, Bulk} }

// Valid reports whether p is one of [Priorities].
func (p Priority) Valid() bool { return p == Interactive || p == Bulk }

// Stage is the name of a stage of a pipeline.
type Stage string

// The stages. Each is also the name of its service.
const (
	Detect   Stage = "detect"
	Classify Stage = "classify"
)

// The services that are not stages.
const (
	IngressService = "ingress"
	ResultsService = "results"
)

// InboxPrefix is the prefix of the subjects that receive replies. A service appends its
// own name.
const InboxPrefix = "_INBOX"

// Valid reports whether s is a stage.
func (s Stage) Valid() bool { return s == Detect || s == Classify }

var (
	pipelineToken = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	jobToken      = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
)

// ValidPipeline reports whether name is a valid name of a pipeline: 1 to 32 characters
// of a-z, 0-9 and '-', a letter first.
func ValidPipeline(name string) bool { return pipelineToken.MatchString(name) }

// ValidJob reports whether id is a valid ID of a job or report: 1 to 64 characters of
// A-Z, a-z, 0-9, '_' and '-'.
func ValidJob(id string) bool { return jobToken.MatchString(id) }

// Job is the job in a subject. Fields that the subject does not have are zero.
type Job struct {
	Pipeline string
	Priority Priority
	ID       string
	Part     int
}

// Images returns the subject on which an image waits for detect.
func Images(j Job) string {
	return Prefix + "images." + j.Pipeline + "." + string(j.Priority) + "." + j.ID
}

// Crops returns the subject on which the crops of part j.Part wait for classify.
func Crops(j Job) string {
	return Prefix + "crops." + j.Pipeline + "." + string(j.Priority) + "." + j.ID + "." + strconv.Itoa(j.Part)
}

// Parts returns the subject on which the result of part j.Part waits to be joined.
func Parts(j Job) string {
	return Prefix + "parts." + j.Pipeline + "." + j.ID + "." + strconv.Itoa(j.Part)
}

// Results returns the subject on which the result of a job is stored.
func Results(pipeline, job string) string { return Prefix + "results." + pipeline + "." + job }

// Quarantine returns the subject of an image that stage s could not process.
func Quarantine(s Stage, pipeline, job string) string {
	return Prefix + "quarantine." + string(s) + "." + pipeline + "." + job
}

// Analyze returns the subject of requests with an image as body. The reply is the
// result.
func Analyze(pipeline string) string { return Prefix + "analyze." + pipeline }

// Lookup returns the subject of requests for the result or the state of a job. Their
// body is empty.
func Lookup(job string) string { return Prefix + "lookup." + job }

// Draw returns the subject of requests to draw regions on an image. The reply is the
// drawn image, in pieces.
func Draw() string { return Prefix + "draw" }

// Status returns the subject of requests for the status of a service. Their body is
// empty; every instance of the service replies.
func Status(service string) string { return Prefix + "status." + service }

// Cancel returns the subject of requests to cancel a job. Their body is empty; the
// reply says where the job was.
func Cancel(job string) string { return Prefix + "cancel." + job }

// Cancelled returns the subject that notifies workers that a job was cancelled.
func Cancelled(job string) string { return Prefix + "cancelled." + job }

// Events returns the subject of the events of a job or report. Events are not stored.
func Events(id string) string { return Prefix + "events." + id }

// JobOfKey returns the subject on which the job of an idempotency key is stored; sum is
// the SHA-256 of the key in lower-case hex.
func JobOfKey(sum string) string { return Prefix + "jobs.key." + sum }

// CallbackState returns the subject on which the state of the webhook of a job or
// report is stored.
func CallbackState(id string) string { return Prefix + "jobs.callback." + id }

// FetchState returns the subject on which the number of failed attempts to fetch an
// image of a report is stored.
func FetchState(job string) string { return Prefix + "jobs.fetch." + job }

// Attempts returns the subject on which the number of attempts of the workers of stage
// s to process part j.Part of a job is stored.
func Attempts(s Stage, j Job) string {
	return Prefix + "jobs.attempts." + string(s) + "." + j.Pipeline + "." + j.ID + "." + strconv.Itoa(j.Part)
}

// Callbacks returns the subject on which the webhook call of a job or report waits.
func Callbacks(id string) string { return Prefix + "callbacks." + id }

// Fetches returns the subject on which an image of a report waits to be fetched. Its
// priority is always bulk and is not in the subject.
func Fetches(pipeline, job string) string { return Prefix + "fetches." + pipeline + "." + job }

// Report returns the subject on which the manifest of a report is stored.
func Report(report string) string { return Prefix + "reports." + report }

// ReportOutcome returns the subject on which the outcome of image n of a report is
// stored; status is done or failed.
func ReportOutcome(report, status string, n int) string {
	return Report(report) + "." + status + "." + strconv.Itoa(n)
}

// ReportFinished returns the subject of the message that is stored when every image of
// a report has its outcome.
func ReportFinished(report string) string { return Report(report) + ".finished" }

// The functions below return subjects with wildcards, for streams and consumers.

// AllImages matches the images of every pipeline.
func AllImages() string { return Prefix + "images.>" }

// AllCrops matches the crops of every pipeline.
func AllCrops() string { return Prefix + "crops.>" }

// AllParts matches the parts of every pipeline.
func AllParts() string { return Prefix + "parts.>" }

// AllResults matches the results of every pipeline.
func AllResults() string { return Prefix + "results.>" }

// AllQuarantine matches everything in quarantine.
func AllQuarantine() string { return Prefix + "quarantine.>" }

// AllJobs matches every message of the stream JOBS.
func AllJobs() string { return Prefix + "jobs.>" }

// AllCallbacks matches every webhook call that waits.
func AllCallbacks() string { return Prefix + "callbacks.>" }

// AllFetches matches every image that waits to be fetched.
func AllFetches() string { return Prefix + "fetches.>" }

// AllReports matches every message of the stream REPORTS.
func AllReports() string { return Prefix + "reports.>" }

// ImagesOfJob matches the image of a job while it waits for detect.
func ImagesOfJob(id string) string { return Prefix + "images.*.*." + id }

// CropsOfJob matches the crops of a job.
func CropsOfJob(id string) string { return Prefix + "crops.*.*." + id + ".*" }

// PartsOfJob matches the parts of a job, of every pipeline.
func PartsOfJob(id string) string { return Prefix + "parts.*." + id + ".*" }

// FetchesOfJob matches the fetch of the image of a job.
func FetchesOfJob(id string) string { return Fetches("*", id) }

// AllManifests matches the manifests of all reports.
func AllManifests() string { return Report("*") }

// AllAnalyze matches the requests to analyze of every pipeline.
func AllAnalyze() string { return Analyze("*") }

// AllLookup matches the look-ups of all jobs.
func AllLookup() string { return Lookup("*") }

// AllCancel matches every request to cancel a job.
func AllCancel() string { return Cancel("*") }

// AllCancelled matches the notifications of all cancelled jobs.
func AllCancelled() string { return Cancelled("*") }

// AllEvents matches the events of every job and report.
func AllEvents() string { return Events("*") }

// AllOutcomes matches the outcomes of the images of one report.
func AllOutcomes(report string) string { return Report(report) + ".*.*" }

// ImagesOf matches the images of one pipeline and priority.
func ImagesOf(pipeline string, p Priority) string {
	return Prefix + "images." + pipeline + "." + string(p) + ".*"
}

// CropsOf matches the crops of one pipeline and priority.
func CropsOf(pipeline string, p Priority) string {
	return Prefix + "crops." + pipeline + "." + string(p) + ".*.*"
}

// PartsOf matches the parts of one job.
func PartsOf(j Job) string { return Prefix + "parts." + j.Pipeline + "." + j.ID + ".*" }

// ImagesOfPriority matches the images of one priority, of every pipeline.
func ImagesOfPriority(p Priority) string { return Prefix + "images.*." + string(p) + ".*" }

// CropsOfPriority matches the crops of one priority, of every pipeline.
func CropsOfPriority(p Priority) string { return Prefix + "crops.*." + string(p) + ".*.*" }

// AllFinished matches the subjects of [ReportFinished] of all reports.
func AllFinished() string { return Prefix + "reports.*.finished" }

// ParseFinished parses a subject of [ReportFinished].
func ParseFinished(s string) (report string, err error) {
	report, ok := strings.CutSuffix(s, ".finished")
	if !ok {
		return "", fmt.Errorf("subject %q: not the end of a report", s)
	}
	return parseJob(report, "reports")
}

// ParseReportOutcome parses a subject of [ReportOutcome].
func ParseReportOutcome(s string) (report, status string, n int, err error) {
	t, err := tokens(s, "reports", 3)
	if err != nil {
		return "", "", 0, err
	}
	if !ValidJob(t[0]) {
		return "", "", 0, fmt.Errorf("subject %q: invalid report", s)
	}
	if n, err = parsePart(s, t[2]); err != nil {
		return "", "", 0, err
	}
	return t[0], t[1], n, nil
}

// ParseImages parses a subject of [Images].
func ParseImages(s string) (Job, error) {
	t, err := tokens(s, "images", 3)
	if err != nil {
		return Job{}, err
	}
	return checkJob(s, Job{Pipeline: t[0], Priority: Priority(t[1]), ID: t[2]})
}

// ParseCrops parses a subject of [Crops].
func ParseCrops(s string) (Job, error) {
	t, err := tokens(s, "crops", 4)
	if err != nil {
		return Job{}, err
	}
	part, err := parsePart(s, t[3])
	if err != nil {
		return Job{}, err
	}
	return checkJob(s, Job{Pipeline: t[0], Priority: Priority(t[1]), ID: t[2], Part: part})
}

// ParseParts parses a subject of [Parts]. The job has no priority.
func ParseParts(s string) (Job, error) {
	t, err := tokens(s, "parts", 3)
	if err != nil {
		return Job{}, err
	}
	part, err := parsePart(s, t[2])
	if err != nil {
		return Job{}, err
	}
	j, err := checkJob(s, Job{Pipeline: t[0], Priority: Interactive, ID: t[1], Part: part})
	j.Priority = ""
	return j, err
}

// ParseResults parses a subject of [Results]. The job has no priority.
func ParseResults(s string) (Job, error) {
	t, err := tokens(s, "results", 2)
	if err != nil {
		return Job{}, err
	}
	j, err := checkJob(s, Job{Pipeline: t[0], Priority: Interactive, ID: t[1]})
	j.Priority = ""
	return j, err
}

// ParseAnalyze returns the pipeline of a subject of [Analyze]. It does not check the
// name: the caller does, and replies to the client.
func ParseAnalyze(s string) (pipeline string, err error) {
	t, err := tokens(s, "analyze", 1)
	if err != nil {
		return "", err
	}
	return t[0], nil
}

// ParseFetches parses a subject of [Fetches].
func ParseFetches(s string) (Job, error) {
	t, err := tokens(s, "fetches", 2)
	if err != nil {
		return Job{}, err
	}
	return checkJob(s, Job{Pipeline: t[0], Priority: Bulk, ID: t[1]})
}

// ParseLookup returns the job of a subject of [Lookup].
func ParseLookup(s string) (job string, err error) { return parseJob(s, "lookup") }

// ParseCancel returns the job of a subject of [Cancel].
func ParseCancel(s string) (job string, err error) { return parseJob(s, "cancel") }

// ParseCancelled returns the job of a subject of [Cancelled].
func ParseCancelled(s string) (job string, err error) { return parseJob(s, "cancelled") }

// ParseCallbacks returns the job or report of a subject of [Callbacks].
func ParseCallbacks(s string) (id string, err error) { return parseJob(s, "callbacks") }

// ParseReport returns the report of a subject of [Report].
func ParseReport(s string) (report string, err error) { return parseJob(s, "reports") }

func parseJob(s, family string) (string, error) {
	t, err := tokens(s, family, 1)
	if err != nil {
		return "", err
	}
	if !ValidJob(t[0]) {
		return "", fmt.Errorf("subject %q: invalid job", s)
	}
	return t[0], nil
}

func tokens(s, family string, n int) ([]string, error) {
	rest, ok := strings.CutPrefix(s, Prefix+family+".")
	if !ok {
		return nil, fmt.Errorf("subject %q: want prefix %q", s, Prefix+family+".")
	}
	t := strings.Split(rest, ".")
	if len(t) != n {
		return nil, fmt.Errorf("subject %q: want %d tokens after %q", s, n, Prefix+family)
	}
	return t, nil
}

func parsePart(s, token string) (int, error) {
	n, err := strconv.Atoi(token)
	if err != nil || n < 0 || strconv.Itoa(n) != token {
		return 0, fmt.Errorf("subject %q: part %q is not a number from 0", s, token)
	}
	return n, nil
}

func checkJob(s string, j Job) (Job, error) {
	switch {
	case !ValidPipeline(j.Pipeline):
		return Job{}, fmt.Errorf("subject %q: invalid pipeline", s)
	case !j.Priority.Valid():
		return Job{}, fmt.Errorf("subject %q: invalid priority", s)
	case !ValidJob(j.ID):
		return Job{}, fmt.Errorf("subject %q: invalid job", s)
	}
	return j, nil
}
