// A C interface to ZXing-C++, version 1.4 or 2. C++ exceptions do not leave it.
#ifndef SIGHTMESH_ZXING_H
#define SIGHTMESH_ZXING_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

// sightmesh_code is a code that was read.
typedef struct {
    const char *format;  // ZXing's name
    const char *content; // UTF-8, or the raw bytes if they are not text
    size_t length;       // of content
    int corners[8];      // x and y of each corner
} sightmesh_code;

typedef struct sightmesh_codes sightmesh_codes;

// sightmesh_codes_version returns the version of ZXing-C++ that this was built with.
const char *sightmesh_codes_version(void);

// sightmesh_codes_read reads the codes in a grey image. formats has ZXing's names,
// separated by |. A call that fails returns NULL and writes the reason, at most size bytes,
// to why.
sightmesh_codes *sightmesh_codes_read(const unsigned char *pixels, int width, int height, int stride,
                                      const char *formats, char *why, size_t size);

// sightmesh_codes_list returns the codes, which are valid until sightmesh_codes_free.
const sightmesh_code *sightmesh_codes_list(const sightmesh_codes *codes, size_t *count);
void sightmesh_codes_free(sightmesh_codes *codes);

#ifdef __cplusplus
}
#endif

#endif
