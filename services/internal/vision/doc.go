// Package vision contains the OpenCV code that the lanes of detect and classify share: it
// limits OpenCV to one thread, decodes files into upright images, makes the inputs of
// networks, and loads cascades.
//
// OpenCV ends the process where Go would return an error, so code that uses this package
// runs in a lane. Matrices are native memory: the receiver of a matrix closes it.
package vision
