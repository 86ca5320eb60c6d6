// Package lane is the protocol between a worker service and a lane, the child
// process that holds native code and models. A lane can be written in any
// language; this package is for those in Go.
//
// # Transport
//
// The worker starts the program with one end of a connected stream socket
// (AF_UNIX) as file descriptor 3, and speaks frames over it. Standard input is
// empty; what the program writes to standard output and standard error is kept
// for the log. OMP_THREAD_LIMIT=1 is in its environment.
//
// A frame is two big-endian 32-bit lengths, then as many bytes of facts (one
// JSON object) and as many bytes of pixels:
//
//	| len(facts) uint32 | len(pixels) uint32 | facts ... | pixels ... |
//
// # Conversation
//
//	worker → lane   start      protocol, stage, and the settings of each pipeline
//	lane → worker   ready      for each pipeline: its models, or why it cannot serve
//	worker → lane   detect     one picture (stage detect)
//	lane → worker   detected   regions, and the pixels of their crops
//	worker → lane   classify   crops of one picture (stage classify)
//	lane → worker   classified what each crop is
//	worker → lane   draw       one image and the regions to draw on it
//	lane → worker   drawn      the image with the regions, encoded
//	lane → worker   failed     instead of detected, classified or drawn: code and detail
//
// Only the built-in lane of detect is asked to draw. A lane in Go that can is a
// [Drawer].
//
// A lane works on one request at a time and answers each with its id. It may
// die at any moment: the worker notices, reports the picture and starts
// another. It must end when the socket reaches end of file, even while it
// works. The worker ends it with SIGKILL when a request takes longer than it
// may or the process grows larger than it may.
package lane
