// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// entries is a disk that knows which entries of the folder are on it.
type entries struct {
	realDisk
	durable map[string]bool // by path, as of the last SyncDir
	reused  int
	early   []string // files that were used again under a name that a loss of power would take back
}

func (d *entries) SyncDir(name string) error {
	if err := d.realDisk.SyncDir(name); err != nil {
		return err
	}
	list, err := filepath.Glob(filepath.Join(name, "*"))
	d.durable = make(map[string]bool)
	for _, path := range list {
		d.durable[path] = true
	}
	return err
}

func (d *entries) WriteAt(f *os.File, p []byte, at int64) error {
	if at == 0 && strings.HasPrefix(filepath.Base(f.Name()), "spare-0") {
		if d.reused++; !d.durable[f.Name()] {
			d.early = append(d.early, filepath.Base(f.Name()))
		}
	}
	return d.realDisk.WriteAt(f, p, at)
}

// A released file gets its next content only when its former name is gone for good: else a
// loss of power brings back the name of an old file with a new one's header, and a journal
// that nobody can read.
func TestReleasedNameIsGoneFirst(t *testing.T) {
	dir, disk := t.TempDir(), &entries{}
	j, err := Open(Config{Dir: dir, Segment: small, Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for range 10 {
		fill(t, j, 37)
		if err := j.Release(j.Last() - 5); err != nil {
			t.Fatal(err)
		}
	}
	if disk.reused == 0 || len(disk.early) > 0 {
		t.Errorf("%d files were used again, too early %q", disk.reused, disk.early)
	}
}

// A file that could not be begun is not forgotten: a disk that fails for a while must not
// be filled with files that nobody uses.
func TestFailedFileIsKept(t *testing.T) {
	dir, disk := t.TempDir(), &fullDisk{}
	j, err := Open(Config{Dir: dir, Segment: small, Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for range 5 {
		fill(t, j, 37)
		if err := j.Release(j.Last()); err != nil {
			t.Fatal(err)
		}
	}
	large := bytes.Repeat([]byte("x"), small-2*block)
	*disk = fullDisk{write: true}
	for range 10 {
		awaitSpare(t, j)
		if _, _, err := j.Append(framed(large)); err == nil {
			t.Fatal("it was written")
		}
	}
	*disk = fullDisk{}
	if _, _, err := j.Append(framed(large)); err != nil {
		t.Fatal(err)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*")); len(files) > 5+keptFiles {
		t.Errorf("%d files are left: %q", len(files), files)
	}
}

// awaitSpare waits until a file is ready to be used.
func awaitSpare(t *testing.T, j *Journal) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; runtime.Gosched() {
		j.store.mu.Lock()
		n := len(j.store.names)
		j.store.mu.Unlock()
		if n > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("no file was made ahead")
		}
	}
}

// Where no file was made ahead a short one takes its place, until there is one; a short
// one is never used again.
func TestShortFilesUntilOneIsFilled(t *testing.T) {
	const segment = 3 * unfilled
	dir := t.TempDir()
	j, err := Open(Config{Dir: dir, Segment: segment})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = j.Close() }()
	size := func(name string) int64 {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return -1
		}
		return info.Size()
	}
	if n := size("segment-0000000000000001"); n != unfilled {
		t.Fatalf("the first file has %d bytes", n)
	}
	awaitSpare(t, j)
	for range 2 { // more than the short one takes
		if _, _, err := j.Append(make([]byte, Head+unfilled*2/3)); err != nil {
			t.Fatal(err)
		}
	}
	if n := size("segment-0000000000000002"); n != segment {
		t.Errorf("the second file has %d bytes", n)
	}
	if err := j.Release(j.Last()); err != nil {
		t.Fatal(err)
	}
	if list, _ := filepath.Glob(filepath.Join(dir, "*0000000000000001")); len(list) > 0 {
		t.Errorf("the short file is kept: %q", list)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, "spare-0000000000000001")
	if err := os.WriteFile(left, make([]byte, unfilled), 0o600); err != nil {
		t.Fatal(err)
	}
	if j, err = Open(Config{Dir: dir, Segment: segment}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); err == nil || j.Last() != 2 {
		t.Errorf("a short file is kept, or mail is not: %v, %d batches", err, j.Last())
	}
}

// The file after the next is made ahead when a part of this one is written, not while a
// burst may have just begun; before a short one ends, at once.
func TestNextFileIsMadeAheadInTime(t *testing.T) {
	const segment = 3 * unfilled
	j, err := Open(Config{Dir: t.TempDir(), Segment: segment})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = j.Close() }()
	write := func(size int) {
		t.Helper()
		if _, _, err := j.Append(make([]byte, Head+size)); err != nil {
			t.Fatal(err)
		}
	}
	awaitSpare(t, j)
	write(unfilled / 2)
	write(unfilled / 2) // into the file that was made ahead
	if asked := len(j.store.low); !j.ahead || asked > 0 {
		t.Errorf("the next file is asked for at once: %v, %d", j.ahead, asked)
	}
	// Two files have begun, of which as much is written as one holds.
	if _, files := j.Oldest(0); files != 1 {
		t.Errorf("%d files wait to be moved", files)
	}
	write(segment / aheadAfter)
	if j.ahead {
		t.Error("nobody has asked for the next file")
	}
	awaitSpare(t, j)
}
