// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// items invents a record.
func items(t testing.TB, n int64) []Item {
	t.Helper()
	out := make([]Item, n)
	for i := range out {
		payload := fmt.Appendf(nil, "payload %d", i)
		e, err := NewEntry(Kind(1+i%4), payload, noon.Add(time.Duration(i)*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		out[i] = Item{int64(i), e, payload}
	}
	return out
}

func seq(list []Item) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for _, i := range list {
			if !yield(i, nil) {
				return
			}
		}
	}
}

func headOf(t testing.TB, list []Item) Head {
	t.Helper()
	var b Builder
	for _, i := range list {
		if err := b.Add(i.Entry.Leaf()); err != nil {
			t.Fatal(err)
		}
	}
	return b.Head()
}

// A Builder agrees with the tree that keeps every hash, at every size.
func TestBuilder(t *testing.T) {
	m, leaves := grow(t, 70)
	var b Builder
	for n := range int64(70) {
		if got, want := b.Head(), head(t, n, m); got != want {
			t.Fatalf("%d leaves: head %v, want %v", n, got, want)
		}
		fork := b.Clone()
		if err := errors.Join(b.Add(leaves[n]), fork.Add(Leaf{9})); err != nil {
			t.Fatal(err)
		}
		if n > 0 && fork.Head() == b.Head() {
			t.Fatal("a clone shares what it grows")
		}
	}
}

// writeCopy writes a copy of n leaves.
func writeCopy(t testing.TB, n int64) (dir string, list []Item, key ed25519.PrivateKey, v note.Verifier) {
	t.Helper()
	list = items(t, n)
	key, v = ledgerKey(t)
	dir = filepath.Join(t.TempDir(), "copy")
	if err := WriteCopy(dir, checkpoint(t, key, headOf(t, list)), seq(list)); err != nil {
		t.Fatal(err)
	}
	return dir, list, key, v
}

// What is written comes back, at sizes around those at which tiles fill up.
func TestCopy(t *testing.T) {
	for _, n := range []int64{0, 1, 255, 256, 257, 600} {
		dir, list, _, v := writeCopy(t, n)
		c, err := OpenCopy(dir)
		if err != nil {
			t.Fatal(err)
		}
		h, err := c.Open(v)
		if err != nil || h != headOf(t, list) || c.Claimed() != h || c.Origin() != origin {
			t.Fatalf("%d leaves: %v, %v", n, h, err)
		}
		check := c.CheckTiles()
		var got int64
		for i, err := range c.Items() {
			if err != nil {
				t.Fatal(err)
			}
			if want := list[got]; i.Index != got || *i.Entry != *want.Entry || !bytes.Equal(i.Payload, want.Payload) {
				t.Fatalf("item %d of %d: %+v, want %+v", got, n, i, want)
			}
			check.Add(i.Entry.Leaf())
			got++
		}
		if wrong := check.Finish(); got != n || len(wrong) > 0 {
			t.Errorf("%d items of %d; tiles: %v", got, n, wrong)
		}
		copySource(t, c, list)
	}
}

// copySource checks that a copy proves what it should.
func copySource(t *testing.T, c *Copy, list []Item) {
	t.Helper()
	n := int64(len(list))
	leaves, err := c.Leaves(t.Context(), 0, n)
	if err != nil || int64(len(leaves)) != n {
		t.Fatalf("%d leaves: %v", len(leaves), err)
	}
	stored := reader{t.Context(), c}
	for i := int64(0); i < n; i += 1 + n/7 {
		if leaves[i] != list[i].Entry.Leaf() {
			t.Errorf("leaf %d is another", i)
		}
		proof, err := ProveInclusion(n, i, stored)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckInclusion(c.Claimed(), i, leaves[i], proof); err != nil {
			t.Error(err)
		}
		growth, err := Grow(t.Context(), c, i)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckGrowth(headOf(t, list[:i]), c.Claimed(), growth.Proof); err != nil {
			t.Error(err)
		}
	}
	if _, err := c.Leaves(t.Context(), 0, n+1); err == nil {
		t.Error("a leaf too many was read")
	}
	if _, err := c.Hashes(t.Context(), []int64{Count(n)}); err == nil {
		t.Error("a hash too many was read")
	}
}

func TestWriteCopyRefuses(t *testing.T) {
	list := items(t, 5)
	key, _ := ledgerKey(t)
	h := headOf(t, list)
	swapped := slices.Clone(list)
	swapped[1], swapped[2] = swapped[2], swapped[1]
	broken := errors.New("the source broke")
	for name, c := range map[string]struct {
		h     Head
		items iter.Seq2[Item, error]
	}{
		"another tree": {Head{N: 5, Hash: Empty.Hash}, seq(list)},
		"too few":      {h, seq(list[:4])},
		"out of order": {h, seq(swapped)},
		"not from 0":   {h, seq(list[1:])},
		"an error":     {h, func(yield func(Item, error) bool) { yield(Item{}, broken) }},
		"no payload":   {h, seq([]Item{{Entry: list[0].Entry}})},
		"no entry":     {h, seq([]Item{{Payload: list[0].Payload}})},
	} {
		dir := t.TempDir()
		if err := WriteCopy(dir, checkpoint(t, key, c.h), c.items); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := OpenCopy(dir); !errors.Is(err, ErrCopy) {
			t.Errorf("%s: what was left opens: %v", name, err)
		}
	}
	dir := t.TempDir()
	if err := WriteCopy(dir, checkpoint(t, key, h), seq(list)); err != nil {
		t.Fatal(err)
	}
	if err := WriteCopy(dir, checkpoint(t, key, h), seq(list)); err == nil {
		t.Error("a copy was written over another")
	}
}

// Each way to damage a copy is noticed where it is read.
func TestDamagedCopies(t *testing.T) {
	const n = 300
	change := func(t *testing.T, name string, f func([]byte) []byte) {
		t.Helper()
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, f(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[at] ^= 1; return b }
	}
	entry := 2 + EntrySize
	for name, c := range map[string]struct {
		file       string
		f          func([]byte) []byte
		open, read bool // fails
		tiles      int  // wrong ones
	}{
		"untouched":           {"entries", func(b []byte) []byte { return b }, false, false, 0},
		"no checkpoint":       {"checkpoint", func([]byte) []byte { return nil }, true, false, 0},
		"long checkpoint":     {"checkpoint", func(b []byte) []byte { return append(b, make([]byte, MaxCheckpoint)...) }, true, false, 0},
		"entries cut":         {"entries", func(b []byte) []byte { return b[:len(b)-1] }, false, true, 0},
		"an entry taken out":  {"entries", func(b []byte) []byte { return b[entry:] }, false, true, 0},
		"an entry too many":   {"entries", func(b []byte) []byte { return append(b, b[:entry]...) }, false, true, 0},
		"huge entry":          {"entries", flip(0), false, true, 0},
		"unknown entry":       {"entries", flip(2), false, true, 0},
		"payloads cut":        {"payloads", func(b []byte) []byte { return b[:len(b)-1] }, false, true, 0},
		"a payload too many":  {"payloads", func(b []byte) []byte { return append(b, 0, 0, 0, 1, 'x') }, false, true, 0},
		"huge payload":        {"payloads", flip(0), false, true, 0},
		"empty payload":       {"payloads", func(b []byte) []byte { return append([]byte{0, 0, 0, 0}, b...) }, false, true, 0},
		"a hash":              {"tile/0/000", flip(77), false, false, 1},
		"a leaf":              {"tile/entries/001.p/44", flip(77), false, false, 1},
		"a tile cut":          {"tile/1/000.p/1", func(b []byte) []byte { return b[1:] }, false, false, 1},
		"a tile grown":        {"tile/0/001.p/44", func(b []byte) []byte { return append(b, 0) }, false, false, 1},
		"another entry, same": {"entries", flip(20), false, false, 4}, // leaf, hash, and what stands above
	} {
		t.Run(name, func(t *testing.T) {
			dir, _, _, _ := writeCopy(t, n)
			change(t, filepath.Join(dir, c.file), c.f)
			copied, err := OpenCopy(dir)
			if c.open != (err != nil) || err != nil && !errors.Is(err, ErrCopy) {
				t.Fatalf("opening: %v", err)
			}
			if err != nil {
				return
			}
			check := copied.CheckTiles()
			for item, e := range copied.Items() {
				if err = e; err == nil {
					check.Add(item.Entry.Leaf())
				}
			}
			if c.read != (err != nil) || err != nil && !errors.Is(err, ErrCopy) {
				t.Fatalf("reading: %v", err)
			}
			if wrong := check.Finish(); err == nil && (len(wrong) > 0) != (c.tiles > 0) {
				t.Errorf("wrong tiles: %v", wrong)
			}
		})
	}
}

// A copy is read as files: what a stranger's archive unpacks to may be a pipe or
// a link to somewhere else.
func TestCopyOfLinks(t *testing.T) {
	for _, name := range []string{"checkpoint", "entries", "payloads", "tile/0/000.p/3"} {
		dir, _, _, _ := writeCopy(t, 3)
		real := filepath.Join(t.TempDir(), "real")
		if err := os.Rename(filepath.Join(dir, name), real); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(real, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if err := readAll(dir); !errors.Is(err, ErrCopy) {
			t.Errorf("%s: %v, want ErrCopy", name, err)
		}
	}
}

// readAll reads everything in a copy.
func readAll(dir string) error {
	c, err := OpenCopy(dir)
	if err != nil {
		return err
	}
	check := c.CheckTiles()
	for i, err := range c.Items() {
		if err != nil {
			return err
		}
		check.Add(i.Entry.Leaf())
	}
	return errors.Join(check.Finish()...)
}

// FuzzCopy reads hostile files. What is accepted comes out as it was.
func FuzzCopy(f *testing.F) {
	dir, list, _, _ := writeCopy(f, 3)
	entries, errE := os.ReadFile(filepath.Join(dir, "entries"))
	payloads, errP := os.ReadFile(filepath.Join(dir, "payloads"))
	if err := errors.Join(errE, errP); err != nil {
		f.Fatal(err)
	}
	f.Add(entries, payloads, int64(len(list)))
	f.Add([]byte{0, 66}, []byte{0xff, 0xff, 0xff, 0xff}, int64(1)<<40)
	f.Fuzz(func(t *testing.T, entries, payloads []byte, size int64) {
		var e, p bytes.Buffer
		var failed error
		readItems(bytes.NewReader(entries), bytes.NewReader(payloads), max(0, min(size, 1<<20)), func(i Item, err error) bool {
			if failed = err; err != nil {
				return true
			}
			appendItem(&e, &p, i)
			return true
		})
		if failed == nil && (!bytes.Equal(e.Bytes(), entries) || !bytes.Equal(p.Bytes(), payloads)) {
			t.Errorf("%x %x come back as %x %x", entries, payloads, e.Bytes(), p.Bytes())
		}
	})
}

func appendItem(e, p *bytes.Buffer, i Item) {
	entry := i.Entry.Marshal()
	e.Write([]byte{0, byte(len(entry))})
	e.Write(entry)
	n := len(i.Payload)
	p.Write([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
	p.Write(i.Payload)
}

// The writer's tiles are those that package tlog cuts from the stored hashes.
func TestTilesAreTlogs(t *testing.T) {
	const n = 70_000 // three levels
	var (
		m    memory
		made = make(map[string][]byte)
	)
	tiles := tiler{put: func(t tile, data []byte) error { made[t.path()] = data; return nil }}
	for i := range int64(n) {
		leaf := Leaf{1, byte(i), byte(i >> 8), byte(i >> 16)}
		hashes, err := Append(i, leaf, m)
		if err != nil {
			t.Fatal(err)
		}
		m = append(m, hashes...)
		if err := tiles.add(leaf); err != nil {
			t.Fatal(err)
		}
	}
	if err := tiles.finish(); err != nil {
		t.Fatal(err)
	}
	want := tlog.NewTiles(tileHeight, 0, n)
	last := make(map[[2]int64]tlog.Tile) // NewTiles names a full tile's partial forms as well
	for _, tl := range want {
		if have := last[[2]int64{int64(tl.L), tl.N}]; tl.W > have.W {
			last[[2]int64{int64(tl.L), tl.N}] = tl
		}
	}
	for _, tl := range last {
		data, err := tlog.ReadTileData(tl, m)
		if err != nil {
			t.Fatal(err)
		}
		path := tile{tl.L, tl.N, tl.W}.path()
		if got, ok := made[path]; !ok || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, differs from tlog's", path, len(got))
		}
		delete(made, path)
	}
	for path := range made {
		if !bytes.HasPrefix([]byte(path), []byte("tile/entries/")) {
			t.Errorf("%s is no tile of tlog's", path)
		}
	}
	if len(made) != (n+tileWidth-1)/tileWidth {
		t.Errorf("%d entry bundles", len(made))
	}
}
