package vision

/*
#cgo pkg-config: opencv4
#cgo CXXFLAGS: --std=c++11
void sightmesh_single_thread(void);
*/
import "C"

// SingleThread keeps OpenCV to the calling thread. A lane is one thread: two
// lanes of one thread each do more work on two cores than one lane of two, and
// the environment variables of OpenMP and TBB do not hold OpenCV back.
func SingleThread() { C.sightmesh_single_thread() }
