package up

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// printer writes the log lines of the children: as text with the name of the service first, or as unchanged JSON.
type printer struct {
	mu    sync.Mutex
	w     io.Writer
	json  bool
	color bool
	// tracePrefix is what the address of a trace begins with; empty for none. It is set
	// before the first line is printed.
	tracePrefix string
}

func newPrinter(w io.Writer, asJSON bool) *printer {
	f, isFile := w.(*os.File)
	color := isFile && !asJSON && os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(f.Fd()))
	return &printer{w: w, json: asJSON, color: color}
}

// Write prints a log line of up. It makes a printer the output of a logger.
func (p *printer) Write(b []byte) (int, error) {
	p.line("up", string(b))
	return len(b), nil
}

// line prints one line of a service.
func (p *printer) line(service, line string) {
	line = strings.TrimRight(line, "\n")
	if !p.json {
		line = p.render(service, line)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintln(p.w, line)
}

// colors has the colour of each service, as the number of a terminal sequence.
var colors = map[string]string{
	"ingress": "36", "detect": "33", "classify": "35", "results": "32", "up": "34", "jaeger": "37",
}

// render formats a JSON line as text. Any other line, such as a line of a panic, follows the name of the service
// unchanged.
func (p *printer) render(service, line string) string {
	head := fmt.Sprintf("%-8s", service)
	if p.color {
		head = "\x1b[" + colors[service] + "m" + head + "\x1b[0m"
	}
	var rec map[string]any
	if json.Unmarshal([]byte(line), &rec) != nil {
		return head + " " + line
	}
	var b strings.Builder
	if t, err := time.Parse(time.RFC3339Nano, formatValue(rec["time"])); err == nil {
		b.WriteString(t.Format("15:04:05.000") + " ")
	}
	level := formatValue(rec["level"])
	if shown := fmt.Sprintf("%-5s", level); p.color && (level == "WARN" || level == "ERROR") {
		b.WriteString(head + " \x1b[31m" + shown + "\x1b[0m " + formatValue(rec["msg"]))
	} else {
		b.WriteString(head + " " + shown + " " + formatValue(rec["msg"]))
	}
	if id := formatValue(rec["trace_id"]); id != "" && p.tracePrefix != "" {
		delete(rec, "trace_id")
		rec["trace"] = p.tracePrefix + id
	}
	// These fields are printed above, or only programs need them.
	for _, k := range []string{"time", "level", "msg", "service", "instance", "span_id"} {
		delete(rec, k)
	}
	keys := make([]string, 0, len(rec))
	for k := range rec {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		fmt.Fprintf(&b, " %s=%s", k, quote(formatValue(rec[k])))
	}
	return b.String()
}

// formatValue returns a string as it is, and any other value as JSON. It returns "" for nil.
func formatValue(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case float64:
		return fmt.Sprintf("%v", v)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}

func quote(s string) string {
	if s == "" || strings.ContainsAny(s, " \"=\n") {
		return fmt.Sprintf("%q", s)
	}
	return s
}
