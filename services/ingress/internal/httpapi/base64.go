package httpapi

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"unicode/utf8"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// decodeBase64 decodes an image in base64, in the standard or the URL alphabet, with or without padding. It skips
// blanks, line breaks, and the prefix of a data URL. It first decodes a value that is still percent-encoded: some
// clients escape a form twice, and base64 has no percent sign. The problem names the first wrong character, counted
// from 1 in the decoded field. decodeBase64 overwrites data.
func decodeBase64(data []byte, field string) ([]byte, error) {
	data, bad := unescape(data)
	if bad > 0 {
		return nil, invalidBase64(field, "character %d begins an incomplete percent-encoding", bad)
	}
	start, err := skipDataURL(data, field)
	if err != nil {
		return nil, err
	}
	text, padded := data[start:start], false // in place: what is kept is never longer than what was read
	for i, c := range data[start:] {
		switch {
		case isBlank(c):
			continue
		case c == '=':
			padded = true
			continue
		case padded:
			return nil, invalidBase64(field, "character %d follows the padding", start+i+1)
		case c == '-':
			c = '+'
		case c == '_':
			c = '/'
		case !isBase64(c):
			wrong, _ := utf8.DecodeRune(data[start+i:])
			return nil, invalidBase64(field, "character %d is %q", start+i+1, wrong)
		}
		text = append(text, c)
	}
	out := make([]byte, base64.RawStdEncoding.DecodedLen(len(text)))
	n, err := base64.RawStdEncoding.Decode(out, text)
	if err != nil { // every character is valid, so that one is missing
		return nil, invalidBase64(field, "it ends after %d characters, which is one too many or too few", len(text))
	}
	return out[:n], nil
}

func invalidBase64(field, format string, args ...any) error {
	return v1.NewProblem(v1.InvalidBody, field+" is not base64: "+format, args...).WithField(field)
}

func isBlank(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// isBase64 reports whether a character belongs to the standard alphabet.
func isBase64(c byte) bool {
	return c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '+' || c == '/'
}

// skipDataURL returns where the base64 begins: after the prefix of a data URL, such as data:image/png;base64, in upper
// or lower case, or at 0 when there is no prefix.
func skipDataURL(data []byte, field string) (int, error) {
	const scheme = "data:"
	text := bytes.TrimLeftFunc(data, func(r rune) bool { return r < utf8.RuneSelf && isBlank(byte(r)) })
	if len(text) < len(scheme) || !strings.EqualFold(string(text[:len(scheme)]), scheme) {
		return 0, nil
	}
	prefix, encoded, found := bytes.Cut(text, []byte(","))
	if !found {
		return 0, v1.NewProblem(v1.InvalidBody, "%s is a data URL without a comma", field).WithField(field)
	}
	coding := prefix[bytes.LastIndexByte(prefix, ';')+1:]
	if !strings.EqualFold(string(bytes.TrimSpace(coding)), "base64") {
		return 0, v1.NewProblem(v1.InvalidBody, "%s is a data URL that is not base64", field).WithField(field)
	}
	return len(data) - len(encoded), nil
}

// keepPlus escapes the plus signs of base64 in a web form that a client has not escaped, which otherwise become
// blanks. It keeps those of a value in which the client has escaped others: they are blanks.
func keepPlus(form string) string {
	pairs := strings.Split(form, "&")
	for i, pair := range pairs {
		if value, ok := strings.CutPrefix(pair, base64Field+"="); ok && !plusIsBlank([]byte(value)) {
			pairs[i] = strings.ReplaceAll(pair, "+", "%2B")
		}
	}
	return strings.Join(pairs, "&")
}

// plusIsBlank reports whether a plus sign in an escaped value stands for a blank: the value has an escaped plus sign.
func plusIsBlank(escaped []byte) bool {
	return bytes.Contains(escaped, []byte("%2B")) || bytes.Contains(escaped, []byte("%2b"))
}

// unescape decodes the percent-encoding of data in place. It returns data as it is when data has no percent sign. bad
// is the first character of an incomplete encoding, counted from 1, or 0.
func unescape(data []byte) (out []byte, bad int) {
	if bytes.IndexByte(data, '%') < 0 {
		return data, 0
	}
	blank := plusIsBlank(data)
	out = data[:0]
	for i := 0; i < len(data); i++ {
		c := data[i]
		switch {
		case c == '+' && blank:
			c = ' '
		case c == '%':
			var decoded [1]byte
			if i+2 >= len(data) {
				return nil, i + 1
			}
			if _, err := hex.Decode(decoded[:], data[i+1:i+3]); err != nil {
				return nil, i + 1
			}
			c = decoded[0]
			i += 2
		}
		out = append(out, c)
	}
	return out, 0
}
