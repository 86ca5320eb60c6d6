// Package contracts is the page to read first: it says what travels through a
// sightmesh and what everybody who speaks to it may rely on.
//
// # The path of a picture
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
// them. A job is one picture on its way through one pipeline; its id is a
// token of every subject that carries something of it.
//
//	sight.v1.images.<pipeline>.<priority>.<job>        a picture, stream IMAGES
//	sight.v1.crops.<pipeline>.<priority>.<job>.<part>  1..K crops of it, stream CROPS
//	sight.v1.parts.<pipeline>.<job>.<part>             what was read in one CROPS message of several, stream PARTS
//	sight.v1.results.<pipeline>.<job>                  the answer, stream RESULTS, one message per job
//	sight.v1.quarantine.<stage>.<pipeline>.<job>       a picture that broke something, stream QUARANTINE
//	sight.v1.analyze.<pipeline>                        request-reply: picture in, answer out
//	sight.v1.lookup.<job>                              request-reply: the answer or the state of a job
//	sight.v1.draw                                      request-reply: an image with its regions drawn on it, in pieces
//	sight.v1.status.<service>                          request-reply: every instance of a service answers
//	sight.v1.cancel.<job>                              request-reply: drop a job
//	sight.v1.cancelled.<job>                           tells workers that a job was dropped
//	sight.v1.events.<job or report>                    what happens to it, told once
//	sight.v1.jobs.key.<sha256 of the key>              the job of an idempotency key, stream JOBS
//	sight.v1.jobs.callback.<job or report>             how its callback goes, stream JOBS
//	sight.v1.jobs.fetch.<job>                          how often the image was fetched in vain, stream JOBS
//	sight.v1.jobs.attempts.<stage>.<pipeline>.<job>.<part>
//	                                                   how often workers tried it, stream JOBS
//	sight.v1.callbacks.<job or report>                 a callback that waits to be sent, stream CALLBACKS
//	sight.v1.fetches.<pipeline>.<job>                  an image of a report that waits to be fetched, stream FETCHES
//	sight.v1.reports.<report>                          what a report asked for, stream REPORTS
//	sight.v1.reports.<report>.<done or failed>.<n>     the outcome of its image n
//	sight.v1.reports.<report>.finished                 every image has its outcome
//
// A request to a stream subject is answered by the stream's acknowledgement;
// who wants the answer uses sight.v1.analyze.
//
// # Bodies
//
// IMAGES carries the picture as it is: the bytes of a JPEG, PNG, WebP, BMP or
// TIFF file and nothing else, so that any publisher can put one there. CROPS
// carries one line of JSON ([v1.Crops]), a newline, and the pixels behind it.
// PARTS, RESULTS and the replies are JSON ([v1.Part], [v1.Result]). A message
// in RESULTS with the header Nats-Marker-Reason has no body: it says that an
// answer was there and is no longer kept.
//
// A request to draw is one line of JSON ([v1.DrawRequest]), a newline, and the
// image. Its reply is the drawn image in pieces of at most [v1.MaxPiece] bytes.
// Each piece but the last is a request itself: the next one comes once the client
// has answered it.
//
// # Headers
//
//	Nats-Msg-Id      <job>.<stage>[.<part>]: the stream drops a second publish of the same thing
//	Sight-Deadline   RFC 3339: the job is failed, and not worked on, after this moment,
//	                 which is at most 24 h after the image was stored
//	Sight-Accepted   RFC 3339: when the mesh took the job
//	Sight-Reply      subject to which the answer is published once it is stored
//	Sight-Metadata   JSON object of strings: comes back with the answer
//	Sight-Callback   URL that is called with the answer
//	Sight-Report     <report>/<n>/<total>: the job is image n of a report
//	Idempotency-Key  requests to analyze only: requests with the same key are one job
//	Sight-Priority, Sight-Min-Score, Sight-Labels, Sight-Top, Prefer, X-Sight-Meta-<name>
//	                 requests to analyze only: as the query and headers of HTTP
//	Sight-Piece      replies to draw only: <n>/<total>, piece n of the image, from 0
//	traceparent, tracestate, baggage   W3C trace context, lower case
//
// Only these travel from hop to hop; Nats-* headers of an incoming message are
// never copied.
//
// # Delivery
//
// At least once inside, one stored answer outside. Every hop publishes what
// follows, waits until the stream has acknowledged it, and only then
// acknowledges what it consumed. A picture that cannot be answered ends in an
// answer too: status "failed" with a problem.
//
// # How a version changes
//
// Field names, header names, subjects and problem codes are append-only within
// v1. Readers ignore what they do not know. The golden messages under
// testdata/v1 are added to and never edited.
package contracts
