package v1

import (
	"fmt"
	"net/http"
	"strings"
)

// Code is the stable name of a kind of problem. Codes are only added. They are in
// results, in NATS service errors and in the type of HTTP problems.
type Code string

// The codes.
const (
	InvalidParameter  Code = "invalid-parameter"
	InvalidHeader     Code = "invalid-header"
	InvalidBody       Code = "invalid-body"
	EmptyBody         Code = "empty-body"
	TruncatedBody     Code = "truncated-body"
	NotFound          Code = "not-found"
	UnknownPipeline   Code = "unknown-pipeline"
	UnknownJob        Code = "unknown-job"
	MethodNotAllowed  Code = "method-not-allowed"
	TooLarge          Code = "too-large"
	UnsupportedType   Code = "unsupported-type"
	Damaged           Code = "damaged"
	TooManyPixels     Code = "too-many-pixels"
	TooManyScans      Code = "too-many-scans"
	TooSlow           Code = "too-slow"
	TooMuchMemory     Code = "too-much-memory"
	LaneDied          Code = "lane-died"
	InvalidMessage    Code = "invalid-message"
	Overloaded        Code = "overloaded"
	NoWorker          Code = "no-worker"
	Unavailable       Code = "unavailable"
	DeadlineExceeded  Code = "deadline-exceeded"
	TooManyDeliveries Code = "too-many-deliveries"
	Internal          Code = "internal"
	UnknownReport     Code = "unknown-report"
	JobExpired        Code = "job-expired"
	JobFinished       Code = "job-finished"
	Cancelled         Code = "cancelled"
	KeyConflict       Code = "idempotency-conflict"
	TooManyImages     Code = "too-many-images"
	URLRefused        Code = "url-refused"
	FetchFailed       Code = "fetch-failed"
	FrameOutOfOrder   Code = "frame-out-of-order"
	Idle              Code = "idle"
	CrossOrigin       Code = "cross-origin"
	UpgradeRequired   Code = "upgrade-required"
	UnknownField      Code = "unknown-field"
)

// ProblemBase is the prefix of the type of every problem; the code follows. It is the
// address of a page that explains the codes.
const ProblemBase = "https://github.com/sightmesh/sightmesh/blob/main/docs/problems.md#"

var problems = map[Code]struct {
	status int
	title  string
}{
	InvalidParameter:  {http.StatusBadRequest, "A query parameter is not valid"},
	InvalidHeader:     {http.StatusBadRequest, "A header is not valid"},
	InvalidBody:       {http.StatusBadRequest, "The body is not what its type says"},
	EmptyBody:         {http.StatusBadRequest, "The body is empty"},
	TruncatedBody:     {http.StatusBadRequest, "The body ended before its announced length"},
	NotFound:          {http.StatusNotFound, "There is nothing at this address"},
	UnknownPipeline:   {http.StatusNotFound, "There is no such pipeline"},
	UnknownJob:        {http.StatusNotFound, "There is no such job"},
	MethodNotAllowed:  {http.StatusMethodNotAllowed, "The address does not take this method"},
	TooLarge:          {http.StatusRequestEntityTooLarge, "The picture has too many bytes"},
	UnsupportedType:   {http.StatusUnsupportedMediaType, "The type is not one that is read here"},
	Damaged:           {http.StatusUnprocessableEntity, "The picture is damaged"},
	TooManyPixels:     {http.StatusUnprocessableEntity, "The picture has too many pixels"},
	TooManyScans:      {http.StatusUnprocessableEntity, "The picture has too many scans"},
	TooSlow:           {http.StatusUnprocessableEntity, "The picture took longer than a lane may work on one"},
	TooMuchMemory:     {http.StatusUnprocessableEntity, "The picture took more memory than a lane may have"},
	LaneDied:          {http.StatusUnprocessableEntity, "The picture ended the process that worked on it"},
	InvalidMessage:    {http.StatusUnprocessableEntity, "The message does not follow the contract"},
	Overloaded:        {http.StatusTooManyRequests, "The mesh has more work than it can do in time"},
	NoWorker:          {http.StatusServiceUnavailable, "No worker serves this pipeline now"},
	Unavailable:       {http.StatusServiceUnavailable, "The mesh cannot take work now"},
	DeadlineExceeded:  {http.StatusGatewayTimeout, "The job's deadline passed"},
	TooManyDeliveries: {http.StatusInternalServerError, "The job was tried too often without an outcome"},
	Internal:          {http.StatusInternalServerError, "Something failed that should not have"},
	UnknownReport:     {http.StatusNotFound, "There is no such report"},
	JobExpired:        {http.StatusGone, "The job's answer is no longer kept"},
	JobFinished:       {http.StatusConflict, "The job has its answer already"},
	Cancelled:         {http.StatusConflict, "The job was cancelled"},
	KeyConflict:       {http.StatusConflict, "The idempotency key was used for something else"},
	URLRefused:        {http.StatusUnprocessableEntity, "The URL is not one that is fetched from here"},
	FetchFailed:       {http.StatusUnprocessableEntity, "The picture could not be fetched from its URL"},
	FrameOutOfOrder:   {http.StatusBadRequest, "A frame came after a later one"},
	Idle:              {http.StatusRequestTimeout, "The client sent nothing for too long"},
	CrossOrigin:       {http.StatusForbidden, "The page of another origin may not do this"},
	UnknownField:      {http.StatusBadRequest, "The request has a field that is not known"},
	UpgradeRequired:   {http.StatusUpgradeRequired, "The address speaks another protocol"},
	TooManyImages:     {http.StatusBadRequest, "The report has too many images"},
}

// Codes returns every code, in no particular order.
func Codes() []Code {
	c := make([]Code, 0, len(problems))
	for code := range problems {
		c = append(c, code)
	}
	return c
}

// Problem is an error in the form of RFC 9457 (problem+json), with extension members.
type Problem struct {
	Type   string `json:"type"`             // address of a page that explains the problem
	Title  string `json:"title"`            // title of the code, the same in every problem
	Status int    `json:"status"`           // the HTTP status
	Detail string `json:"detail,omitempty"` // explanation of this occurrence, for people
	// Code is the last part of Type.
	Code Code `json:"code"`
	// Field names the parameter, header or part that is wrong.
	Field string `json:"field,omitempty"`
	// Limit is the limit that was exceeded, in the unit that Detail names.
	Limit int64 `json:"limit,omitempty"`
	// Job is the ID of the job or report of the problem, if there is one.
	Job string `json:"id,omitempty"`
	// TraceID is the ID of the W3C trace of the request.
	TraceID string `json:"trace_id,omitempty"`
	// Images are the images of a rejected report that became jobs, or may have become jobs.
	Images []ProblemImage `json:"images,omitempty"`
}

// ProblemImage is an image of a rejected report.
type ProblemImage struct {
	// ID is the ID of the job of the image.
	ID string `json:"id"`
	// Status is queued when the image was accepted, failed when it cannot be read, and
	// absent when the image may have been accepted.
	Status Status `json:"status,omitempty"`
}

// MaxDetail is the maximum size of the detail of a problem, in bytes, so that a failure can always be stored.
const MaxDetail = 1024

// maxField is the maximum size of the field of a problem, in bytes.
const maxField = 60

// NewProblem returns a problem with a code and a detail for people. A code that is not
// one of [Codes] becomes [Internal]. A detail longer than 1,024 bytes is cut.
func NewProblem(code Code, format string, args ...any) *Problem {
	p, ok := problems[code]
	if !ok {
		code, p = Internal, problems[Internal]
	}
	return &Problem{
		Type: ProblemBase + string(code), Title: p.title, Status: p.status,
		Code: code, Detail: cut(fmt.Sprintf(format, args...), MaxDetail),
	}
}

// WithField sets the name of the parameter, header or part that is wrong, and returns p. A
// name longer than 60 bytes is cut.
func (p *Problem) WithField(name string) *Problem { p.Field = cut(name, maxField); return p }

// cut returns the first n bytes of s, without an incomplete character at the end.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// WithLimit sets the limit that was exceeded, and returns p.
func (p *Problem) WithLimit(n int64) *Problem { p.Limit = n; return p }

// Error returns the code and the detail.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return string(p.Code)
	}
	return string(p.Code) + ": " + p.Detail
}
