package chaos

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// Counts are the counts of a [Ledger] for one fault.
type Counts struct {
	Accepted int // jobs with an ID in a response
	Rejected int // responses that say that nothing, or perhaps nothing, was accepted
	// Unanswered counts the requests without a response. Their images may have become jobs.
	Unanswered int
	Expired    []string // accepted jobs whose outcome is deadline-exceeded
	// Stall is the longest time without an outcome, between the begin of the fault
	// and the end of the load.
	Stall  time.Duration
	Broken map[Guarantee][]string
	Codes  map[v1.Code]int // problem codes of the rejections
}

// A Row is the row of one fault.
type Row struct {
	Fault    string // description of the fault
	Topology string
	Test     string // name of the test that causes the fault
	// NotRun is the reason why the fault was not caused. The counts are then empty.
	NotRun string
	Counts
	// Recovery is the time from the end of the fault until every client has an outcome
	// of an image that it sent afterwards. 0 means that a client has none.
	Recovery time.Duration
}

// Passed reports whether no guarantee was violated.
func (r Row) Passed() bool { return r.NotRun == "" && len(r.Broken) == 0 }

var columns = []string{
	"fault", "topology", "accepted", "rejected", "no response", "expired", "lost", "duplicated", "changed", "wrong",
	"rejected but processed", "left over", "longest stall", "recovery", "verdict", "test",
}

func (r Row) cells() []string {
	if r.NotRun != "" {
		empty := make([]string, len(columns))
		for i := range empty {
			empty[i] = "–"
		}
		empty[0], empty[1], empty[len(empty)-2], empty[len(empty)-1] = r.Fault, r.Topology, "not run: "+r.NotRun, r.test()
		return empty
	}
	verdict := "passed"
	if !r.Passed() {
		verdict = "**failed**"
	}
	recovery := seconds(r.Recovery)
	if r.Recovery == 0 {
		recovery = "never"
	}
	cells := []string{r.Fault, r.Topology, fmt.Sprint(r.Accepted), fmt.Sprint(r.Rejected),
		fmt.Sprint(r.Unanswered), fmt.Sprint(len(r.Expired))}
	for _, g := range []Guarantee{Lost, Duplicated, Changed, Wrong, Ran, Pending} {
		n := fmt.Sprint(len(r.Broken[g]))
		if n != "0" {
			n = "**" + n + "**"
		}
		cells = append(cells, n)
	}
	return append(cells, seconds(r.Stall), recovery, verdict, r.test())
}

func (r Row) test() string {
	if r.Test == "" {
		return "–"
	}
	return "`" + r.Test + "`"
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// Markdown returns the table of the rows.
func Markdown(rows []Row) string {
	var b strings.Builder
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	line(columns)
	rule := make([]string, len(columns))
	for i := range rule {
		rule[i] = "---"
	}
	line(rule)
	for _, r := range rows {
		line(r.cells())
	}
	return b.String()
}

// Replace replaces the text between the comments "NAME: begin" and "NAME: end" of a
// Markdown file, and returns the new file.
func Replace(file []byte, name, text string) ([]byte, error) {
	begin, end := "<!-- "+name+": begin -->", "<!-- "+name+": end -->"
	before, rest, ok := bytes.Cut(file, []byte(begin))
	_, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		return nil, fmt.Errorf("no %s with a %s after it", begin, end)
	}
	var b bytes.Buffer
	b.Write(before)
	fmt.Fprintf(&b, "%s\n\n%s\n\n%s", begin, strings.TrimSpace(text), end)
	b.Write(after)
	return b.Bytes(), nil
}
