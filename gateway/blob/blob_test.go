// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/store/relay"
)

func openBlobs(t *testing.T, cfg Config) *Store {
	t.Helper()
	dir := t.TempDir()
	db, err := relay.Open(t.Context(), relay.Config{Path: filepath.Join(dir, "relay.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	inc := [16]byte{1}
	if _, err := db.Arrive(t.Context(), mailbox.Arrival{Device: mailbox.Device{1}, Address: "a@x.example", Chain: [][]byte{{1}}, Incarnation: inc, Begin: true, Time: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Apply(t.Context(), []*mailbox.Submission{{
		Device: mailbox.Device{1}, Incarnation: inc, Counter: 1, Time: time.Now(),
		Step: &mailbox.Step{Group: []byte("g"), Create: true, Info: []byte("i")},
	}}, nil); err != nil {
		t.Fatal(err)
	}
	folder, err := OpenFolder(FolderConfig{Dir: filepath.Join(dir, "blobs")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = folder.Close() })
	cfg.Place, cfg.Store = folder, db
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// pathOf is where a file's bytes lie.
func pathOf(s *Store, up Upload) string {
	return filepath.Join(s.cfg.Place.(*Folder).path, nameOf(up.Group, up.ID))
}

// content reads a file from its beginning.
func content(t *testing.T, s *Store, up Upload) ([]byte, error) {
	t.Helper()
	f, err := s.Get(t.Context(), up.ID, anyGroup)
	if err != nil {
		return nil, err
	}
	body, err := f.From(t.Context(), 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

func file(n int) ([]byte, Upload) {
	data := make([]byte, n)
	_, _ = rand.Read(data)
	return data, Upload{ID: sha256.Sum256(data), Group: []byte("g"), Size: uint64(n), Owner: mailbox.Device{1}}
}

func anyGroup([]byte) bool { return true }

func put(t *testing.T, s *Store, up Upload) *Writer {
	t.Helper()
	w, err := s.Put(t.Context(), up)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// Broken off at any byte, resumed there, complete at the end.
func TestResumeAtAnyByte(t *testing.T) {
	s := openBlobs(t, Config{})
	data, up := file(10_000)
	for at := 0; at < len(data); {
		w := put(t, s, up)
		if w.Offset() != uint64(at) {
			t.Fatalf("offset %d, want %d", w.Offset(), at)
		}
		n := min(1+at/2, len(data)-at)
		if err := w.Append(data[at : at+n]); err != nil {
			t.Fatal(err)
		}
		at += n
		if at == len(data) {
			if err := w.Finish(); err != nil {
				t.Fatal(err)
			}
		} else if err := w.Finish(); !errors.Is(err, ErrLength) {
			t.Fatalf("a part passes for the whole: %v", err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := content(t, s, up); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d of %d bytes, %v", len(got), up.Size, err)
	}
}

// A crash between the file's rename and its record loses nothing.
func TestCrashBeforeTheRecord(t *testing.T) {
	s := openBlobs(t, Config{})
	data, up := file(5000)
	w := put(t, s, up)
	if err := w.Append(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := pathOf(s, up)
	if err := os.Rename(path+".part", path); err != nil {
		t.Fatal(err)
	}
	if _, err := content(t, s, up); !errors.Is(err, ErrNotFound) {
		t.Errorf("a file without a record of its end: %v", err)
	}
	w = put(t, s, up)
	defer w.Close()
	if w.Offset() != up.Size {
		t.Fatalf("offset %d", w.Offset())
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	if got, err := content(t, s, up); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// A partial file that was altered on disk is found out and dropped.
func TestAlteredPartial(t *testing.T) {
	s := openBlobs(t, Config{})
	data, up := file(5000)
	w := put(t, s, up)
	if err := w.Append(data[:4000]); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	path := pathOf(s, up) + ".part"
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw[17] ^= 1
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	w = put(t, s, up)
	if err := w.Append(data[4000:]); err != nil {
		t.Fatal(err)
	}
	if err := w.Finish(); !errors.Is(err, ErrHash) {
		t.Errorf("an altered file: %v", err)
	}
	_ = w.Close()
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) > 0 {
		t.Errorf("%d files are left of it, %v", len(left), err)
	}
	if w = put(t, s, up); w.Offset() != 0 {
		t.Errorf("%d bytes of it were kept", w.Offset())
	}
	_ = w.Close()
}

// One writer a file, a size that does not change, a quota, and names that no
// group id can lead out of the directory.
func TestPutRefusals(t *testing.T) {
	s := openBlobs(t, Config{Quota: 200_000})
	_, up := file(120_000)
	w := put(t, s, up)
	if _, err := s.Put(t.Context(), up); !errors.Is(err, ErrBusy) {
		t.Errorf("a second writer: %v", err)
	}
	if err := w.Append(make([]byte, 120_001)); !errors.Is(err, ErrLength) {
		t.Errorf("a byte too many: %v", err)
	}
	_ = w.Close()
	other := up
	other.Size++
	if _, err := s.Put(t.Context(), other); !errors.Is(err, ErrTooLarge) {
		t.Errorf("another size: %v", err)
	}
	for _, size := range []uint64{0, MaxSize + 1, 1 << 63} {
		other.Size = size
		if _, err := s.Put(t.Context(), other); !errors.Is(err, ErrTooLarge) {
			t.Errorf("size %d: %v", size, err)
		}
	}
	_, second := file(80_001)
	if _, err := s.Put(t.Context(), second); !errors.Is(err, ErrQuota) {
		t.Errorf("above the quota: %v", err)
	}
	_, third := file(80_000)
	_ = put(t, s, third).Close()
	third.Group = []byte("../../../tmp/x")
	if _, err := s.Put(t.Context(), third); !errors.Is(err, ErrNotFound) {
		t.Errorf("a group that does not exist: %v", err)
	}
	if name := nameOf([]byte("../../x"), [32]byte{}); len(name) != 64 || filepath.Base(name) != name {
		t.Errorf("name %q", name)
	}
}
