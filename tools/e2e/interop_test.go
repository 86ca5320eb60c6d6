//go:build interop

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sightmesh/sightmesh/contracts/client"
	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// TestInteropNode uses the mesh from a program in JavaScript.
func TestInteropNode(t *testing.T) {
	m := start(t, nil)
	schemas := filepath.Join(root(t), "contracts", "schema", "v1")
	for _, r := range runNodeJS(t, "interop.mjs", m.nats, "FACE", "faces", schemas) {
		switch {
		case r.Status != v1.Done:
			t.Errorf("result %+v: status %s, want done", r, r.Status)
		case len(r.Regions) != 1:
			t.Errorf("result %+v: %d regions, want 1", r, len(r.Regions))
		}
	}
}

// TestInteropWebSocket uses the mesh over NATS on WebSocket, as a web page does.
func TestInteropWebSocket(t *testing.T) {
	up := &upRunner{args: []string{"up", "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--nats-ws", "127.0.0.1:0",
		"--data", t.TempDir(), "--log", "json", "--sample", "none", "--lanes", "1"}}
	startMesh(t, up, nil)
	found, ok := up.out.search(regexp.MustCompile(`^nats-ws (\S+)$`), responseTimeout)
	if !ok {
		t.Fatal("up does not print the address of WebSockets")
	}
	results := runNodeJS(t, "websocket.mjs", found[1], "FACE", "faces")
	for _, r := range results {
		switch {
		case r.Status != v1.Done:
			t.Errorf("result %+v: status %s, want done", r, r.Status)
		case len(r.Regions) != 1:
			t.Errorf("result %+v: %d regions, want 1", r, len(r.Regions))
		}
	}
	if page := results[1].Metadata["page"]; page != "3" {
		t.Errorf("the second result has the metadata page %q, want 3", page)
	}
}

// runNodeJS runs a program of the folder node and returns the two results that it prints.
// The argument FACE is replaced by the path of the sample face.
func runNodeJS(t *testing.T, program string, args ...string) []v1.Result {
	t.Helper()
	dir := filepath.Join(root(t), "tools", "e2e", "node")
	install := exec.Command("npm", "ci", "--no-fund", "--no-audit")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("install the client: %v\n%s", err, out)
	}
	face := filepath.Join(t.TempDir(), "face.jpg")
	if err := os.WriteFile(face, sampleFace(t), 0o600); err != nil {
		t.Fatal(err)
	}
	args[slices.Index(args, "FACE")] = face
	cmd := exec.Command("node", append([]string{program}, args...)...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", program, err, stderr.Bytes())
	}
	var results []v1.Result
	for line := range bytes.Lines(out) {
		var r v1.Result
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%s: %v: %s", program, err, line)
		}
		results = append(results, r)
	}
	if len(results) != 2 {
		t.Fatalf("%s prints %s, want 2 results", program, out)
	}
	return results
}

// postgres is a PostgreSQL server from Debian's packages.
type postgres struct {
	t    *testing.T
	bin  string
	dir  string
	cred *syscall.Credential // the user postgres when the test runs as root, which PostgreSQL rejects
	cmd  *exec.Cmd
}

func startPostgres(t *testing.T) *postgres {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	switch {
	case err != nil:
		t.Fatal(err)
	case len(found) == 0:
		t.Fatal("PostgreSQL is not installed; make interop installs it")
	}
	dir, err := os.MkdirTemp("", "sightmesh-pg")
	if err != nil {
		t.Fatal(err)
	}
	p := &postgres{t: t, bin: filepath.Dir(found[len(found)-1]), dir: dir}
	t.Cleanup(func() {
		p.stop()
		os.RemoveAll(dir)
	})
	if os.Getuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err, err2, os.Chown(dir, int(uid), int(gid))); err != nil {
			t.Fatal(err)
		}
		p.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	initdb := p.command("initdb", "-D", dir+"/data", "-U", "sight", "--auth=trust", "-E", "UTF8", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	p.start()
	return p
}

func (p *postgres) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, name), args...)
	cmd.Dir = p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.cred, Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (p *postgres) start() {
	p.t.Helper()
	p.cmd = p.command("postgres", "-D", p.dir+"/data", "-k", p.dir, "-c", "listen_addresses=", "-c", "fsync=off")
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	eventually.Succeeds(p.t, time.Minute, func() error { _, err := p.query("select 1"); return err })
}

// stop ends the server immediately and closes every connection.
func (p *postgres) stop() {
	if p.cmd == nil {
		return
	}
	p.cmd.Process.Signal(syscall.SIGQUIT) // it may have ended
	p.cmd.Wait()                          // the error is expected
	p.cmd = nil
}

func (p *postgres) url() string {
	return "postgres://sight@/postgres?host=" + p.dir + "&connect_timeout=2"
}

// query returns the rows of a query as text.
func (p *postgres) query(sql string) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), responseTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.url())
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (string, error) {
		v, err := r.Values()
		return strings.Trim(fmt.Sprint(v), "[]"), err
	})
}

func (p *postgres) await(what, sql, want string) {
	p.t.Helper()
	eventually.Succeeds(p.t, 2*time.Minute, func() error {
		got, err := p.query(sql)
		if err != nil {
			return err
		}
		if s := strings.Join(got, "; "); s != want {
			return fmt.Errorf("%s: %s, want %s", what, s, want)
		}
		return nil
	})
}

// TestInteropPostgres checks that each result is written exactly once, also when
// instances of results are killed, and that results come without delay while the
// database is stopped.
func TestInteropPostgres(t *testing.T) {
	db := startPostgres(t)
	m := start(t, []string{"SIGHTMESH_POSTGRES=" + db.url()})
	m.join(t, "results")
	face := sampleFace(t)
	const each = 20
	post := func() {
		t.Helper()
		for range each {
			if a := m.post(t, "?pipeline=faces", face); a.status != http.StatusOK {
				t.Fatalf("got %v, want 200", a)
			}
		}
	}
	post()
	db.await("written by two replicas",
		"select count(*), count(distinct sha256), count(*) filter (where status = 'done') from results", "20 1 20")

	var posting sync.WaitGroup
	for range 3 { // kill an instance of results while it writes a batch
		posting.Go(func() {
			for range 5 {
				m.tryPost("?pipeline=faces", face) // counted in the table
			}
		})
		var pid int
		eventually.Succeeds(t, responseTimeout, func() error { // results restarts
			pids := m.pids(t, "results")
			if len(pids) == 0 {
				return errors.New("results does not run")
			}
			pid = pids[0]
			return nil
		})
		kill(t, pid)
	}
	posting.Wait()
	eventually.Succeeds(t, responseTimeout, func() error {
		got, err := db.query("select count(*) >= 35 from results")
		if err == nil && got[0] != "true" {
			err = errors.New("the table has fewer than 35 results")
		}
		return err
	})

	before, err := db.query("select count(*) from results")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(before[0])
	if err != nil {
		t.Fatal(err)
	}
	db.stop()
	begin := time.Now()
	post()
	t.Logf("%d images took %v without the database", each, time.Since(begin).Round(time.Millisecond))
	db.start()
	db.await("caught up", "select count(*) from results", strconv.Itoa(n+each))

	// A result that does not fit the table, a second result of a job, and a message
	// that is no result do not affect other results.
	nc := m.connect(t)
	nul := []byte(`{"id":"nul","pipeline":"text","status":"done","regions":[],"text":"a\u0000b"}`)
	if err := nc.Publish(subject.Results("text", "nul"), nul); err != nil {
		t.Fatal(err)
	}
	db.await("a text with NUL", "select body->>'text' from results where id = 'nul'", "a\ufffdb")
	for _, msg := range []struct{ job, body string }{
		{"nul", `{"id":"nul","pipeline":"text","status":"done","regions":[],"text":"again"}`},
		{"poison", `no JSON`},
		{"wide", `{"id":"wide","pipeline":"text","status":"done","image":{"width":3000000000,"height":1}}`}, // no int4
		{"last", `{"id":"last","pipeline":"text","status":"done",
			"regions":[{"label":"text","score":1,"box":{},"fraction":{}}]}`},
	} {
		if err := nc.Publish(subject.Results("text", msg.job), []byte(msg.body)); err != nil {
			t.Fatal(err)
		}
	}
	db.await("what comes after poison", "select label, score from labels where result = 'last'", "text 1")
	db.await("what came first", "select body->>'text' from results where id = 'nul'", "a\ufffdb")

	hours, err := db.query(`select date_trunc('hour', stored_at) is not null, label, count(*)
		from results join labels on labels.result = results.id
		where label = 'face' group by date_trunc('hour', stored_at), label order by 1`)
	switch {
	case err != nil:
		t.Errorf("read the labels per hour: %v", err)
	case len(hours) == 0:
		t.Error("no labels per hour")
	case !strings.HasPrefix(hours[0], "true face "):
		t.Errorf("the first row of labels per hour is %q, want it to begin with %q", hours[0], "true face ")
	}
}

// TestInteropGo uses the mesh with the Go client.
func TestInteropGo(t *testing.T) {
	m := start(t, nil)
	c, err := client.New(m.connect(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), responseTimeout)
	defer cancel()
	r, err := c.Analyze(ctx, "faces", sampleFace(t))
	switch {
	case err != nil:
		t.Errorf("analyze: %v", err)
	case len(r.Regions) != 1:
		t.Errorf("analyze: %+v: %d regions, want 1", r, len(r.Regions))
	}
	var p *v1.Problem
	if _, err := c.Analyze(ctx, "faces", []byte("no image")); !errors.As(err, &p) || p.Code != v1.UnsupportedType {
		t.Errorf("analyze a text file: %v, want the problem %s", err, v1.UnsupportedType)
	}
	job, err := c.Submit(ctx, "text", subject.Bulk, samplePage(t))
	if err != nil {
		t.Fatal(err)
	}
	switch r, err := c.Await(ctx, job); {
	case err != nil:
		t.Errorf("await: %v", err)
	case r.Status != v1.Done:
		t.Errorf("await: %+v: status %s, want done", r, r.Status)
	case r.ID != job:
		t.Errorf("await: %+v: ID %s, want %s", r, r.ID, job)
	case r.Text == nil:
		t.Errorf("await: %+v: no text", r)
	}
}
