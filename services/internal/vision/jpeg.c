#include "jpeg.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

// The handler of libjpeg's messages. An error leaves the decoder with longjmp. The first
// warning that means damage is stored in the report.
typedef struct {
  struct jpeg_error_mgr base; // must be first: libjpeg returns a pointer to it
  jmp_buf failed;
  sight_jpeg_report *report;
} handler;

static void on_error(j_common_ptr info) {
  handler *h = (handler *)info->err;
  if (!h->report->damaged) info->err->format_message(info, h->report->message);
  longjmp(h->failed, 1);
}

// is_damage returns 1 for warnings after which pixels are missing or wrong, and 0 for
// warnings that do not affect the image.
static int is_damage(int code) {
  switch (code) {
  case JWRN_JPEG_EOF:          // premature end of file
  case JWRN_HIT_MARKER:        // premature end of the data of a scan
  case JWRN_HUFF_BAD_CODE:
  case JWRN_ARITH_BAD_CODE:
  case JWRN_MUST_RESYNC:       // not the expected restart marker
  case JWRN_BOGUS_PROGRESSION:
  case JWRN_EXTRANEOUS_DATA:   // data that no pixel uses
    return 1;
  }
  return 0;
}

static void on_message(j_common_ptr info, int level) {
  if (level >= 0) return; // a trace message, not a warning
  info->err->num_warnings++;
  handler *h = (handler *)info->err;
  if (h->report->damaged || !is_damage(info->err->msg_code)) return;
  h->report->damaged = 1;
  info->err->format_message(info, h->report->message);
  // All data of a progressive image is read before the first row is output.
  if (info->is_decompressor && !((j_decompress_ptr)info)->progressive_mode)
    h->report->row = (int)((j_decompress_ptr)info)->output_scanline;
}

static void discard(j_common_ptr info) { (void)info; }

// Pixels of four components are CMYK: the amounts of ink. Adobe's programs store them
// inverted, and mark their files.
static void from_ink(unsigned char *to, const unsigned char *from, int width, int inverted) {
  for (int x = 0; x < width; x++, to += 3, from += 4) {
    int k = inverted ? from[3] : 255 - from[3];
    for (int i = 0; i < 3; i++) {
      int ink = inverted ? from[i] : 255 - from[i];
      to[2 - i] = (unsigned char)((ink * k + 127) / 255);
    }
  }
}

// lacks_scans returns 1 for a progressive image with coefficients that are missing, or of
// which some bits are missing.
static int lacks_scans(j_decompress_ptr info) {
  if (!info->progressive_mode || info->coef_bits == NULL) return 0;
  for (int c = 0; c < info->num_components; c++)
    for (int k = 0; k < DCTSIZE2; k++)
      if (info->coef_bits[c][k] != 0) return 1;
  return 0;
}

int sight_jpeg_decode(const unsigned char *data, size_t size, unsigned char *rows, int width, int height,
                      sight_jpeg_report *report) {
  struct jpeg_decompress_struct info;
  handler h;
  unsigned char *volatile inks = NULL;
  memset(&info, 0, sizeof info); // an error can occur before it is created
  memset(report, 0, sizeof *report);
  report->row = -1;
  h.report = report;
  info.err = jpeg_std_error(&h.base);
  h.base.error_exit = on_error;
  h.base.emit_message = on_message;
  h.base.output_message = discard;
  if (setjmp(h.failed)) {
    // An error after some rows is damage, too. The other rows become grey.
    int row = (int)info.output_scanline;
    jpeg_destroy_decompress(&info);
    free(inks);
    if (row == 0) return -1;
    memset(rows + (size_t)row * width * 3, 128, (size_t)(height - row) * width * 3);
    if (!report->damaged) report->row = row;
    report->damaged = 1;
    return 0;
  }
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, data, size);
  jpeg_read_header(&info, TRUE);
  if (info.num_components == 4) {
    info.out_color_space = JCS_CMYK;
    inks = malloc((size_t)info.image_width * 4);
    if (inks == NULL) ERREXIT1(&info, JERR_OUT_OF_MEMORY, 0);
  } else {
    info.out_color_space = JCS_EXT_BGR;
  }
  jpeg_start_decompress(&info);
  if ((int)info.output_width != width || (int)info.output_height != height) ERREXIT(&info, JERR_IMAGE_TOO_BIG);
  while (info.output_scanline < info.output_height) {
    unsigned char *row = rows + (size_t)info.output_scanline * width * 3;
    unsigned char *into = inks != NULL ? inks : row;
    jpeg_read_scanlines(&info, &into, 1);
    if (inks != NULL) from_ink(row, inks, width, info.saw_Adobe_marker);
  }
  if (!report->damaged && lacks_scans(&info)) {
    report->damaged = 1;
    strcpy(report->message, "Premature end of the scans of a progressive image");
  }
  jpeg_finish_decompress(&info);
  jpeg_destroy_decompress(&info);
  free(inks);
  return 0;
}
