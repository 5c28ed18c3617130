// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"valise/gateway/mailbox"
)

func backup(t testing.TB, path string) []byte {
	t.Helper()
	var out bytes.Buffer
	if _, err := WriteBackup(t.Context(), Source{Path: path, Domain: "x.example", Scratch: t.TempDir()}, &out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// A backup that is made while a store is being written to holds everything that had been
// acknowledged when it began, each batch wholly or not at all; what is restored from it
// goes on, and uses no number again. The mover is at work all the time.
func TestBackupUnderLoad(t *testing.T) {
	dir, w := t.TempDir(), &witness{done: 1, asked: 1}
	path := filepath.Join(dir, DatabaseName)
	j := openJournaled(t, Config{Path: path, Segment: 32 << 10})
	populate(t, j, 4)
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			if err := w.work(j, 3, 700, func(string) {}); err != nil {
				ended <- err
				return
			}
		}
	}()
	taken := func(w *witness) (done, asked uint64, acked, acking [4]uint64) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.done, w.asked, w.acked, w.acking
	}
	batches := 0
	for round := range 4 {
		for begun, _, _, _ := taken(w); ; { // some more work each time
			if done, _, _, _ := taken(w); done > begun+40 {
				break
			}
		}
		before := new(witness)
		before.done, _, before.acked, _ = taken(w)
		data := backup(t, path)
		_, before.asked, _, before.acking = taken(w)
		into := t.TempDir()
		b, r, err := Restore(t.Context(), bytes.NewReader(data), into, time.Now())
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if b.Domain != "x.example" || r.Devices != 4 || r.Groups != 1 {
			t.Errorf("round %d: %+v, %+v", round, b, r)
		}
		batches += b.Batches
		checkBackup(t, into, before, r)
	}
	if batches == 0 {
		t.Error("nothing came out of the journal")
	}
	close(stop)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// checkBackup looks at a store that was restored from a backup, of which w says what it
// must have and what it may have.
func checkBackup(t *testing.T, dir string, w *witness, r Restoration) {
	t.Helper()
	s := openJournaled(t, Config{Path: filepath.Join(dir, DatabaseName)})
	mark := arrive(t, s, device(0), incarnation, false).Counter
	if mark < w.done || mark > w.asked {
		t.Errorf("the sender stands at %d; done when it began were %d, asked when it was over %d", mark, w.done, w.asked)
	}
	for d := 1; d <= 3; d++ {
		st := arrive(t, s, device(d), incarnation, false)
		mail, err := s.Read(t.Context(), device(d), 0, 1_000_000, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		if len(mail) == 0 || st.Last != r.Floor || mail[len(mail)-1].Number != r.Floor {
			t.Fatalf("device %d stands at %+v, %d mails", d, st, len(mail))
		}
		if st.Acknowledged < w.acked[d] || st.Acknowledged > w.acking[d] {
			t.Errorf("device %d has acknowledged %d; it was between %d and %d", d, st.Acknowledged, w.acked[d], w.acking[d])
		}
		for i, e := range mail[:len(mail)-1] {
			if want := st.Acknowledged + 1 + uint64(i); e.Number != want || text(e.Payload) != strconv.FormatUint(want+1, 10) {
				t.Fatalf("device %d, mail %d: number %d, %q", d, i, e.Number, text(e.Payload))
			}
		}
		if n := st.Acknowledged + uint64(len(mail)); n != mark {
			t.Errorf("device %d has mail up to %d, the sender's mark is %d", d, n, mark+1)
		}
	}
	if err := checkMarks(s, mark); err != nil {
		t.Error(err)
	}
	testGoesOnFrom(t, s, mark, r)
}

// testGoesOnFrom writes in a new group.
func testGoesOnFrom(t *testing.T, s mailbox.Store, mark uint64, r Restoration) {
	t.Helper()
	found := &mailbox.Submission{Step: &mailbox.Step{Group: []byte("h"), Create: true, Info: []byte("i")}}
	write := &mailbox.Submission{Messages: []mailbox.Message{{Kind: mailbox.Content, Group: []byte("h"), Payload: []byte("n"), To: []mailbox.Device{device(1)}}}}
	for i, sub := range []*mailbox.Submission{found, write} {
		sub.Device, sub.Incarnation, sub.Counter, sub.Time = device(0), incarnation, mark+1+uint64(i), time.Now()
		o := apply(t, s, sub)
		if o.Verdict != mailbox.Done || i == 1 && o.Placed[0].Number != r.Floor+1 {
			t.Errorf("submission %d: %+v", i, o)
		}
	}
}

// The control: a folder that is copied back and not restored gives numbers out again that
// devices have seen with other mail, takes a second commit for an epoch, and hands out a
// KeyPackage twice. Its mark tells.
func TestCopiedBack(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, DatabaseName)
	j := openJournaled(t, Config{Path: path})
	populate(t, j, 3)
	publishKinds(t, j, 1)
	must(t, 0, j.Close())
	copied := filepath.Join(t.TempDir(), "copy")
	must(t, 0, os.CopyFS(copied, os.DirFS(dir)))
	seen := func(path, payload string) (number uint64, step mailbox.Verdict, pack []byte, mark Mark) {
		s := openJournaled(t, Config{Path: path})
		o := apply(t, s, content(0, 2, payload, 1))
		if o.Verdict != mailbox.Done {
			t.Fatal(o)
		}
		commit := apply(t, s, &mailbox.Submission{
			Device: device(0), Incarnation: incarnation, Counter: 3, Hash: sha256.Sum256([]byte(payload)), Time: time.Now(),
			Step: &mailbox.Step{Group: []byte("g"), To: 1, Info: []byte(payload)},
		})
		taken, _, err := s.TakeKeyPackages(t.Context(), 1, []mailbox.Device{device(1)}, time.Now())
		if err != nil || len(taken) != 1 {
			t.Fatal(taken, err)
		}
		mark = must2(s.Mark(t.Context()))
		must(t, 0, s.Close())
		return o.Placed[0].Number, commit.Verdict, taken[0].Package, mark
	}
	number, _, pack, noted := seen(path, "first")
	restoredDir := t.TempDir()
	if _, _, err := Restore(t.Context(), bytes.NewReader(backup(t, filepath.Join(copied, DatabaseName))), restoredDir, time.Now()); err != nil {
		t.Fatal(err)
	}
	again := openJournaled(t, Config{Path: filepath.Join(copied, DatabaseName)})
	if err := must2(again.Mark(t.Context())).Check(noted); !errors.Is(err, ErrRolledBack) {
		t.Errorf("the copy's mark: %v", err)
	}
	must(t, 0, again.Close())
	if n, v, p, _ := seen(filepath.Join(copied, DatabaseName), "second"); n != number || v != mailbox.Done || !bytes.Equal(p, pack) {
		t.Errorf("the control shows no danger: number %d and %d, a commit %d, key packages %x and %x", number, n, v, pack, p)
	}
	s := openJournaled(t, Config{Path: filepath.Join(restoredDir, DatabaseName)})
	if o := apply(t, s, content(0, 2, "second", 1)); o.Verdict != mailbox.UnknownGroup {
		t.Errorf("restored: %+v", o)
	}
}

// A backup that was cut short or changed at any place is refused, and makes nothing.
func TestBackupDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), DatabaseName)
	j := openJournaled(t, Config{Path: path})
	populate(t, j, 2)
	data := backup(t, path)
	refused := func(what string, data []byte) {
		t.Helper()
		dir := t.TempDir()
		if _, _, err := Restore(t.Context(), bytes.NewReader(data), dir, time.Now()); !errors.Is(err, ErrBackup) {
			t.Errorf("%s: %v", what, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: it leaves %v, %v", what, left, err)
		}
	}
	for _, n := range []int{0, 1, 7, 8, 9, 16, 17, 40, 100, len(data) / 2, len(data) - 42, len(data) - 33, len(data) - 1} {
		refused(fmt.Sprint("cut at ", n), data[:n])
	}
	for _, at := range []int{0, 7, 8, 12, 16, 18, 60, 200, len(data) / 2, len(data) - 60, len(data) - 41, len(data) - 1} {
		changed := bytes.Clone(data)
		changed[at] ^= 1
		refused(fmt.Sprint("changed at ", at), changed)
	}
	refused("longer", append(bytes.Clone(data), 0))
	huge := bytes.Clone(data[:8])
	huge = binary.BigEndian.AppendUint64(append(huge, partInfo), 1<<62)
	refused("a length that cannot be", huge)

	dir := t.TempDir()
	if _, _, err := Restore(t.Context(), bytes.NewReader(data), dir, time.Now()); err != nil {
		t.Fatalf("control: %v", err)
	}
	if _, _, err := Restore(t.Context(), bytes.NewReader(data), dir, time.Now()); err == nil || errors.Is(err, ErrBackup) {
		t.Errorf("over what is there: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) != 1 {
		t.Errorf("it leaves %v", left)
	}
	if info, err := os.Stat(filepath.Join(dir, DatabaseName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// A backup of a store that has never had a journal, and one that fails half-way.
func TestBackupEmpty(t *testing.T) {
	path := filepath.Join(t.TempDir(), DatabaseName)
	s := open(t, path, mailbox.Quota{})
	populate(t, s, 2)
	dir := t.TempDir()
	if b, _, err := Restore(t.Context(), bytes.NewReader(backup(t, path)), dir, time.Now()); err != nil || b.Batches != 0 {
		t.Fatal(b, err)
	}
	openJournaled(t, Config{Path: filepath.Join(dir, DatabaseName)})
	if _, err := WriteBackup(t.Context(), Source{Path: path, Scratch: t.TempDir()}, &brimming{left: 5000}); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("a disk that is full: %v", err)
	}
	gone := filepath.Join(t.TempDir(), DatabaseName)
	if _, err := WriteBackup(context.Background(), Source{Path: gone, Scratch: t.TempDir()}, io.Discard); err == nil {
		t.Error("a backup of nothing")
	}
	if _, err := os.Lstat(gone); err == nil {
		t.Error("it made a database")
	}
}

// brimming takes so many bytes.
type brimming struct{ left int }

func (f *brimming) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

// Whatever a file says of itself, reading it ends with an error or with a backup.
func FuzzReadBackup(f *testing.F) {
	path := filepath.Join(f.TempDir(), DatabaseName)
	j := openJournaled(f, Config{Path: path})
	populate(f, j, 1)
	data := backup(f, path)
	f.Add(data[:64])
	f.Add(append(append([]byte{}, backupMagic[:]...), partInfo, 0, 0, 0, 0, 0, 0, 0, 2, '{', '}'))
	f.Add([]byte("VALGBAK1"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if b, err := ReadBackup(bytes.NewReader(data)); (b == nil) == (err == nil) {
			t.Error(b, err)
		}
	})
}
