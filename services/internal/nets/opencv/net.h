// A C interface to OpenCV's networks. C++ exceptions do not leave it: a function that
// fails returns 0 and writes the reason, at most size bytes, to why.
#ifndef SIGHTMESH_NET_H
#define SIGHTMESH_NET_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sightmesh_net sightmesh_net;

// sightmesh_opencv_version returns the version of the library, such as 4.6.0.
const char *sightmesh_opencv_version(void);

// sightmesh_net_onnx and sightmesh_net_caffe read a network from memory.
sightmesh_net *sightmesh_net_onnx(const char *weights, size_t length, char *why, size_t size);
sightmesh_net *sightmesh_net_caffe(const char *config, size_t config_length, const char *weights, size_t length,
                                   char *why, size_t size);
void sightmesh_net_close(sightmesh_net *net);

// sightmesh_net_outputs returns the number of outputs.
size_t sightmesh_net_outputs(const sightmesh_net *net);
const char *sightmesh_net_output_name(const sightmesh_net *net, size_t output);

// sightmesh_net_run copies the input and computes all outputs.
int sightmesh_net_run(sightmesh_net *net, const float *data, const int *shape, int dimensions, char *why, size_t size);

// sightmesh_net_output returns the numbers of an output, valid until the next run, and its
// shape, which has sightmesh_net_output_dimensions elements.
int sightmesh_net_output_dimensions(const sightmesh_net *net, size_t output);
const float *sightmesh_net_output(const sightmesh_net *net, size_t output, const int **shape);

#ifdef __cplusplus
}
#endif

#endif
