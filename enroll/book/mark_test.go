// SPDX-License-Identifier: Apache-2.0

package book_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"valise/enroll/book"
	"valise/internal/store/authority"
)

// marked is an archive with a file for the newest checkpoint, on which some leaves
// were recorded and signed after a copy of the database was made.
func marked(t *testing.T) (a *archive, mark, older string) {
	t.Helper()
	a = newFile(t)
	mark, older = filepath.Join(t.TempDir(), "checkpoint"), filepath.Join(t.TempDir(), "older.db")
	b, s, err := a.openMarked(a.path, mark)
	must(t, err)
	must(t, b.Checkpoint(t.Context()))
	exec(t, a.path, "VACUUM INTO '"+older+"'")
	must(t, record1(t, b, a.refusal(1)))
	must(t, b.Checkpoint(t.Context()))
	must(t, s.Close())
	return a, mark, older
}

func (a *archive) openMarked(path, mark string) (*book.Book, *authority.Store, error) {
	a.t.Helper()
	s, err := authority.Open(a.t.Context(), path)
	must(a.t, err)
	a.t.Cleanup(func() { _ = s.Close() })
	b, err := book.Open(a.t.Context(), book.Config{Store: s, Root: a.Root, LedgerKey: a.key, Mark: mark})
	return b, s, err
}

// Between a stop and a start the database is exchanged for an older copy of itself,
// with the checkpoints of then.
func TestOlderDatabase(t *testing.T) {
	a, mark, older := marked(t)
	_, _, err := a.openMarked(older, mark)
	if !errors.Is(err, book.ErrDamaged) || !strings.Contains(err.Error(), mark) {
		t.Errorf("got %v", err)
	}
	b, _, err := a.openMarked(a.path, mark) // the honest one
	must(t, err)
	must(t, record1(t, b, a.refusal(2)))
	if _, _, err := a.openMarked(older, ""); err != nil {
		t.Errorf("without the file nobody can tell: %v", err)
	}
}

// Nor is a copy opened that went another way from there.
func TestForkedDatabase(t *testing.T) {
	a, mark, older := marked(t)
	b, s, err := a.openMarked(older, "")
	must(t, err)
	for n := range 3 {
		must(t, record1(t, b, a.refusal(10+n)))
	}
	must(t, b.Checkpoint(t.Context()))
	must(t, s.Close())
	if _, _, err := a.openMarked(older, mark); !errors.Is(err, book.ErrDamaged) {
		t.Errorf("got %v", err)
	}
}

func TestMarkIsHeldToItsForm(t *testing.T) {
	for name, text := range map[string][]byte{"empty": nil, "rubbish": []byte("rubbish\n"), "too large": make([]byte, 1<<17)} {
		a, mark, _ := marked(t)
		must(t, os.WriteFile(mark, text, 0o600))
		if _, _, err := a.openMarked(a.path, mark); err == nil || !strings.Contains(err.Error(), mark) {
			t.Errorf("%s: %v", name, err)
		}
	}
	a := newFile(t)
	mark := filepath.Join(t.TempDir(), "none", "checkpoint")
	b, _, err := a.openMarked(a.path, mark)
	must(t, err)
	if err := b.Checkpoint(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a checkpoint that could not be kept: %v", err)
	}
}

// A row that nobody signed does not end checkpoints, and where the tree in the
// database is not that of the leaves, nothing is decided until it is again.
func TestTornLedger(t *testing.T) {
	for name, c := range map[string]struct{ tear, mend string }{
		"checkpoint of a larger tree": {"INSERT INTO checkpoints (size, note) VALUES (1000000, x'00')", "DELETE FROM checkpoints WHERE size = 1000000"},
		"checkpoint in its place":     {"INSERT INTO checkpoints (size, note) SELECT max(id) + 1, x'00' FROM leaves", "DELETE FROM checkpoints WHERE note = x'00'"},
		"hashes": {
			"CREATE TABLE kept AS SELECT * FROM hashes; UPDATE hashes SET hash = zeroblob(32)",
			"UPDATE hashes SET hash = (SELECT hash FROM kept WHERE kept.id = hashes.id)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newFile(t)
			b, _ := a.open()
			must(t, b.Checkpoint(t.Context()))
			must(t, record1(t, b, a.refusal(1)))
			exec(t, a.path, c.tear)
			if err := b.Checkpoint(t.Context()); !errors.Is(err, book.ErrDamaged) || !errors.Is(b.Damage(), book.ErrDamaged) {
				t.Errorf("got %v, damage %v", err, b.Damage())
			}
			before := size(b)
			if err := record1(t, b, a.refusal(2)); !errors.Is(err, book.ErrDamaged) || size(b) != before {
				t.Errorf("recorded in a torn ledger: %v", err)
			}
			exec(t, a.path, c.mend)
			must(t, b.Checkpoint(t.Context()))
			must(t, errors.Join(b.Damage(), record1(t, b, a.refusal(2))))
		})
	}
}

// A process that starts while another one records and signs takes what it has not read
// yet for no damage.
func TestOpenBesideABusyProcess(t *testing.T) {
	a := newFile(t)
	mark := filepath.Join(t.TempDir(), "checkpoint")
	b, _, err := a.openMarked(a.path, mark)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		for n := 0; ctx.Err() == nil; n++ {
			if err := errors.Join(record1(t, b, a.refusal(n)), b.Checkpoint(t.Context())); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for range 40 {
		_, s, err := a.openMarked(a.path, mark)
		must(t, errors.Join(err, s.Close()))
	}
	cancel()
	must(t, <-done)
}
