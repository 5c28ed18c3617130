// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"valise/internal/testenv"
)

// built is the folder of the commands, made once.
var built struct {
	sync.Once
	dir string
	err error
}

func TestMain(m *testing.M) {
	status := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(status)
}

// soak runs the command as `make soak` does, and returns its last line, and what it said
// before.
func soak(t *testing.T, args ...string) (verdict, log string) {
	t.Helper()
	for what, debianPackage := range map[string]string{
		"pcscd": "pcscd", "/usr/lib*/pcsc/drivers/serial/libifdvpcd.so": "vsmartcard-vpcd", "softhsm2-util": "softhsm2",
		"/usr/libexec/p11-kit/p11-kit-server": "p11-kit", "/usr/lib/postgresql/*/bin/initdb": "postgresql", "/usr/lib*/*/pkcs11/p11-kit-client.so": "p11-kit-modules", "/dev/fuse": "fuse3",
	} {
		testenv.Need(t, what, debianPackage)
	}
	build(t)
	var out, errs bytes.Buffer
	for i, arg := range args { // a second build of the programs has the same code
		if arg == "-next" {
			args[i+1] = built.dir
		}
	}
	cmd := exec.Command(filepath.Join(built.dir, "soak"), append([]string{"-bin", built.dir, "-keep"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	verdict, log = strings.TrimSpace(out.String()), errs.String()
	if ok := strings.HasPrefix(verdict, "soak: ok: "); ok != (err == nil) || !ok && !strings.HasPrefix(verdict, "soak: failed: ") {
		t.Fatalf("%v: %s\n%s", err, verdict, log)
	}
	t.Cleanup(func() {
		if dir := kept(log); dir != "" && !t.Failed() {
			os.RemoveAll(dir)
		}
	})
	return verdict, log
}

// build makes the commands.
func build(t *testing.T) {
	t.Helper()
	built.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "vk"); built.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-o", built.dir+"/", "./cmd/...", "./soak/...")
		cmd.Dir = testenv.Root(t)
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
}

var keptFolder = regexp.MustCompile(`soak: everything is in (\S+)`)

// kept is the folder that a run has left.
func kept(log string) string {
	if m := keptFolder.FindStringSubmatch(log); m != nil {
		return m[1]
	}
	return ""
}

// The short form of `make soak`: each kind of fault once, some at the same time. Then the
// judge is put to the test: what is taken from this run's records, put in, exchanged
// or altered, it must find.
func TestShortSoak(t *testing.T) {
	t.Parallel()
	verdict, log := soak(t, "-for", "10s")
	t.Log(verdict)
	if !regexp.MustCompile(`^soak: ok: [1-9]\d* acknowledged, 0 lost, 0 duplicated, 0 out of order, 0 undecryptable, \d+ faults of \d+ kinds$`).MatchString(verdict) {
		t.Fatalf("%s\n%s", verdict, log)
	}
	dir := filepath.Join(kept(log), "soak")
	for name, sabotage := range map[string]func(lines [][]byte, i, k int) [][]byte{
		"dropped":    func(lines [][]byte, i, _ int) [][]byte { return append(lines[:i:i], lines[i+1:]...) },
		"duplicated": func(lines [][]byte, i, _ int) [][]byte { return append(lines[:i+1:i+1], lines[i:]...) },
		"swapped":    func(lines [][]byte, i, k int) [][]byte { lines[i], lines[k] = lines[k], lines[i]; return lines },
		"corrupted": func(lines [][]byte, i, _ int) [][]byte {
			lines[i] = bytes.Replace(lines[i], []byte(" in duo, number "), []byte(" in duo, numbers "), 1)
			return lines
		},
	} {
		t.Run(name, func(t *testing.T) {
			copied := t.TempDir()
			if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			// bob's device and what it displays of alice in their conversation: two lines of it.
			i, k := 0, 0
			for _, file := range []string{"bob/messages.jsonl", "bob.observed.jsonl"} {
				path := filepath.Join(copied, file)
				data, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				lines := bytes.SplitAfter(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))
				lines[len(lines)-1] = append(lines[len(lines)-1], '\n')
				if k == 0 {
					i, k = two(t, lines)
				}
				out := bytes.Join(sabotage(lines, i, k), nil)
				if err := os.WriteFile(path, out, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			out, err := exec.Command(filepath.Join(built.dir, "check-soak"), copied).Output()
			if err == nil || !bytes.HasPrefix(out, []byte("soak: failed: ")) {
				t.Errorf("%v: %s", err, out)
			}
			t.Logf("%.200s", out)
		})
	}
}

// two finds two texts of alice to bob.
func two(t *testing.T, lines [][]byte) (i, k int) {
	t.Helper()
	var found []int
	for n, line := range lines {
		var ev struct{ Kind, Text string }
		if err := json.Unmarshal(line, &ev); err != nil {
			t.Fatal(err)
		}
		if ev.Kind == "message" && strings.HasPrefix(ev.Text, "alice in duo, ") {
			found = append(found, n)
		}
	}
	if len(found) < 4 {
		t.Fatalf("bob's device shows %d texts of alice", len(found))
	}
	return found[len(found)/2], found[len(found)/2+1]
}

// The control: the disk answers the syncs of the last act and keeps nothing. Nobody but the
// judge can notice that, and it must.
func TestLyingDiskFails(t *testing.T) {
	t.Parallel()
	verdict, log := soak(t, "-for", "0s", "-disk", "lying")
	t.Log(verdict)
	if !regexp.MustCompile(`^soak: failed: [1-9]\d* acknowledged, [1-9]\d* lost, 0 duplicated, 0 out of order, 0 undecryptable, 1 faults of 1 kinds: \w+ never displayed `).MatchString(verdict) {
		t.Errorf("%s\n%s", verdict, log)
	}
}

// With three nodes on PostgreSQL, too, each kind of fault loses nothing, an exchange of all
// nodes one after the other among them, and the
// judge finds what a lying disk does: all that is missing was written in the last act,
// when the server's disk answered its syncs and kept nothing.
func TestPostgres(t *testing.T) {
	t.Parallel()
	verdict, log := soak(t, "-for", "1s", "-store", "postgres", "-nodes", "3", "-next", "", "-disk", "lying")
	t.Log(verdict)
	if !regexp.MustCompile(`^soak: failed: [1-9]\d* acknowledged, [1-9]\d* lost, 0 duplicated, 0 out of order, 0 undecryptable, \d+ faults of \d+ kinds( \(longest pause of a client \d+\.\d s\))?: \w+ never displayed `).MatchString(verdict) {
		t.Fatalf("%s\n%s", verdict, log)
	}
	for _, kind := range []string{"database killed", "database cut off", "UDP closed", "gateway drained", "rolling upgrade"} {
		if !strings.Contains(log, kind) {
			t.Errorf("no fault %q\n%s", kind, log)
		}
	}
	last := lastWords(t, filepath.Join(kept(log), "soak", "operations.jsonl"), log)
	for line := range strings.Lines(log) {
		if evidence, ok := strings.CutPrefix(line, "check-soak: "); ok {
			m := regexp.MustCompile(`^\w+ never displayed (\w+), `).FindStringSubmatch(evidence)
			if m == nil || !last[m[1]] {
				t.Errorf("not of the last act: %s", evidence)
			}
		}
	}
}

var spoken = regexp.MustCompile(`last words: (\d+) messages`)

// lastWords lists the ids of the messages of the last act: the last that were sent.
func lastWords(t *testing.T, operations, log string) map[string]bool {
	t.Helper()
	data, err := os.ReadFile(operations)
	m := spoken.FindStringSubmatch(log)
	if err != nil || m == nil {
		t.Fatalf("%v\n%s", err, log)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	ids := map[string]bool{}
	for _, line := range lines[max(0, len(lines)-n):] {
		var op struct{ ID string }
		if err := json.Unmarshal(line, &op); err != nil {
			t.Fatal(err)
		}
		ids[op.ID] = true
	}
	return ids
}
