// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"valise/internal/stage"
)

// The gateway's disk is gone, while one of two is away. Its operator restores the last
// backup and puts the files back that he copied after it, as the commands tell him. What
// had been acknowledged after the backup comes all the same, from the device that wrote
// it. A file that is in no copy is missing, which keeps nothing else back. Nothing comes
// twice, and both go on writing.
func TestGatewayRestored(t *testing.T) {
	t.Parallel()
	s := seed(t)
	w := newWorld(t, stage.Config{}, "alice", "bob")
	alice, bob := w.people[0], w.people[1]
	w.introduce(alice, bob)
	list := []*correspondence{{from: alice, to: bob}, {from: bob, to: alice}}
	for i, c := range list {
		c.rng = rand.New(rand.NewPCG(s, uint64(i)))
		w.write(c)
		w.last(c)
	}
	w.away(bob)
	w.write(list[0])
	w.writeFile(list[0])

	backup := filepath.Join(w.Dir, "backup")
	out, err := w.gateway.Command(w.ctx, "backup", "--out", backup)
	if err != nil || !strings.Contains(out, "blobs/") {
		t.Fatalf("%s%v", out, err)
	}
	blobs := filepath.Join(filepath.Dir(w.gateway.Database), "blobs")
	copied := filepath.Join(w.Dir, "blobs")
	if err := os.CopyFS(copied, os.DirFS(blobs)); err != nil {
		t.Fatal(err)
	}
	w.write(list[0])
	lost := filepath.Join(w.Dir, "lost.bin")
	if err := os.WriteFile(lost, []byte("nobody has copied this"), 0o600); err != nil {
		t.Fatal(err)
	}
	alice.must("send", bob.Address, "--file", lost)

	w.gateway.Process().Stop()
	if err := os.RemoveAll(filepath.Dir(w.gateway.Database)); err != nil {
		t.Fatal(err)
	}
	if out, err := w.gateway.Command(w.ctx, "restore", "--from", backup); err != nil {
		t.Fatalf("%s%v", out, err)
	}
	if err := errors.Join(os.CopyFS(blobs, os.DirFS(copied)), w.gateway.Start(w.ctx)); err != nil {
		t.Fatal(err)
	}
	w.back(bob)
	for _, c := range list {
		w.write(c)
		w.last(c)
	}
	for _, p := range w.people {
		p.told("restored")
	}
	w.judge(list)
	events, err := bob.events()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if missing := e.Kind == "file" && e.File.Name == "lost.bin"; e.File != nil && missing != (e.File.Missing == "file_gone") {
			t.Errorf("bob has of a file %+v", *e.File)
		}
	}
}

// writeFile sends a file of a correspondence.
func (w *world) writeFile(c *correspondence) {
	w.t.Helper()
	l, err := c.compose(8 * (1 + len(c.letters)))
	if err == nil {
		err = c.send(w.ctx, l)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// told waits for an event of a kind.
func (p *person) told(kind string) {
	p.w.t.Helper()
	p.w.until(p.Name+" to be told: "+kind, func() (bool, error) {
		list, err := p.events()
		for _, e := range list {
			if e.Kind == kind {
				return true, nil
			}
		}
		return false, err
	})
}
