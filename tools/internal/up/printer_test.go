package up

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPrinter_Render(t *testing.T) {
	t.Parallel()
	record := `{"time":"2026-11-20T12:34:56.789012Z","level":"WARN","msg":"job failed",` +
		`"service":"detect","instance":"x","job":"j1","code":"damaged","detail":"it is broken","n":3,"span_id":"s"}`
	for _, tt := range []struct {
		name  string
		color bool
		line  string
		want  string
	}{
		{"a record", false, record, `12:34:56.789 detect   WARN  job failed code=damaged detail="it is broken" job=j1 n=3`},
		{"in colour", true, record, "12:34:56.789 \x1b[33mdetect  \x1b[0m \x1b[31mWARN \x1b[0m " +
			"job failed code=damaged detail=\"it is broken\" job=j1 n=3"},
		{"a panic", false, "panic: oh no", "detect   panic: oh no"},
		{"a list", false, `{"level":"INFO","msg":"m","a":[1,"x"]}`, `detect   INFO  m a="[1,\"x\"]"`},
	} {
		if got := (&printer{color: tt.color}).render("detect", tt.line); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	traced := (&printer{tracePrefix: "http://127.0.0.1:16686/trace/"}).render("detect",
		`{"level":"WARN","msg":"job failed","trace_id":"4bf9"}`)
	if want := "detect   WARN  job failed trace=http://127.0.0.1:16686/trace/4bf9"; traced != want {
		t.Errorf("a line with a trace: got %q, want %q", traced, want)
	}
	var b bytes.Buffer
	p := newPrinter(&b, true)
	p.line("detect", record+"\n")
	if got, want := b.String(), record+"\n"; got != want {
		t.Errorf("the JSON line is printed as %q, want %q", got, want)
	}
	if p.color {
		t.Error("JSON lines are coloured")
	}
	b.Reset()
	newPrinter(&b, false).line("up", "plain\n")
	if got, want := strings.TrimSpace(b.String()), "up       plain"; got != want {
		t.Errorf("the plain line is printed as %q, want %q", got, want)
	}
}

func TestPrinter_ColourOnlyOnTerminal(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	t.Setenv("NO_COLOR", "")
	if !newPrinter(terminal, false).color {
		t.Error("text on a terminal has no colour")
	}
	if newPrinter(terminal, true).color {
		t.Error("JSON on a terminal has colour")
	}
	if newPrinter(file, false).color {
		t.Error("text in a file has colour")
	}
	t.Setenv("NO_COLOR", "1")
	if newPrinter(terminal, false).color {
		t.Error("text on a terminal has colour with NO_COLOR=1")
	}
}
