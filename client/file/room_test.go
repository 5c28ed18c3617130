// SPDX-License-Identifier: Apache-2.0

package file

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A folder's disk has to have room for what is missing, and some more; where nobody can
// tell, it is tried.
func TestRoomFor(t *testing.T) {
	for _, c := range []struct {
		need, free uint64
		known, ok  bool
	}{
		{10 << 30, 10<<30 + spare, true, true},
		{10 << 30, 10<<30 + spare - 1, true, false},
		{10 << 30, 0, false, true},
		{0, 0, true, true},
	} {
		err := roomFor("dir", c.need, func(string) (uint64, bool) { return c.free, c.known })
		var full *RoomError
		if ok := err == nil; ok != c.ok || !ok && (!errors.As(err, &full) || full.Need != c.need || full.Free != c.free) {
			t.Errorf("%d needed, %d free: %v", c.need, c.free, err)
		}
	}
	if free, ok := freeIn(t.TempDir()); !ok || free == 0 {
		t.Errorf("this disk has %d bytes free, %v", free, ok)
	}
}

// What an earlier attempt left was damaged on this disk: the file is fetched from the
// beginning, and is the one that was sent.
func TestDamagedPartIsFetchedAgain(t *testing.T) {
	data := content(3 * ChunkSize)
	p, sealed := measured(t, data)
	dir := t.TempDir()
	part := filepath.Join(dir, ".valise-"+hexPrefix(&p.Reference)+".part")
	damaged := bytes.Clone(data[:2*ChunkSize])
	damaged[77] ^= 1
	if err := os.WriteFile(part, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	path, err := Fetch(context.Background(), &p.Reference, dir, from(sealed), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the file differs, %v", err)
	}
}

// Large files are cut into large chunks, and bounds hold for both.
func TestLargeChunks(t *testing.T) {
	for size, want := range map[uint64]uint32{0: ChunkSize, largeFile: ChunkSize, largeFile + 1: LargeChunk, MaxSize: LargeChunk} {
		if got := chunkFor(size); got != want {
			t.Errorf("%d bytes are cut into %d", size, got)
		}
	}
}
