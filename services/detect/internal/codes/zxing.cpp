#include "zxing.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <exception>
#include <memory>
#include <string>
#include <vector>

// With version 1.4, strings are UTF-8 only if this is defined.
#define ZX_USE_UTF8
#include <ZXing/ReadBarcode.h>
#if __has_include(<ZXing/Version.h>)
#include <ZXing/Version.h>
#else
#include <ZXing/ZXVersion.h>
#endif

// Version 2.2 renamed these types.
#if __has_include(<ZXing/ReaderOptions.h>)
using Options = ZXing::ReaderOptions;
#else
using Options = ZXing::DecodeHints;
#endif

struct sightmesh_codes {
    std::deque<std::string> strings; // what the codes point to
    std::vector<sightmesh_code> codes;
};

namespace {

// leastLines is the minimum number of scan lines that must agree on a bar code. With 2, the
// default, some noise is read as DataBar.
const int leastLines = 3;

Options options(ZXing::BarcodeFormats formats) {
    Options o;
    o.setFormats(formats);
    o.setMinLineCount(leastLines);
    o.setTryDownscale(false); // package codes creates the views
#if ZXING_VERSION_MAJOR >= 2
    o.setTryInvert(false);
    o.setTextMode(ZXing::TextMode::Plain);
#endif
    return o;
}

bool isText(ZXing::ContentType type) {
    return type == ZXing::ContentType::Text || type == ZXing::ContentType::GS1 ||
           type == ZXing::ContentType::ISO15434;
}

void add(sightmesh_codes &found, const ZXing::Result &r, const ZXing::Position &corners) {
    sightmesh_code code = {};
    found.strings.push_back(ZXing::ToString(r.format()));
    code.format = found.strings.back().c_str();
    found.strings.push_back(isText(r.contentType()) ? r.text() : std::string(r.bytes().begin(), r.bytes().end()));
    code.content = found.strings.back().data();
    code.length = found.strings.back().size();
    for (int i = 0; i < 4; i++) {
        code.corners[2 * i] = corners[i].x;
        code.corners[2 * i + 1] = corners[i].y;
    }
    found.codes.push_back(code);
}

void readAll(sightmesh_codes &found, const ZXing::ImageView &image, ZXing::BarcodeFormats formats) {
    for (const auto &r : ZXing::ReadBarcodes(image, options(formats)))
        if (r.isValid())
            add(found, r, r.position());
}

#if ZXING_VERSION_MAJOR < 2

// Bars is a bar code on which scan lines near each other agree.
struct Bars {
    ZXing::Result result;
    int count, first, last;                 // number of lines, first and last line
    int firstFrom, firstTo, lastFrom, lastTo; // position in the first and the last line
};

// readBars reads bar codes one scan line at a time. Version 1.4 ends the process, with an
// assertion in Result.cpp, when it reads an image with the same bar code twice.
void readBars(sightmesh_codes &found, const unsigned char *pixels, int width, int height, int stride, bool columns,
              ZXing::BarcodeFormats formats) {
    Options o = options(formats);
    o.setMinLineCount(1);
    o.setTryRotate(false);
    const int lines = columns ? width : height;
    const int step = std::max(1, lines / 1000);
    std::vector<Bars> all;
    for (int line = 0; line < lines; line += step) {
        const auto image = columns ? ZXing::ImageView(pixels + line, height, 1, ZXing::ImageFormat::Lum, 1, stride)
                                   : ZXing::ImageView(pixels + size_t(line) * stride, width, 1,
                                                      ZXing::ImageFormat::Lum, stride);
        for (auto &r : ZXing::ReadBarcodes(image, o)) {
            if (!r.isValid())
                continue;
            const int from = r.position()[0].x, to = r.position()[1].x, middle = (from + to) / 2;
            auto same = std::find_if(all.begin(), all.end(), [&](const Bars &b) {
                // As in the library, lines belong to one code if their distance is less than half
                // of their length.
                return b.result.format() == r.format() && b.result.bytes() == r.bytes() &&
                       2 * (line - b.last) < std::abs(to - from) && middle > std::min(b.lastFrom, b.lastTo) &&
                       middle < std::max(b.lastFrom, b.lastTo);
            });
            if (same == all.end())
                same = all.insert(all.end(), Bars{std::move(r), 0, line, 0, from, to, 0, 0});
            same->count++;
            same->last = line;
            same->lastFrom = from;
            same->lastTo = to;
        }
    }
    // A code that is read by mistake in the bars of another one has fewer lines.
    std::stable_sort(all.begin(), all.end(), [](const Bars &a, const Bars &b) { return a.count > b.count; });
    const auto at = [columns](int along, int line) {
        return columns ? ZXing::PointI{line, along} : ZXing::PointI{along, line};
    };
    for (const auto &b : all)
        if (b.count >= leastLines)
            add(found, b.result,
                {at(b.firstFrom, b.first), at(b.firstTo, b.first), at(b.lastTo, b.last), at(b.lastFrom, b.last)});
}

#endif

}  // namespace

extern "C" {

#define TEXT_OF(x) #x
#define VERSION_OF(major, minor, patch) TEXT_OF(major) "." TEXT_OF(minor) "." TEXT_OF(patch)

const char *sightmesh_codes_version(void) {
    return VERSION_OF(ZXING_VERSION_MAJOR, ZXING_VERSION_MINOR, ZXING_VERSION_PATCH);
}

sightmesh_codes *sightmesh_codes_read(const unsigned char *pixels, int width, int height, int stride,
                                      const char *formats, char *why, size_t size) {
    try {
        std::unique_ptr<sightmesh_codes> found(new sightmesh_codes);
        auto wanted = ZXing::BarcodeFormatsFromString(formats);
#if ZXING_VERSION_MAJOR < 2
        const auto bars = wanted & ZXing::BarcodeFormat::LinearCodes;
        wanted &= ZXing::BarcodeFormat::MatrixCodes;
        if (!bars.empty())
            for (bool columns : {false, true})
                readBars(*found, pixels, width, height, stride, columns, bars);
#endif
        if (!wanted.empty()) // an empty set would mean all formats
            readAll(*found, ZXing::ImageView(pixels, width, height, ZXing::ImageFormat::Lum, stride), wanted);
        return found.release();
    } catch (const std::exception &e) {
        std::snprintf(why, size, "%s", e.what());
    } catch (...) {
        std::snprintf(why, size, "an exception of an unknown type");
    }
    return nullptr;
}

const sightmesh_code *sightmesh_codes_list(const sightmesh_codes *codes, size_t *count) {
    *count = codes->codes.size();
    return codes->codes.data();
}

void sightmesh_codes_free(sightmesh_codes *codes) { delete codes; }

}  // extern "C"
