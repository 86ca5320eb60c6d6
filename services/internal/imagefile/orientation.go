package imagefile

// exifPrefix precedes the TIFF structure of EXIF in a JPEG segment (Exif 2.32, section
// 4.7.2).
var exifPrefix = []byte("Exif\x00\x00")

// exifOrientation returns the orientation in EXIF data, 1 to 8; 1 if the data is invalid.
func exifOrientation(exif []byte) int {
	tags, _ := readTIFFDirectory(exif)
	return validOrientation(tags[tagOrientation])
}

func validOrientation(o uint32) int {
	if o < 1 || o > 8 {
		return 1
	}
	return int(o)
}
