#include "net.h"

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include <opencv2/core.hpp>
#include <opencv2/dnn.hpp>

struct sightmesh_net {
    cv::dnn::Net net;
    std::vector<std::string> names;
    cv::Mat input;
    std::vector<cv::Mat> outputs;
};

const char *sightmesh_opencv_version(void) {
    static const std::string version = cv::getVersionString();
    return version.c_str();
}

namespace {

// guarded calls f and converts an exception into a message.
template <typename F>
auto guarded(char *why, size_t size, F f) -> decltype(f()) {
    try {
        return f();
    } catch (const std::exception &e) {
        std::snprintf(why, size, "%s", e.what());
    } catch (...) {
        std::snprintf(why, size, "an exception of an unknown type");
    }
    return 0;
}

sightmesh_net *prepared(cv::dnn::Net net) {
    if (net.empty())
        CV_Error(cv::Error::StsError, "the network has no layers");
    net.setPreferableBackend(cv::dnn::DNN_BACKEND_OPENCV);
    net.setPreferableTarget(cv::dnn::DNN_TARGET_CPU);
    sightmesh_net *n = new sightmesh_net;
    n->net = net;
    try {
        n->names = net.getUnconnectedOutLayersNames();
    } catch (...) {
        delete n;
        throw;
    }
    return n;
}

}  // namespace

extern "C" {

sightmesh_net *sightmesh_net_onnx(const char *weights, size_t length, char *why, size_t size) {
    return guarded(why, size, [=] { return prepared(cv::dnn::readNetFromONNX(weights, length)); });
}

sightmesh_net *sightmesh_net_caffe(const char *config, size_t config_length, const char *weights, size_t length,
                                   char *why, size_t size) {
    return guarded(why, size,
                   [=] { return prepared(cv::dnn::readNetFromCaffe(config, config_length, weights, length)); });
}

void sightmesh_net_close(sightmesh_net *net) { delete net; }

size_t sightmesh_net_outputs(const sightmesh_net *net) { return net->names.size(); }

const char *sightmesh_net_output_name(const sightmesh_net *net, size_t output) { return net->names[output].c_str(); }

int sightmesh_net_run(sightmesh_net *net, const float *data, const int *shape, int dimensions, char *why, size_t size) {
    return guarded(why, size, [=] {
        net->outputs.clear();
        // The network keeps its input, and the caller's numbers belong to Go: copy them.
        cv::Mat(dimensions, shape, CV_32F, const_cast<float *>(data)).copyTo(net->input);
        net->net.setInput(net->input);
        net->net.forward(net->outputs, net->names);
        for (cv::Mat &m : net->outputs) {
            if (m.type() != CV_32F)
                CV_Error(cv::Error::StsError, "an output is not of 32-bit floating point numbers");
            if (!m.isContinuous())
                m = m.clone();
        }
        if (net->outputs.size() != net->names.size())
            CV_Error(cv::Error::StsError, "the network has not computed all outputs");
        return 1;
    });
}

int sightmesh_net_output_dimensions(const sightmesh_net *net, size_t output) { return net->outputs[output].dims; }

const float *sightmesh_net_output(const sightmesh_net *net, size_t output, const int **shape) {
    const cv::Mat &m = net->outputs[output];
    *shape = m.size.p;
    return m.ptr<float>();
}

}  // extern "C"
