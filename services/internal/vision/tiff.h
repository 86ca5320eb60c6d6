#include <stddef.h>
#include <stdint.h>

#define SIGHT_TIFF_MESSAGE 400

// Decodes the first image of a TIFF of width x height pixels into pixels of red, green,
// blue and alpha, one byte each, with the colours multiplied by alpha. The orientation is
// not applied. Returns 0, -1 when libtiff does not support this kind of image, or -2 when
// its data cannot be read. message is the first error, or empty when there was none; there
// can be an error in an image that was decoded.
int sight_tiff_decode(const unsigned char *data, size_t size, uint32_t *pixels, int width, int height,
                      char message[SIGHT_TIFF_MESSAGE]);
