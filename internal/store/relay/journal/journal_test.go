// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func open(t testing.TB, dir string, segment int64) *Journal {
	t.Helper()
	j, err := Open(Config{Dir: dir, Segment: segment})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func body(seq uint64) []byte { return bytes.Repeat(fmt.Appendf(nil, "%d.", seq), int(seq%40)+1) }

func fill(t testing.TB, j *Journal, n int) {
	t.Helper()
	for range n {
		want := j.Last() + 1
		seq, at, err := j.Append(body(want))
		if err != nil || seq != want {
			t.Fatalf("batch %d: %d, %v", want, seq, err)
		}
		got := make([]byte, len(body(want)))
		if err := j.ReadAt(got, at); err != nil || !bytes.Equal(got, body(want)) {
			t.Fatalf("batch %d reads as %q, %v", want, got, err)
		}
	}
}

func replay(t testing.TB, j *Journal, after uint64) (last uint64) {
	t.Helper()
	last = after
	err := j.Replay(after, func(seq uint64, at Place, got []byte) error {
		if seq != last+1 || !bytes.Equal(got, body(seq)) {
			return fmt.Errorf("batch %d after %d: %q", seq, last, got)
		}
		again := make([]byte, len(got))
		if err := j.ReadAt(again, at); err != nil || !bytes.Equal(again, got) {
			return fmt.Errorf("batch %d at its place: %q, %w", seq, again, err)
		}
		last = seq
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return last
}

// Everything is there again, over several files, and numbers go on.
func TestThereAgain(t *testing.T) {
	dir := t.TempDir()
	for round := range uint64(5) {
		j := open(t, dir, 4096)
		if last := replay(t, j, 0); last != round*100 {
			t.Fatalf("round %d: %d batches", round, last)
		}
		fill(t, j, 100)
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Released files are used again, and what they held before never comes back.
func TestReleasedFilesAreUsedAgain(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, 4096)
	var taken uint64
	for range 30 {
		fill(t, j, 37)
		taken = j.Last() - 5
		if err := j.Release(taken); err != nil {
			t.Fatal(err)
		}
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*")); len(files) > 2+keptFiles {
		t.Errorf("%d files are left: %q", len(files), files)
	}
	last := j.Last()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = open(t, dir, 4096)
	if got := replay(t, j, taken); got != last {
		t.Errorf("ends at %d, want %d", got, last)
	}
	fill(t, j, 50)
}

func TestReleasedPlace(t *testing.T) {
	j := open(t, t.TempDir(), 4096)
	_, at, err := j.Append([]byte("first"))
	if err != nil {
		t.Fatal(err)
	}
	fill2 := func() {
		for range 200 {
			if _, _, err := j.Append(bytes.Repeat([]byte{1}, 100)); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill2()
	if err := j.ReadAt(make([]byte, 5), at); err != nil {
		t.Fatal(err)
	}
	if err := j.Release(j.Last()); err != nil {
		t.Fatal(err)
	}
	if err := j.ReadAt(make([]byte, 5), at); !errors.Is(err, ErrReleased) {
		t.Errorf("got %v", err)
	}
}

// A batch that a crash cut short, at whatever byte, is left out; those before it
// are there.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, 1<<16)
	fill(t, j, 9)
	before := j.end
	fill(t, j, 1)
	after := j.end
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "segment-0000000000000001")
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for cut := before; cut < after; cut++ {
		torn := bytes.Clone(whole)
		clear(torn[cut:])
		if err := os.WriteFile(name, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		j := open(t, dir, 1<<16)
		if last := replay(t, j, 0); last != 9 {
			t.Fatalf("cut at %d: ends at %d", cut, last)
		}
		fill(t, j, 2)
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Any damage to a batch that others follow is refused, wherever it is.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, 2048)
	fill(t, j, 60)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "segment-*"))
	if err != nil || len(names) < 3 {
		t.Fatalf("%d files, %v", len(names), err)
	}
	control := open(t, dir, 2048)
	if last := replay(t, control, 0); last != 60 {
		t.Fatalf("the control ends at %d", last)
	}
	if err := control.Close(); err != nil {
		t.Fatal(err)
	}
	for i, name := range names[:len(names)-1] {
		whole, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []int{segmentHeader, segmentHeader + 5, segmentHeader + 12, segmentHeader + recordHeader, 700} {
			bad := bytes.Clone(whole)
			bad[at] ^= 1
			if err := os.WriteFile(name, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if j, err := Open(Config{Dir: dir, Segment: 2048}); !errors.Is(err, ErrDamaged) {
				t.Errorf("file %d, byte %d: %v", i, at, err)
				if err == nil {
					_ = j.Close()
				}
			}
		}
		if err := os.WriteFile(name, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(names[1], filepath.Join(t.TempDir(), "away")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir, Segment: 2048}); !errors.Is(err, ErrDamaged) {
		t.Errorf("a file is missing: %v", err)
	}
}

// The database and the journal must belong together.
func TestReplayRefuses(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, 2048)
	fill(t, j, 60)
	nothing := func(uint64, Place, []byte) error { return nil }
	if err := j.Replay(61, nothing); !errors.Is(err, ErrDamaged) {
		t.Errorf("a database that is ahead: %v", err)
	}
	if err := j.Release(40); err != nil {
		t.Fatal(err)
	}
	if err := j.Replay(40, nothing); err != nil {
		t.Errorf("control: %v", err)
	}
	if err := j.Replay(1, nothing); !errors.Is(err, ErrDamaged) {
		t.Errorf("a database that is too far behind: %v", err)
	}
}

// Nothing is appended after a failed write: what is on disk is not known.
func TestFailedWrite(t *testing.T) {
	j := open(t, t.TempDir(), 1<<16)
	fill(t, j, 3)
	if err := j.segments[0].file.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, _, err := j.Append([]byte("x")); err == nil {
			t.Error("appended to a closed file")
		}
	}
}

// Whatever a segment holds, opening it ends without a panic, and what is accepted
// is accepted again.
func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	j := open(f, dir, 4096)
	fill(f, j, 5)
	_ = j.Close()
	good, err := os.ReadFile(filepath.Join(dir, "segment-0000000000000001"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good[:600])
	f.Add(good[:40])
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "segment-0000000000000001"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := Open(Config{Dir: dir, Segment: 4096})
		if err != nil {
			return
		}
		n := 0
		count := func(uint64, Place, []byte) error { n++; return nil }
		if err := j.Replay(j.segments[0].first-1, count); err != nil {
			t.Fatal(err)
		}
		first := n
		_ = j.Close()
		if j, err = Open(Config{Dir: dir, Segment: 4096}); err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		n = 0
		if err := j.Replay(j.segments[0].first-1, count); err != nil || n != first {
			t.Fatalf("%d batches, then %d, %v", first, n, err)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			j := open(b, b.TempDir(), 0)
			data := make([]byte, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				seq, _, err := j.Append(data)
				if err != nil {
					b.Fatal(err)
				}
				if seq%64 == 0 {
					if err := j.Release(seq); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
