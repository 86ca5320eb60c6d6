// Package vision is what the lanes of detect and classify share of OpenCV:
// one thread, decoding into an upright picture, and loading cascades. It is a
// module of its own so that no other sees gocv.
//
// OpenCV ends the process where Go would return an error; code that uses this
// package runs in a lane. Matrices are native memory: who gets one closes it.
package vision
