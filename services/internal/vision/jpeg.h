#include <stddef.h>

#define SIGHT_JPEG_MESSAGE 200 // JMSG_LENGTH_MAX of jpeglib.h

// What sight_jpeg_decode found.
typedef struct {
  int damaged;                        // data of the image is missing or wrong
  int row;                            // first row that is affected, or -1 if unknown
  char message[SIGHT_JPEG_MESSAGE];   // what libjpeg says about the damage or the failure
} sight_jpeg_report;

// Decodes a JPEG of width x height pixels into rows of blue, green and red
// bytes. Returns 0, or -1 when nothing can be decoded.
int sight_jpeg_decode(const unsigned char *data, size_t size, unsigned char *rows, int width, int height,
                      sight_jpeg_report *report);
