// Package subject builds and parses the NATS subjects of the mesh. It is pure:
// no connection, no state.
//
// The grammar is in the documentation of package contracts. A token that comes
// from outside (pipeline, job) is checked by [ValidPipeline] and [ValidJob];
// the parsers return an error for everything the builders could not have
// built.
package subject

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Prefix begins every subject of version 1 of the contract.
const Prefix = "sight.v1."

// Priority orders the work of one pipeline: interactive goes before bulk.
type Priority string

// The priorities there are.
const (
	Interactive Priority = "interactive"
	Bulk        Priority = "bulk"
)

// Priorities lists them, most urgent first.
func Priorities() []Priority { return []Priority{Interactive, Bulk} }

// Valid reports whether p is one of [Priorities].
func (p Priority) Valid() bool { return p == Interactive || p == Bulk }

// Stage names a step that works on a picture.
type Stage string

// The stages there are; they are also the names of the services that do them.
const (
	Detect   Stage = "detect"
	Classify Stage = "classify"
)

// The services that are no stage.
const (
	IngressService = "ingress"
	ResultsService = "results"
)

// InboxPrefix begins the subjects that may get a reply. A service has it with
// its own name behind it.
const InboxPrefix = "_INBOX"

// Valid reports whether s is a stage.
func (s Stage) Valid() bool { return s == Detect || s == Classify }

var (
	pipelineToken = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	jobToken      = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
)

// ValidPipeline reports whether name can be a pipeline: 1 to 32 characters of
// a-z, 0-9 and '-', a letter first.
func ValidPipeline(name string) bool { return pipelineToken.MatchString(name) }

// ValidJob reports whether id can be a job: 1 to 64 characters of A-Z, a-z,
// 0-9, '_' and '-'.
func ValidJob(id string) bool { return jobToken.MatchString(id) }

// Job is what a subject says of the job whose data it carries. Fields that a
// kind of subject does not have are zero.
type Job struct {
	Pipeline string
	Priority Priority
	ID       string
	Part     int
}

// Images is where a picture waits for detect.
func Images(j Job) string {
	return Prefix + "images." + j.Pipeline + "." + string(j.Priority) + "." + j.ID
}

// Crops is where part j.Part of a picture's crops waits for classify.
func Crops(j Job) string {
	return Prefix + "crops." + j.Pipeline + "." + string(j.Priority) + "." + j.ID + "." + strconv.Itoa(j.Part)
}

// Parts is where the answer for part j.Part waits to be joined.
func Parts(j Job) string {
	return Prefix + "parts." + j.Pipeline + "." + j.ID + "." + strconv.Itoa(j.Part)
}

// Results is where the answer of a job is kept.
func Results(pipeline, job string) string { return Prefix + "results." + pipeline + "." + job }

// Quarantine is where a picture goes that broke something in stage s.
func Quarantine(s Stage, pipeline, job string) string {
	return Prefix + "quarantine." + string(s) + "." + pipeline + "." + job
}

// Analyze is asked with a picture as body; the reply is its answer.
func Analyze(pipeline string) string { return Prefix + "analyze." + pipeline }

// Lookup is asked with an empty body; the reply is the job's answer or state.
func Lookup(job string) string { return Prefix + "lookup." + job }

// Draw is asked with regions and their image as body; the reply is the drawn
// image, in pieces.
func Draw() string { return Prefix + "draw" }

// Status is asked with an empty body; every instance of the service replies.
func Status(service string) string { return Prefix + "status." + service }

// Cancel is asked, with an empty body, that a job be dropped; the reply says
// where it was.
func Cancel(job string) string { return Prefix + "cancel." + job }

// Cancelled is where workers are told that a job was dropped.
func Cancelled(job string) string { return Prefix + "cancelled." + job }

// Events is where the progress of a job or report is told while it happens;
// nothing there is kept.
func Events(id string) string { return Prefix + "events." + id }

// JobOfKey is where the job of an idempotency key is kept; sum is the SHA-256
// of the key in lower-case hex.
func JobOfKey(sum string) string { return Prefix + "jobs.key." + sum }

// CallbackState is where it is kept how the callback of a job or report goes.
func CallbackState(id string) string { return Prefix + "jobs.callback." + id }

// FetchState is where it is kept how often the image of a report was fetched
// in vain.
func FetchState(job string) string { return Prefix + "jobs.fetch." + job }

// Attempts is where it is kept how often the workers of stage s tried to process
// part j.Part of a job.
func Attempts(s Stage, j Job) string {
	return Prefix + "jobs.attempts." + string(s) + "." + j.Pipeline + "." + j.ID + "." + strconv.Itoa(j.Part)
}

// Callbacks is where the callback of a job or report waits to be sent.
func Callbacks(id string) string { return Prefix + "callbacks." + id }

// Fetches is where an image of a report waits to be fetched; its priority is
// always bulk and not in the subject.
func Fetches(pipeline, job string) string { return Prefix + "fetches." + pipeline + "." + job }

// Report is where what a report asked for is kept.
func Report(report string) string { return Prefix + "reports." + report }

// ReportOutcome is where the outcome of image n of a report is kept; status
// is done or failed.
func ReportOutcome(report, status string, n int) string {
	return Report(report) + "." + status + "." + strconv.Itoa(n)
}

// ReportFinished is where it is kept that every image of a report has its
// outcome.
func ReportFinished(report string) string { return Report(report) + ".finished" }

// The wildcards below name a whole family, for streams and consumers.

// AllImages matches the pictures of every pipeline.
func AllImages() string { return Prefix + "images.>" }

// AllCrops matches the crops of every pipeline.
func AllCrops() string { return Prefix + "crops.>" }

// AllParts matches the parts of every pipeline.
func AllParts() string { return Prefix + "parts.>" }

// AllResults matches the answers of every pipeline.
func AllResults() string { return Prefix + "results.>" }

// AllQuarantine matches everything in quarantine.
func AllQuarantine() string { return Prefix + "quarantine.>" }

// AllJobs matches what is kept of jobs besides their answers.
func AllJobs() string { return Prefix + "jobs.>" }

// AllCallbacks matches every callback that waits.
func AllCallbacks() string { return Prefix + "callbacks.>" }

// AllFetches matches every image that waits to be fetched.
func AllFetches() string { return Prefix + "fetches.>" }

// AllReports matches everything that is kept of reports.
func AllReports() string { return Prefix + "reports.>" }

// ImagesOfJob matches the image of a job while it waits for detect.
func ImagesOfJob(id string) string { return Prefix + "images.*.*." + id }

// CropsOfJob matches the crops of a job.
func CropsOfJob(id string) string { return Prefix + "crops.*.*." + id + ".*" }

// PartsOfJob matches the parts of a job, of every pipeline.
func PartsOfJob(id string) string { return Prefix + "parts.*." + id + ".*" }

// FetchesOfJob matches the fetch of the image of a job.
func FetchesOfJob(id string) string { return Fetches("*", id) }

// AllManifests matches what every report asked for.
func AllManifests() string { return Report("*") }

// AllAnalyze matches the requests to analyze of every pipeline.
func AllAnalyze() string { return Analyze("*") }

// AllLookup matches every request to look a job up.
func AllLookup() string { return Lookup("*") }

// AllCancel matches every request to cancel a job.
func AllCancel() string { return Cancel("*") }

// AllCancelled matches what tells workers that a job was cancelled.
func AllCancelled() string { return Cancelled("*") }

// AllEvents matches the events of every job and report.
func AllEvents() string { return Events("*") }

// AllOutcomes matches the outcomes of the images of one report.
func AllOutcomes(report string) string { return Report(report) + ".*.*" }

// ImagesOf matches the pictures of one pipeline and priority.
func ImagesOf(pipeline string, p Priority) string {
	return Prefix + "images." + pipeline + "." + string(p) + ".*"
}

// CropsOf matches the crops of one pipeline and priority.
func CropsOf(pipeline string, p Priority) string {
	return Prefix + "crops." + pipeline + "." + string(p) + ".*.*"
}

// PartsOf matches the parts of one job.
func PartsOf(j Job) string { return Prefix + "parts." + j.Pipeline + "." + j.ID + ".*" }

// ImagesAt matches the images of one priority, of every pipeline.
func ImagesAt(p Priority) string { return Prefix + "images.*." + string(p) + ".*" }

// CropsAt matches the crops of one priority, of every pipeline.
func CropsAt(p Priority) string { return Prefix + "crops.*." + string(p) + ".*.*" }

// AllFinished matches the ends of all reports.
func AllFinished() string { return Prefix + "reports.*.finished" }

// ParseFinished takes a subject built by [ReportFinished] apart.
func ParseFinished(s string) (report string, err error) {
	report, ok := strings.CutSuffix(s, ".finished")
	if !ok {
		return "", fmt.Errorf("subject %q: not the end of a report", s)
	}
	return parseJob(report, "reports")
}

// ParseReportOutcome takes a subject built by [ReportOutcome] apart.
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

// ParseImages takes a subject built by [Images] apart.
func ParseImages(s string) (Job, error) {
	t, err := tokens(s, "images", 3)
	if err != nil {
		return Job{}, err
	}
	return checked(s, Job{Pipeline: t[0], Priority: Priority(t[1]), ID: t[2]})
}

// ParseCrops takes a subject built by [Crops] apart.
func ParseCrops(s string) (Job, error) {
	t, err := tokens(s, "crops", 4)
	if err != nil {
		return Job{}, err
	}
	part, err := parsePart(s, t[3])
	if err != nil {
		return Job{}, err
	}
	return checked(s, Job{Pipeline: t[0], Priority: Priority(t[1]), ID: t[2], Part: part})
}

// ParseParts takes a subject built by [Parts] apart; the job has no priority.
func ParseParts(s string) (Job, error) {
	t, err := tokens(s, "parts", 3)
	if err != nil {
		return Job{}, err
	}
	part, err := parsePart(s, t[2])
	if err != nil {
		return Job{}, err
	}
	j, err := checked(s, Job{Pipeline: t[0], Priority: Interactive, ID: t[1], Part: part})
	j.Priority = ""
	return j, err
}

// ParseResults takes a subject built by [Results] apart; the job has no
// priority.
func ParseResults(s string) (Job, error) {
	t, err := tokens(s, "results", 2)
	if err != nil {
		return Job{}, err
	}
	j, err := checked(s, Job{Pipeline: t[0], Priority: Interactive, ID: t[1]})
	j.Priority = ""
	return j, err
}

// ParseAnalyze returns the pipeline of a subject built by [Analyze]. Whether
// it is a valid name is for the caller to say, who has a client to tell.
func ParseAnalyze(s string) (pipeline string, err error) {
	t, err := tokens(s, "analyze", 1)
	if err != nil {
		return "", err
	}
	return t[0], nil
}

// ParseFetches takes a subject built by [Fetches] apart.
func ParseFetches(s string) (Job, error) {
	t, err := tokens(s, "fetches", 2)
	if err != nil {
		return Job{}, err
	}
	return checked(s, Job{Pipeline: t[0], Priority: Bulk, ID: t[1]})
}

// ParseLookup returns the job of a subject built by [Lookup].
func ParseLookup(s string) (job string, err error) { return parseJob(s, "lookup") }

// ParseCancel returns the job of a subject built by [Cancel].
func ParseCancel(s string) (job string, err error) { return parseJob(s, "cancel") }

// ParseCancelled returns the job of a subject built by [Cancelled].
func ParseCancelled(s string) (job string, err error) { return parseJob(s, "cancelled") }

// ParseCallbacks returns the job or report of a subject built by [Callbacks].
func ParseCallbacks(s string) (id string, err error) { return parseJob(s, "callbacks") }

// ParseReport returns the report of a subject built by [Report].
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

func checked(s string, j Job) (Job, error) {
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
