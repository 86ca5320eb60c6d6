// Package send is the bulk sender: it has folders of images read by a mesh,
// and writes what came back, one line of JSON for each image.
//
// It finds by itself how many images to send at a time, waits when the mesh
// says so, tries again what passes, and can be stopped at any moment: what it
// wrote says where to go on, without an image being sent twice.
package send
