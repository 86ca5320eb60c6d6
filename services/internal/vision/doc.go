// Package vision is what the lanes of detect and classify share of OpenCV:
// one thread, decoding into an upright image, and loading cascades.
//
// OpenCV ends the process where Go would return an error; code that uses this
// package runs in a lane. Matrices are native memory: who gets one closes it.
package vision
