package e2e

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// exitCase is a call of a program.
type exitCase struct {
	args   string
	code   int
	stdout string // a part of the standard output
	stderr string // a part of the standard error
}

// TestSightmesh_ExitCodes tests the row "sightmesh send" of shared/cases. The exit
// codes of every command are as documented.
func TestSightmesh_ExitCodes(t *testing.T) {
	empty := t.TempDir()
	image := filepath.Join(frameFolder(t, 1), "frame1.png")
	testExitCodes(t, "sightmesh", []exitCase{
		{"", 2, "", "sightmesh <command>"},
		{"--help", 0, "SUBCOMMANDS", ""},
		{"-h", 0, "SUBCOMMANDS", ""},
		{"--version", 0, "sightmesh ", ""},
		{"--nonsense", 2, "", "-nonsense"},
		{"nonsense", 2, "", `unknown command "nonsense"`},
		{"--version nonsense", 2, "", `unknown command "nonsense"`},

		{"up --help", 0, "-reserve", ""},
		{"up --nonsense", 2, "", "-nonsense"},
		{"up --lanes many", 2, "", "-lanes"},
		{"up nonsense", 2, "", "nonsense"},
		{"up --log xml", 2, "", "log"},
		{"up --results-age 1s", 2, "", "results-age"},
		{"up --sample none --nats nowhere --data " + filepath.Join(empty, "data"), 1, "", "nowhere"},

		{"setup --help", 0, "-replicas", ""},
		{"setup --nonsense", 2, "", "-nonsense"},
		{"setup --timeout soon", 2, "", "-timeout"},
		{"setup nonsense", 2, "", "nonsense"},
		{"setup --replicas 2", 2, "", "replicas"},
		{"setup --storage tape", 2, "", "storage"},
		{"setup --max-store 1", 2, "", "max-store"},
		{"setup --pipelines /nothing/here", 1, "", "/nothing/here"},
		{"setup --nats nats://127.0.0.1:1 --timeout 10ms", 1, "", "127.0.0.1:1"},

		{"send --help", 0, "-resume", ""},
		{"send " + image + " --help", 0, "-resume", ""},
		{"send --nonsense", 2, "", "-nonsense"},
		{"send " + image + " --nonsense", 2, "", "-nonsense"},
		{"send --attempts many " + image, 2, "", "-attempts"},
		{"send " + image + " --attempts many", 2, "", "-attempts"},
		{"send", 2, "", "name files"},
		{"send --resume " + image, 2, "", "--out"},
		{"send --attempts 0 " + image, 2, "", "attempts"},
		{"send --url ftp://x " + image, 2, "", "url"},
		{"send /nothing/here", 1, "", "/nothing/here"},
		{"send " + empty, 1, "", empty},
		{"send --url http://127.0.0.1:1 --attempts 1 " + image, 1, "", "failed"},

		{"bench --help", 0, "-rate", ""},
		{"bench --nonsense", 2, "", "-nonsense"},
		{"bench --rate fast " + image, 2, "", "-rate"},
		{"bench", 2, "", "name"},
		{"bench --concurrency -1 " + image, 2, "", "concurrency"},
		{"bench --rate -1 " + image, 2, "", "rate"},
		{"bench /nothing/here", 1, "", "/nothing/here"},
		{"bench --url http://127.0.0.1:1 --warmup 0s --duration 10ms " + image, 1, "", "a request failed"},

		{"bench floor --help", 0, "-bytes", ""},
		{"bench floor --nonsense", 2, "", "-nonsense"},
		{"bench floor nonsense", 2, "", "nonsense"},
		{"bench floor --storage tape", 2, "", "storage"},
		{"bench floor --concurrency -1", 2, "", "concurrency"},
		{"bench floor --nats nats://127.0.0.1:1", 1, "", "127.0.0.1:1"},

		{"models", 2, "", "models: no command"},
		{"models --help", 0, "pull", ""},
		{"models nonsense", 2, "", "nonsense"},
		{"models ls --help", 0, "-models", ""},
		{"models ls --models " + empty, 0, "yunet", ""},
		{"models ls --nonsense", 2, "", "-nonsense"},
		{"models ls nonsense", 2, "", "nonsense"},
		{"models pull --help", 0, "-from", ""},
		{"models pull", 2, "", "no model; sightmesh models ls"},
		{"models pull --nonsense", 2, "", "-nonsense"},
		{"models pull yunet --timeout soon", 2, "", "-timeout"},
		{"models pull nosuch --models " + empty, 2, "", `no model or set "nosuch"`},
		{"models pull yunet --models " + image, 1, "", image},
		{"models check --help", 0, "-lane-memory", ""},
		{"models check", 2, "", "no model"},
		{"models check --nonsense", 2, "", "-nonsense"},
		{"models check x --timeout 0s", 2, "", "timeout"},
		{"models check x --lane-memory 1", 2, "", "lane-memory"},
		{"models check " + empty + "/nosuch", 1, "", "the folder does not exist"},
		{"models bench --help", 0, "-images", ""},
		{"models bench", 2, "", "no model"},
		{"models bench x --images 0", 2, "", "images"},
		{"models bench " + empty + "/nosuch", 1, "", "the folder does not exist"},

		{"lane", 2, "", "lane: no command"},
		{"lane try --help", 0, "-settings", ""},
		{"lane try", 2, "", "IMAGE"},
		{"lane try --nonsense", 2, "", "-nonsense"},
		{"lane try --pipeline nosuch " + image, 2, "", "nosuch"},
		{"lane try /nothing/here " + image, 1, "", "/nothing/here"},
	})
}

// TestLanePrograms_ExitCodes checks that a lane program says what it is with --help, and what is wrong without a
// worker.
func TestLanePrograms_ExitCodes(t *testing.T) {
	for _, stage := range []string{"detect", "classify"} {
		testExitCodes(t, stage, []exitCase{
			{"lane --help", 0, "sightmesh lane try --stage " + stage + " --pipeline NAME IMAGE", ""},
			{"lane", 1, "", stage + " lane: open lane socket: file descriptor 3: "},
			{"lane image.png", 1, "", stage + ` lane: argument "image.png": want none`},
		})
	}
}

// testExitCodes calls a program once for each case.
func testExitCodes(t *testing.T, program string, cases []exitCase) {
	t.Helper()
	for _, tt := range cases {
		t.Run(program+" "+tt.args, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(binary(t, program), strings.Fields(tt.args)...)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			p, err := startProcess(cmd)
			if err != nil {
				t.Fatal(err)
			}
			<-p.done
			if code := exitCode(p.err); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if !strings.Contains(stdout.String(), tt.stdout) {
				t.Errorf("standard output has no %q:\n%s", tt.stdout, &stdout)
			}
			if !strings.Contains(stderr.String(), tt.stderr) {
				t.Errorf("standard error has no %q:\n%s", tt.stderr, &stderr)
			}
		})
	}
}
