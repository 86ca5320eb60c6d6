// Package lane is the protocol between a worker and a lane, a child process that runs
// native code and models. A lane program can be written in any language; this package is
// for programs in Go. Package lanetest tests whether a program follows the protocol.
//
// # Transport
//
// The worker starts the program with one end of a connected stream socket (AF_UNIX) as
// file descriptor 3. Both sides send frames over it. Standard input is empty. What the
// program writes to standard output and standard error is kept for the log. Its
// environment has OMP_THREAD_LIMIT=1.
//
// A frame is two big-endian 32-bit lengths, the facts (one JSON object), and the pixels:
//
//	| len(facts) uint32 | len(pixels) uint32 | facts ... | pixels ... |
//
// # Conversation
//
//	worker → lane   start      protocol, stage, and the settings of each pipeline
//	lane → worker   ready      for each pipeline: its models, or why it cannot serve
//	worker → lane   detect     one image (stage detect)
//	lane → worker   detected   regions, and the pixels of their crops
//	worker → lane   classify   crops of one image (stage classify)
//	lane → worker   classified labels, text and words of each crop
//	worker → lane   draw       one image and the regions to draw on it
//	lane → worker   drawn      the image with the regions, encoded
//	lane → worker   failed     instead of detected, classified or drawn: code and detail
//
// Only the built-in lane of detect gets requests to draw. A lane in Go that can draw is a
// [Drawer].
//
// A lane processes one request at a time and replies with the ID of the request. When it
// dies, the worker fails the job of the image and starts another process. A lane must end
// when the socket reaches end of file, also during a request. The worker kills it
// (SIGKILL) when a request exceeds its timeout or the process exceeds its memory limit.
package lane
