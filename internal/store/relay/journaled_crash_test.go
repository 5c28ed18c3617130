// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/store/relay/journal"
)

// witness knows what a store has acknowledged: device 0 sends the texts "2", "3", … to
// three others, in batches; the text c has the number c-1 in each mailbox.
type witness struct {
	mu     sync.Mutex
	done   uint64    // counter up to which submissions were acknowledged to the sender
	asked  uint64    // counter up to which they were given to the store
	acked  [4]uint64 // numbers that the store has taken acknowledgements of
	acking [4]uint64 // numbers that it was given
}

// check looks at a store that was opened after a crash.
func (w *witness) check(s mailbox.Store) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	mark := uint64(0)
	for d := 1; d <= 3; d++ {
		last, err := s.Last(context.Background(), device(d))
		if err != nil {
			return err
		}
		if d > 1 && last != mark {
			return fmt.Errorf("a batch is there by half: %d and %d", last, mark)
		}
		if mark = last; last+1 < w.done || last+1 > w.asked {
			return fmt.Errorf("device %d has mail up to %d, acknowledged are %d, given %d", d, last, w.done, w.asked)
		}
		entries, err := s.Read(context.Background(), device(d), 0, 1_000_000, 1<<30)
		if err != nil {
			return err
		}
		first := last + 1
		if len(entries) > 0 {
			first = entries[0].Number
		}
		if first-1 < w.acked[d] || first-1 > w.acking[d] {
			return fmt.Errorf("device %d has mail from %d on, acknowledged %d, given %d", d, first, w.acked[d], w.acking[d])
		}
		for i, e := range entries {
			if e.Number != first+uint64(i) || text(e.Payload) != strconv.FormatUint(e.Number+1, 10) {
				return fmt.Errorf("device %d, mail %d: number %d, %q", d, i, e.Number, text(e.Payload))
			}
		}
		if n := uint64(len(entries)); first+n != last+1 {
			return fmt.Errorf("device %d: %d entries from %d on, the last is %d", d, n, first, last)
		}
	}
	return checkMarks(s, mark+1)
}

// checkMarks wants the sender's submissions to be known up to a counter and no further.
func checkMarks(s mailbox.Store, mark uint64) error {
	for c := max(2, int64(mark)-200); c <= int64(mark); c++ {
		hash, err := s.Recall(context.Background(), device(0), uint64(c))
		if want := content(0, uint64(c), strconv.FormatInt(c, 10)).Hash; err != nil || hash != want {
			return fmt.Errorf("the hash of submission %d of %d: %x, %w", c, mark, hash[:4], err)
		}
	}
	if _, err := s.Recall(context.Background(), device(0), mark+1); !errors.Is(err, mailbox.ErrNotFound) {
		return fmt.Errorf("submission %d is known: %w", mark+1, err)
	}
	return nil
}

// text is a payload without what fills it up.
func text(payload []byte) string {
	s, _, _ := strings.Cut(string(payload), " ")
	return s
}

// work does n more batches; say is told what was done.
func (w *witness) work(s mailbox.Store, n, filling int, say func(string)) error {
	for range n {
		w.mu.Lock()
		counter := w.done
		var batch []*mailbox.Submission
		for i := range 1 + counter%5 {
			c := counter + i + 1
			sub := content(0, c, strconv.FormatUint(c, 10), 1, 2, 3)
			sub.Messages[0].Payload = fmt.Appendf(nil, "%d %s", c, strings.Repeat(".", filling))
			batch = append(batch, sub)
		}
		w.asked = counter + uint64(len(batch))
		var acks []mailbox.Ack
		for d := 1; d <= 2; d++ { // device 3 never fetches its mail
			if behind := uint64(d * 9); counter > behind && counter%uint64(2+d) == 0 {
				w.acking[d] = max(w.acking[d], counter-behind)
				acks = append(acks, mailbox.Ack{Device: device(d), Number: w.acking[d]})
			}
		}
		say(fmt.Sprintln("asked", w.asked, w.acking[1], w.acking[2]))
		w.mu.Unlock()
		outcomes, err := s.Apply(context.Background(), batch, acks)
		if err != nil {
			return err
		}
		for i, o := range outcomes {
			if o.Verdict != mailbox.Done {
				return fmt.Errorf("submission %d: %+v", batch[i].Counter, o)
			}
		}
		w.mu.Lock()
		w.done, w.acked = w.asked, w.acking
		w.mu.Unlock()
		say(fmt.Sprintln("done", w.done, w.acked[1], w.acked[2]))
	}
	return nil
}

// withoutSpares leaves out the files that are being made for later: they come and go
// while others are copied, and a journal without them is whole.
type withoutSpares struct{ fs.FS }

func (w withoutSpares) ReadDir(name string) ([]fs.DirEntry, error) {
	all, err := fs.ReadDir(w.FS, name)
	return slices.DeleteFunc(all, func(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), "spare-") }), err
}

// A crash may come after every write to the journal and after every transaction of the
// mover: what lies on the disk then is a store with all that was acknowledged, and
// with the batch under way wholly or not at all.
func TestCrashAtEveryStep(t *testing.T) {
	dir, w := t.TempDir(), &witness{done: 1, asked: 1}
	steps := map[string]int{}
	var mu sync.Mutex
	armed := false
	probe := func(step string) {
		mu.Lock()
		defer mu.Unlock()
		if !armed {
			return
		}
		if steps[step]++; step == "journaled" && steps[step]%8 != 0 {
			return
		}
		copied := filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(copied, withoutSpares{os.DirFS(dir)}); err != nil {
			t.Error(err)
			return
		}
		s, err := OpenJournaled(context.Background(), Config{Path: filepath.Join(copied, "relay.db"), Segment: 32 << 10})
		if err == nil {
			err = errors.Join(w.check(s), s.Close())
		}
		if err != nil && !t.Failed() {
			t.Errorf("%s, the %dth time: %v", step, steps[step], err)
		}
	}
	j := openJournaled(t, Config{Path: filepath.Join(dir, "relay.db"), Segment: 32 << 10, probe: probe})
	populate(t, j, 4)
	mu.Lock()
	armed = true
	mu.Unlock()
	if err := w.work(j, 150, 700, func(string) {}); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if t.Logf("%v", steps); steps["journaled"] < 150 || steps["moved"] < 10 || steps["released"] < 3 {
		t.Errorf("too few steps: %v", steps)
	}
}

// childDir says to the test binary that it is a gateway that will be killed.
const childDir = "VALISE_RELAY_TEST_CHILD"

// A process that is killed with SIGKILL at any moment loses nothing of what it
// acknowledged, over many kills of the same store.
func TestKilled(t *testing.T) {
	if dir := os.Getenv(childDir); dir != "" {
		child(t, dir)
		return
	}
	dir, w := t.TempDir(), &witness{done: 1, asked: 1}
	cfg := Config{Path: filepath.Join(dir, "relay.db"), Segment: 64 << 10}
	j := openJournaled(t, cfg)
	populate(t, j, 4)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	for round := range 12 {
		killOne(t, dir, w, time.Duration(30+round*23)*time.Millisecond)
		j, err := OpenJournaled(t.Context(), cfg)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if err := w.check(j); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		st := arrive(t, j, device(0), incarnation, false)
		w.done, w.asked = st.Counter, st.Counter
		for d := 1; d <= 2; d++ {
			w.acked[d] = arrive(t, j, device(d), incarnation, false).Acknowledged
			w.acking[d] = w.acked[d]
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if t.Logf("%d submissions over 12 kills", w.done); w.done < 100 {
		t.Errorf("only %d submissions were done", w.done)
	}
}

// killOne runs a child until it has done something, and a while longer.
func killOne(t *testing.T, dir string, w *witness, after time.Duration) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), childDir+"="+dir, fmt.Sprintf("VALISE_RELAY_TEST_FROM=%d %d %d", w.done, w.acked[1], w.acked[2]))
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var kill *time.Timer
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var what string
		var counter, one, two uint64
		if n, _ := fmt.Sscan(lines.Text(), &what, &counter, &one, &two); n != 4 {
			continue
		}
		if kill == nil {
			kill = time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
		switch what {
		case "asked":
			w.asked, w.acking[1], w.acking[2] = counter, one, two
		case "done":
			w.done, w.acked[1], w.acked[2] = counter, one, two
		}
	}
	_ = cmd.Wait()
	if cmd.ProcessState.Success() || kill == nil {
		t.Fatal("the child ended by itself")
	}
}

func child(t *testing.T, dir string) {
	w := new(witness)
	if _, err := fmt.Sscan(os.Getenv("VALISE_RELAY_TEST_FROM"), &w.done, &w.acked[1], &w.acked[2]); err != nil {
		t.Fatal(err)
	}
	w.asked, w.acking = w.done, w.acked
	j := openJournaled(t, Config{Path: filepath.Join(dir, "relay.db"), Segment: 64 << 10})
	if err := w.work(j, 1_000_000, 300, func(line string) { _, _ = os.Stdout.WriteString(line) }); err != nil {
		t.Fatal(err)
	}
}

// losing is a disk that loses its power: what was not synced is then as it was before.
type losing struct {
	mu   sync.Mutex
	undo map[*os.File][]func() error // guarded by mu
}

func (d *losing) WriteAt(f *os.File, p []byte, at int64) error {
	old := make([]byte, len(p))
	n, err := f.ReadAt(old, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	d.mu.Lock()
	d.undo[f] = append(d.undo[f], func() error {
		_, err := f.WriteAt(old[:n], at)
		return err
	})
	d.mu.Unlock()
	_, err = f.WriteAt(p, at)
	return err
}

func (d *losing) Sync(f *os.File) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.undo, f)
	return f.Sync()
}

func (d *losing) SyncDir(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (d *losing) losePower(t *testing.T) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, all := range d.undo {
		for i := len(all) - 1; i >= 0; i-- {
			if err := all[i](); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// What was acknowledged survives the loss of power. With syncing off it does not: the
// test can see the difference.
func TestPowerLoss(t *testing.T) {
	for _, unsafe := range []bool{false, true} {
		dir, disk, w := t.TempDir(), &losing{undo: map[*os.File][]func() error{}}, &witness{done: 1, asked: 1}
		cfg := Config{Path: filepath.Join(dir, "relay.db"), Disk: disk, UnsafeNoSync: unsafe}
		j := openJournaled(t, cfg)
		populate(t, j, 4)
		if err := w.work(j, 40, 100, func(string) {}); err != nil {
			t.Fatal(err)
		}
		disk.losePower(t)
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		cfg.Disk, cfg.UnsafeNoSync = nil, false
		after, err := OpenJournaled(t.Context(), cfg)
		if err == nil {
			err = errors.Join(w.check(after), after.Close())
		}
		if (err != nil) != unsafe {
			t.Errorf("syncing off %v: %v", unsafe, err)
		}
	}
}

// A batch that was torn at some byte was not acknowledged and leaves no trace; a batch
// that is damaged with others behind it is refused.
func TestTornAndDamaged(t *testing.T) {
	dir, w := t.TempDir(), &witness{done: 1, asked: 1}
	j := openJournaled(t, Config{Path: filepath.Join(dir, "relay.db"), Segment: 256 << 10})
	populate(t, j, 4)
	if err := w.work(j, 11, 5, func(string) {}); err != nil {
		t.Fatal(err)
	}
	before := &witness{done: w.done, asked: w.asked, acked: w.acked, acking: w.acking}
	from := endOf(t, j, filepath.Join(dir, "relay.db"))
	if err := w.work(j, 1, 300, func(string) {}); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	before.asked, before.acking = w.asked, w.acking
	try := func(change func([]byte)) (*Journaled, error) {
		copied := filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(copied, "relay.journal", "segment-0000000000000001")
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		change(data)
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return OpenJournaled(t.Context(), Config{Path: filepath.Join(copied, "relay.db"), Segment: 256 << 10})
	}
	for _, cut := range []int{0, 1, 3, 4, 9, 15, 19, 20, 21, 60, 100, 150, 200, 250} {
		j, err := try(func(data []byte) { clear(data[int(from)+cut:]) })
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if err := before.check(j); err != nil {
			t.Errorf("cut at %d: %v", cut, err)
		}
		if last, err := j.Last(t.Context(), device(3)); err != nil || last+1 != before.done {
			t.Errorf("cut at %d: %d, %v", cut, last, err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if j, err := try(func([]byte) {}); err != nil {
		t.Errorf("control: %v", err)
	} else if err := errors.Join(w.check(j), j.Close()); err != nil {
		t.Errorf("control: %v", err)
	}
	if _, err := try(func(data []byte) { data[from-4096+50] ^= 1 }); !errors.Is(err, journal.ErrDamaged) {
		t.Errorf("damage to the batch before: %v", err)
	}
}

// endOf is where the next batch of a store's first file will lie. The store runs on: a
// copy of what it has written is read.
func endOf(t *testing.T, j *Journaled, path string) (end int64) {
	t.Helper()
	copied := t.TempDir()
	names, err := filepath.Glob(filepath.Join(JournalDir(path), "segment-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(copied, filepath.Base(name)), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log, err := journal.Open(journal.Config{Dir: copied, ID: j.log.ID(), Segment: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	err = log.Replay(0, func(_ uint64, at journal.Place, body []byte) error {
		end = (at.Offset + int64(len(body)) + 4095) / 4096 * 4096
		return nil
	})
	if err := errors.Join(err, log.Close()); err != nil {
		t.Fatal(err)
	}
	return end
}

// Database and journal belong together: neither opens without the other.
func TestBelongTogether(t *testing.T) {
	dirs := [2]string{t.TempDir(), t.TempDir()}
	for _, dir := range dirs {
		j := openJournaled(t, Config{Path: filepath.Join(dir, "relay.db")})
		populate(t, j, 2)
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	first, second := filepath.Join(dirs[0], "relay.db"), filepath.Join(dirs[1], "relay.db")
	if _, err := Open(t.Context(), Config{Path: first}); !errors.Is(err, ErrJournaled) {
		t.Errorf("without its journal: %v", err)
	}
	away := filepath.Join(t.TempDir(), "away")
	if err := errors.Join(os.Rename(JournalDir(first), away), os.CopyFS(JournalDir(first), os.DirFS(JournalDir(second)))); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenJournaled(t.Context(), Config{Path: first}); !errors.Is(err, journal.ErrForeign) {
		t.Errorf("with another's journal: %v", err)
	}
	if err := os.RemoveAll(JournalDir(first)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenJournaled(t.Context(), Config{Path: first}); !errors.Is(err, journal.ErrDamaged) {
		t.Errorf("with its journal gone: %v", err)
	}
	if err := errors.Join(os.RemoveAll(JournalDir(first)), os.Rename(away, JournalDir(first))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	openJournaled(t, Config{Path: first}) // the control: with its own
}
