// Package send is the bulk sender. It sends folders of images to a mesh and
// writes the outcomes, one line of JSON for each image.
//
// It adapts the number of images in flight to the latency, waits as long as the
// mesh requests, and retries transient errors. A run can be stopped at any time.
// A resumed run does not send the images with an outcome in the file.
package send
