#include <opencv2/core.hpp>

extern "C" void sightmesh_single_thread(void) { cv::setNumThreads(1); }
