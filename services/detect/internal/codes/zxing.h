// ZXing-C++, version 1.4 or 2, behind a C interface that no C++ exception leaves.
#ifndef SIGHTMESH_ZXING_H
#define SIGHTMESH_ZXING_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

// sightmesh_code is a code that was read.
typedef struct {
    const char *format;  // a name of ZXing's
    const char *content; // UTF-8, or bytes as they are if they are no text
    size_t length;       // of content
    int corners[8];      // x and y of each
} sightmesh_code;

typedef struct sightmesh_codes sightmesh_codes;

// sightmesh_codes_version returns the version of ZXing-C++ that this was built with.
const char *sightmesh_codes_version(void);

// sightmesh_codes_read reads the codes of a grey image. formats has names of ZXing's
// with a | between them. A call that fails returns NULL and writes the reason, of at most
// size bytes, to why.
sightmesh_codes *sightmesh_codes_read(const unsigned char *pixels, int width, int height, int stride,
                                      const char *formats, char *why, size_t size);

// sightmesh_codes_list returns the codes, which live until sightmesh_codes_free.
const sightmesh_code *sightmesh_codes_list(const sightmesh_codes *codes, size_t *count);
void sightmesh_codes_free(sightmesh_codes *codes);

#ifdef __cplusplus
}
#endif

#endif
