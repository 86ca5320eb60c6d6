#include <stddef.h>
#include <stdint.h>

#define SIGHT_TIFF_MESSAGE 400

// Decodes the first image of a TIFF of width x height pixels as it is stored, not
// turned, into pixels of red, green, blue and alpha, one byte each, the colours
// multiplied by alpha. Returns 0, or -1 when libtiff does not read the kind of image, or
// -2 when its data cannot be read. message is the first error, which there may be in
// an image that was read too; it is empty when there was none.
int sight_tiff_decode(const unsigned char *data, size_t size, uint32_t *pixels, int width, int height,
                      char message[SIGHT_TIFF_MESSAGE]);
