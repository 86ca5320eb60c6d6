#include "tiff.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <tiffio.h>

// The file in memory that libtiff reads.
typedef struct {
  const unsigned char *data;
  toff_t size, at;
} source;

static tmsize_t source_read(thandle_t h, void *to, tmsize_t n) {
  source *s = (source *)h;
  if (s->at >= s->size || n <= 0) return 0;
  if ((toff_t)n > s->size - s->at) n = (tmsize_t)(s->size - s->at);
  memcpy(to, s->data + s->at, (size_t)n);
  s->at += (toff_t)n;
  return n;
}

static tmsize_t source_write(thandle_t h, void *from, tmsize_t n) {
  (void)h, (void)from, (void)n;
  return -1;
}

static toff_t source_seek(thandle_t h, toff_t to, int whence) {
  source *s = (source *)h;
  switch (whence) {
  case SEEK_CUR: to += s->at; break;
  case SEEK_END: to += s->size; break;
  }
  return s->at = to;
}

static int source_close(thandle_t h) {
  (void)h;
  return 0;
}

static toff_t source_size(thandle_t h) { return ((source *)h)->size; }

// libtiff has one message handler per process. wanted is where the calling thread
// wants the first message of its own call.
static __thread char *wanted;

static void keep(const char *module, const char *format, va_list args) {
  (void)module;
  if (wanted != NULL && wanted[0] == '\0') vsnprintf(wanted, SIGHT_TIFF_MESSAGE, format, args);
}

// Warnings are about tags, except those of libjpeg, which are about pixels.
static void keep_of_jpeg(const char *module, const char *format, va_list args) {
  if (module != NULL && strcmp(module, "JPEGLib") == 0) keep(module, format, args);
}

int sight_tiff_decode(const unsigned char *data, size_t size, uint32_t *pixels, int width, int height,
                      char message[SIGHT_TIFF_MESSAGE]) {
  source s = {data, size, 0};
  TIFFRGBAImage image;
  char why[1024] = ""; // the size that libtiff requires
  message[0] = '\0';
  wanted = message;
  TIFFSetErrorHandler(keep);
  TIFFSetWarningHandler(keep_of_jpeg);
  int result = -2;
  TIFF *tif = TIFFClientOpen("image", "rm", (thandle_t)&s, source_read, source_write, source_seek, source_close,
                             source_size, NULL, NULL);
  if (tif == NULL) goto done;
  if (!TIFFRGBAImageOK(tif, why) || !TIFFRGBAImageBegin(&image, tif, 1, why)) {
    snprintf(message, SIGHT_TIFF_MESSAGE, "%.390s", why);
    result = -1;
  } else {
    if ((int)image.width == width && (int)image.height == height) {
      image.orientation = image.req_orientation = ORIENTATION_TOPLEFT; // keep the pixels as stored
      if (TIFFRGBAImageGet(&image, pixels, image.width, image.height)) result = 0;
    }
    TIFFRGBAImageEnd(&image);
  }
  TIFFClose(tif);
done:
  wanted = NULL;
  return result;
}
