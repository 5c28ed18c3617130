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

// small files hold few batches.
const small = 16 * block

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

// framed leaves room for the head.
func framed(body []byte) []byte { return append(make([]byte, Head, Head+len(body)), body...) }

func fill(t testing.TB, j *Journal, n int) {
	t.Helper()
	for range n {
		want := j.Last() + 1
		seq, at, err := j.Append(framed(body(want)))
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
		j := open(t, dir, small)
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
	j := open(t, dir, small)
	var taken uint64
	for range 30 {
		fill(t, j, 37)
		taken = j.Last() - 5
		if err := j.Release(taken); err != nil {
			t.Fatal(err)
		}
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*")); len(files) > 4+keptFiles {
		t.Errorf("%d files are left: %q", len(files), files)
	}
	last := j.Last()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = open(t, dir, small)
	if got := replay(t, j, taken); got != last {
		t.Errorf("ends at %d, want %d", got, last)
	}
	fill(t, j, 50)
}

func TestReleasedPlace(t *testing.T) {
	j := open(t, t.TempDir(), small)
	_, at, err := j.Append(framed([]byte("first")))
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if _, _, err := j.Append(framed(bytes.Repeat([]byte{1}, 100))); err != nil {
			t.Fatal(err)
		}
	}
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
// are there. What lies behind the cut is what the file held before: zeros, or
// batches of its former use.
func TestTornTail(t *testing.T) {
	for _, used := range []bool{false, true} {
		dir := t.TempDir()
		j := open(t, dir, 1<<16)
		first := uint64(0)
		for used && first < 40 {
			fill(t, j, 10)
			first = j.Last() - 2
			if err := j.Release(first); err != nil {
				t.Fatal(err)
			}
		}
		fill(t, j, 3)
		name := j.path(j.current().number)
		before, from := readFile(t, name), j.end
		fill(t, j, 1)
		after, last := readFile(t, name), j.Last()
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		for cut := from; cut < from+Head+int64(len(body(last))); cut++ {
			torn := append(bytes.Clone(after[:cut]), before[cut:]...)
			if err := os.WriteFile(name, torn, 0o600); err != nil {
				t.Fatal(err)
			}
			j := open(t, dir, 1<<16)
			want := last - 1
			if end := from + Head + int64(len(body(last))); bytes.Equal(torn[:end], after[:end]) { // what lay there ends alike
				want = last
			}
			if got := replay(t, j, first); got != want {
				t.Fatalf("used %v, cut at %d: ends at %d, want %d", used, cut, got, want)
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Something like a batch in a sender's payload, behind a torn one, is not taken
// for a batch that was acknowledged: its sender does not know the file's salt.
// The control does.
func TestForgedBatch(t *testing.T) {
	for _, knows := range []bool{false, true} {
		dir := t.TempDir()
		j := open(t, dir, small)
		fill(t, j, 2)
		var salt [saltSize]byte
		if knows {
			salt = j.current().salt
		}
		forged := seal(framed([]byte("forged")), salt, 99)
		payload := append(make([]byte, block-Head), forged...)
		at := j.end
		if _, _, err := j.Append(framed(payload)); err != nil {
			t.Fatal(err)
		}
		name := j.path(1)
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		torn := readFile(t, name)
		torn[at+Head] ^= 1
		if err := os.WriteFile(name, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := Open(Config{Dir: dir, Segment: small})
		if knows != errors.Is(err, ErrDamaged) {
			t.Errorf("knows %v: %v", knows, err)
		}
		if err == nil {
			_ = j.Close()
		}
	}
}

// A journal is opened with the database that it was made with.
func TestForeign(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, small)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir, Segment: small, ID: [16]byte{1}}); !errors.Is(err, ErrForeign) {
		t.Errorf("got %v", err)
	}
	if j, err := Open(Config{Dir: dir, Segment: small}); err != nil {
		t.Errorf("control: %v", err)
	} else {
		_ = j.Close()
	}
}

// While somebody copies the folder nothing is released, and what he reads is
// whole; afterwards it is.
func TestHold(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, small)
	fill(t, j, 50)
	release, err := Hold(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Release(45); err != nil {
		t.Fatal(err)
	}
	last := uint64(7)
	err = ReadAfter(dir, [16]byte{}, last, func(seq uint64, got []byte) error {
		if last++; seq != last || !bytes.Equal(got, body(seq)) {
			return fmt.Errorf("batch %d: %q", seq, got)
		}
		return nil
	})
	if err != nil || last != 50 {
		t.Errorf("read up to %d, %v", last, err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if err := j.Release(45); err != nil {
		t.Fatal(err)
	}
	nothing := func(uint64, []byte) error { return nil }
	if err := ReadAfter(dir, [16]byte{}, 7, nothing); !errors.Is(err, ErrDamaged) {
		t.Errorf("released batches were read: %v", err)
	}
}

// losing is a disk that loses its power: what was not synced is then as it was.
type losing struct {
	realDisk
	undo []func() error
}

func (d *losing) WriteAt(f *os.File, p []byte, at int64) error {
	old := make([]byte, len(p))
	n, _ := f.ReadAt(old, at)
	d.undo = append(d.undo, func() error { return d.realDisk.WriteAt(f, old[:n], at) })
	return d.realDisk.WriteAt(f, p, at)
}

func (d *losing) Sync(f *os.File) error {
	d.undo = nil
	return d.realDisk.Sync(f)
}

func (d *losing) losePower(t *testing.T) {
	t.Helper()
	for i := len(d.undo) - 1; i >= 0; i-- {
		if err := d.undo[i](); err != nil {
			t.Fatal(err)
		}
	}
	d.undo = nil
}

// What Append has returned for survives the loss of power. With syncing off, it
// does not: the test can see the difference.
func TestPowerLoss(t *testing.T) {
	for _, unsafe := range []bool{false, true} {
		dir, disk := t.TempDir(), new(losing)
		j, err := Open(Config{Dir: dir, Segment: 1 << 20, Disk: disk, UnsafeNoSync: unsafe})
		if err != nil {
			t.Fatal(err)
		}
		fill(t, j, 20)
		disk.losePower(t)
		_ = j.Close()
		last := uint64(0)
		if j, err = Open(Config{Dir: dir, Segment: 1 << 20}); err == nil {
			last = replay(t, j, 0)
			_ = j.Close()
		}
		if (last == 20) == unsafe {
			t.Errorf("syncing off %v: %d of 20 are left, %v", unsafe, last, err)
		}
	}
}

// Any damage to a batch that others follow is refused, wherever it is.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, small)
	fill(t, j, 60)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "segment-*"))
	if err != nil || len(names) < 3 {
		t.Fatalf("%d files, %v", len(names), err)
	}
	control := open(t, dir, small)
	if last := replay(t, control, 0); last != 60 {
		t.Fatalf("the control ends at %d", last)
	}
	if err := control.Close(); err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		whole, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []int{0, 10, 30, 40, headerSize - 1, block, block + 5, block + 12, block + Head, 3*block + Head} {
			bad := bytes.Clone(whole)
			bad[at] ^= 1
			if err := os.WriteFile(name, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if j, err := Open(Config{Dir: dir, Segment: small}); !errors.Is(err, ErrDamaged) {
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
	if _, err := Open(Config{Dir: dir, Segment: small}); !errors.Is(err, ErrDamaged) {
		t.Errorf("a file is missing: %v", err)
	}
}

// The database and the journal must belong together.
func TestReplayRefuses(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, small)
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

// fullDisk fails while it is told to: a write of which a part arrives, or a sync.
type fullDisk struct {
	realDisk
	write, sync bool
}

func (d *fullDisk) WriteAt(f *os.File, p []byte, at int64) error {
	if d.write {
		_ = d.realDisk.WriteAt(f, p[:len(p)/2], at)
		return errors.New("no space left on device")
	}
	return d.realDisk.WriteAt(f, p, at)
}

func (d *fullDisk) Sync(f *os.File) error {
	if d.sync {
		return errors.New("no space left on device")
	}
	return d.realDisk.Sync(f)
}

// A disk that is full for a while fails what is written then, and nothing after it. What
// failed is not found again, even where its sync failed after all of it had arrived and
// the batch that came next went into another file.
func TestFullForAWhile(t *testing.T) {
	for name, full := range map[string]fullDisk{"write": {write: true}, "sync": {sync: true}} {
		t.Run(name, func(t *testing.T) {
			dir, disk := t.TempDir(), &fullDisk{}
			cfg := Config{Dir: dir, Segment: small, Disk: disk}
			j, err := Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			fill(t, j, 3)
			*disk = full
			for range 3 {
				if _, _, err := j.Append(framed([]byte("failed"))); !errors.Is(err, ErrFailed) {
					t.Fatalf("on a full disk: %v", err)
				}
			}
			*disk = fullDisk{}
			large := bytes.Repeat([]byte("x"), small-2*block) // fits no file that was begun
			seq, _, err := j.Append(framed(large))
			if err != nil || seq != 4 {
				t.Fatalf("when there is room again: batch %d, %v", seq, err)
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			if j, err = Open(cfg); err != nil {
				t.Fatal(err)
			}
			defer j.Close()
			var last []byte
			n := 0
			err = j.Replay(0, func(_ uint64, _ Place, body []byte) error { n, last = n+1, bytes.Clone(body); return nil })
			if err != nil || n != 4 || !bytes.Equal(last, large) {
				t.Errorf("%d batches, the last one of %d bytes, %v", n, len(last), err)
			}
		})
	}
}

// A batch that failed is erased before anything else is written, not only overwritten:
// else a crash behind a shorter one could show it.
func TestFailedBatchIsErased(t *testing.T) {
	dir, disk := t.TempDir(), &fullDisk{}
	cfg := Config{Dir: dir, Segment: small, Disk: disk}
	j, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, j, 3)
	disk.sync = true
	if _, _, err := j.Append(framed([]byte("failed"))); !errors.Is(err, ErrFailed) {
		t.Fatalf("on a full disk: %v", err)
	}
	if err := j.Mend(); !errors.Is(err, ErrFailed) {
		t.Errorf("mended on a full disk: %v", err)
	}
	disk.sync = false
	if err := j.Mend(); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if j, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if j.Last() != 3 {
		t.Errorf("the journal ends at batch %d, want 3", j.Last())
	}
}

// Whatever a segment holds, opening it ends without a panic, and what is accepted
// is accepted again.
func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	j := open(f, dir, small)
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
		j, err := Open(Config{Dir: dir, Segment: small})
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
		if j, err = Open(Config{Dir: dir, Segment: small}); err != nil {
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
				seq, _, err := j.Append(framed(data))
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
