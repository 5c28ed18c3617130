// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"valise/internal/handbook"
	"valise/internal/handbook/land"
	"valise/internal/testenv"
)

// machines are those that the documents speak of.
var machines = []land.Machine{
	{Name: "authority", Hosts: []string{"enroll.interieur.example"}},
	{Name: "gateway", Hosts: []string{"gateway.interieur.example"}},
	{Name: "olga", Cards: 1},
	{Name: "omar", Cards: 1},
	{Name: "ada", Cards: 1},
	{Name: "alan", Cards: 1},
	{Name: "aude", Cards: 1},
	{Name: "nora", Cards: 1},
	{Name: "alice", Cards: 1},
	{Name: "bob", Cards: 1},
}

var listed = regexp.MustCompile(`(?m)^\| \[[^\]]+\]\(([a-z-]+\.md)\) \|`)

// documents are those of docs/, in the order of its index.
func documents(t *testing.T) (folder string, list []string) {
	t.Helper()
	folder = filepath.Join(testenv.Root(t), "docs")
	index, err := os.ReadFile(filepath.Join(folder, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range listed.FindAllStringSubmatch(string(index), -1) {
		list = append(list, match[1])
	}
	all, err := filepath.Glob(filepath.Join(folder, "*.md"))
	if err != nil || len(all) != len(list)+1 {
		t.Fatalf("docs/ has %d documents besides its index, which lists %d (%v)", len(all)-1, len(list), err)
	}
	return folder, append([]string{"README.md"}, list...)
}

// newLand makes the machines.
func newLand(t *testing.T, ctx context.Context, list []land.Machine) *land.Land {
	t.Helper()
	testenv.Need(t, "pcscd", "pcscd")
	testenv.Need(t, "/usr/lib*/pcsc/drivers/serial/libifdvpcd.so", "vsmartcard-vpcd")
	testenv.Need(t, "softhsm2-util", "softhsm2")
	testenv.Need(t, "ip", "iproute2")
	testenv.Need(t, "nsenter", "util-linux")
	index, err := os.ReadFile(filepath.Join(testenv.Root(t), "docs", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	table, err := handbook.ReadTable(index)
	if err != nil {
		t.Fatal(err)
	}
	c := land.Config{Bin: commands(t), Project: testenv.Root(t), Table: table, Machines: list}
	if os.Getenv("VALISE_SHOW") != "" {
		c.Patience = 6 * time.Second
	}
	l, err := land.New(ctx, c)
	if errors.Is(err, land.ErrForbidden) {
		testenv.Can(t, "machines of its own", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(l.Logs())
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// read reads a document, and complains of commands that nothing would run.
func read(t *testing.T, folder, name string) []*handbook.Step {
	t.Helper()
	blocks, err := handbook.Read(filepath.Join(folder, name))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks {
		b.Document = "docs/" + name
	}
	for _, complaint := range handbook.Stray(blocks) {
		t.Error(complaint)
	}
	steps, err := handbook.Steps(blocks)
	if err != nil {
		t.Fatal(err)
	}
	return steps
}

// TestDocuments types what stands in docs/, from the first document to the last, on
// machines of their own, and compares what is printed with what the documents say.
// VALISE_SHOW=1 goes on after a difference, to see what all of it prints.
func TestDocuments(t *testing.T) {
	t.Parallel()
	folder, list := documents(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	l := newLand(t, ctx, machines)
	played := 0
	for _, name := range list {
		for _, step := range read(t, folder, name) {
			if step.NotRun != "" {
				t.Logf("%s: not run: %s: %s", step.At, step.NotRun, step.Command)
				continue
			}
			if err := l.Play(ctx, step); err != nil {
				t.Error(err)
				if os.Getenv("VALISE_SHOW") == "" {
					return
				}
			}
			played++
		}
	}
	if played < 100 {
		t.Errorf("only %d commands were found in the documents", played)
	}
	t.Logf("%d commands and files of %s", played, strings.Join(list, ", "))
}
