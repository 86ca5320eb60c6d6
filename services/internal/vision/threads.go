package vision

/*
#cgo pkg-config: opencv4
#cgo CXXFLAGS: --std=c++11
void sightmesh_single_thread(void);
*/
import "C"

// UseSingleThread makes OpenCV use only the calling thread. Each lane uses one thread: on two
// cores, two lanes with one thread each process more images than one lane with two. The
// environment variables of OpenMP and TBB do not limit OpenCV's threads.
func UseSingleThread() { C.sightmesh_single_thread() }
