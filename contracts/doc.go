// Package contracts describes the messages of a sightmesh and what clients and
// services may rely on. Start reading here.
//
// # The path of an image
//
//	HTTP client ──► ingress ──► IMAGES ──► detect ──► CROPS ──► classify ──► RESULTS ──► results
//	NATS client ──►    ▲                     │                     │           ▲            │
//	                   │                     └── nothing found ────┼───────────┤            │
//	                   │                                           └─► PARTS ──┘ (joined)   │
//	                   └──────────────── reply to the waiting request ◄─────────────────────┘
//
// # Subjects
//
// Package [github.com/sightmesh/sightmesh/contracts/subject] builds and parses
// them. A job is one image on its way through one pipeline. Its ID is a token of
// every subject that carries a message of the job.
//
//	sight.v1.images.<pipeline>.<priority>.<job>        an image, stream IMAGES
//	sight.v1.crops.<pipeline>.<priority>.<job>.<part>  1 to K crops of it, stream CROPS
//	sight.v1.parts.<pipeline>.<job>.<part>             the result of one of several CROPS messages, stream PARTS
//	sight.v1.results.<pipeline>.<job>                  the result, stream RESULTS, one message for each job
//	sight.v1.quarantine.<stage>.<pipeline>.<job>       an image that could not be processed, stream QUARANTINE
//	sight.v1.analyze.<pipeline>                        request-reply: an image, and its result
//	sight.v1.lookup.<job>                              request-reply: the result or the state of a job
//	sight.v1.draw                                      request-reply: an image with its regions drawn on it, in pieces
//	sight.v1.status.<service>                          request-reply: every instance of a service replies
//	sight.v1.cancel.<job>                              request-reply: cancel a job
//	sight.v1.cancelled.<job>                           notifies workers that a job was cancelled
//	sight.v1.events.<job or report>                    its events, published once and not stored
//	sight.v1.jobs.key.<sha256 of the key>              the job of an idempotency key, stream JOBS
//	sight.v1.jobs.callback.<job or report>             the state of its webhook, stream JOBS
//	sight.v1.jobs.fetch.<job>                          how many attempts to fetch the image failed, stream JOBS
//	sight.v1.jobs.attempts.<stage>.<pipeline>.<job>.<part>
//	                                                   how many times workers tried to process it, stream JOBS
//	sight.v1.callbacks.<job or report>                 a webhook call that waits, stream CALLBACKS
//	sight.v1.fetches.<pipeline>.<job>                  an image of a report that waits to be fetched, stream FETCHES
//	sight.v1.reports.<report>                          the manifest of a report, stream REPORTS
//	sight.v1.reports.<report>.<done or failed>.<n>     the outcome of its image n
//	sight.v1.reports.<report>.finished                 every image has its outcome
//
// The reply to a request on the subject of a stream is the acknowledgement of the
// stream. A client that wants the result uses sight.v1.analyze.
//
// # Bodies
//
// A message of IMAGES is an image file: the bytes of a JPEG, PNG, WebP, BMP or TIFF
// file and nothing else, so that any publisher can submit one. A message of CROPS is
// one line of JSON ([v1.Crops]), a newline, and the pixels. Messages of PARTS and
// RESULTS, and replies, are JSON ([v1.Part], [v1.Result]). A message of RESULTS with
// the header Nats-Marker-Reason has no body: it says that a result was stored and
// has been deleted.
//
// A request to draw is one line of JSON ([v1.DrawRequest]), a newline, and the
// image. Its reply is the drawn image in pieces of at most [v1.MaxPiece] bytes.
// Each piece but the last is a request itself: the worker sends the next piece after
// the client has replied.
//
// # Headers
//
//	Nats-Msg-Id      <job>.<stage>[.<part>]: the stream ignores a second publish of the same message
//	Sight-Deadline   RFC 3339: after this time the job fails and is not processed. It is
//	                 at most 24 h after the image was stored
//	Sight-Accepted   RFC 3339: when the mesh accepted the job
//	Sight-Reply      subject to which the result is published once it is stored
//	Sight-Metadata   JSON object of strings that is returned with the result
//	Sight-Callback   URL of the webhook, which is called with the result
//	Sight-Report     <report>/<n>/<total>: the job is image n of a report
//	Idempotency-Key  requests to analyze only: requests with the same key are one job
//	Sight-Priority, Sight-Min-Score, Sight-Labels, Sight-Top, Prefer, X-Sight-Meta-<name>
//	                 requests to analyze only: as the query parameters and headers over HTTP
//	Sight-Piece      replies to draw only: <n>/<total>, piece n of the image, from 0
//	traceparent, tracestate, baggage   W3C trace context, lower case
//
// Sight-Deadline, Sight-Accepted, Sight-Reply, Sight-Metadata, Sight-Callback,
// Sight-Report and the trace context are copied from a message to the next one of its
// job ([v1.CopiedHeaders]). No other header is copied.
//
// # Delivery
//
// Inside the mesh, messages are delivered at least once. Clients get one stored result
// for each job. A service publishes its message, waits for the acknowledgement of the
// stream, and only then acknowledges the message that it consumed. An image that
// cannot be processed has a result too: status "failed" with a problem.
//
// # Compatibility
//
// Within v1, field names, header names, subjects and problem codes are only added.
// Readers ignore what they do not know. Golden messages are added to testdata/v1 and
// never edited.
package contracts
