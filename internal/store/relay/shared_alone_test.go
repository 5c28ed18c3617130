// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"path"
	"testing"
	"testing/fstest"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/store"
	"valise/internal/testenv"
)

func openAlone(t *testing.T, database string) *Shared {
	t.Helper()
	return openConfigured(t, SharedConfig{Database: database, Alone: true})
}

// endLock has the server end the connection that holds the lock.
func endLock(t *testing.T, s *Shared) {
	t.Helper()
	err := s.db.Update(t.Context(), func(tx *store.Tx) error {
		_, err := tx.ExecContext(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_locks
			WHERE locktype = 'advisory' AND objsubid = 1 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A gateway whose lock has ended takes it again and goes on, and what it had in memory
// counts for nothing: another one may have been there. While one is, it does nothing.
func TestAloneEnds(t *testing.T) {
	database := testenv.Postgres(t).DSN
	first := openAlone(t, database)
	populate(t, first, 2)
	endLock(t, first)
	if o := apply(t, first, content(0, 2, "two", 1)); o.Verdict != mailbox.Done && o.Verdict != mailbox.Repeated {
		t.Errorf("control, nobody else came: %+v", o)
	}

	endLock(t, first)
	second := openAlone(t, database)
	if _, err := first.Apply(t.Context(), []*mailbox.Submission{content(0, 3, "three", 1)}, nil); !errors.Is(err, ErrInUse) {
		t.Errorf("a gateway without the lock: %v", err)
	}
	if o := apply(t, second, content(0, 3, "other", 1), mailbox.Ack{Device: device(1), Number: 1}); o.Verdict != mailbox.Done {
		t.Errorf("the one that has it: %+v", o)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if o := apply(t, first, content(0, 3, "three", 1)); o.Verdict != mailbox.StateConflict {
		t.Errorf("what another gateway has done is not known: %+v", o)
	}
	if o := apply(t, first, content(0, 4, "four", 1)); o.Verdict != mailbox.Done || o.Placed[0].Number != 3 {
		t.Errorf("it does not go on: %+v", o)
	}

	endLock(t, first)
	second = openAlone(t, database)
	if err := errors.Join(second.Quarantine(t.Context(), device(0), true), second.Close(), first.Tidy(t.Context())); err != nil {
		t.Fatal(err)
	}
	if o := apply(t, first, content(0, 5, "five", 1)); o.Verdict != mailbox.Barred {
		t.Errorf("between two looks another gateway was there: %+v", o)
	}
	if got := read(t, first, 1, 0); len(got) != 2 || string(got[0].Payload) != "other" {
		t.Errorf("%d entries", len(got))
	}
}

// What an acknowledgement frees is room for the batch that brings it, and for no other.
func TestRoomOfTheSameBatch(t *testing.T) {
	onEachForm(t, func(t *testing.T, p place) {
		s := p.open(t, mailbox.Quota{Messages: 2})
		populate(t, s, 2)
		apply(t, s, content(0, 2, "a", 1))
		apply(t, s, content(0, 3, "b", 1))
		if o := apply(t, s, content(0, 4, "c", 1)); o.Verdict != mailbox.MailboxFull {
			t.Errorf("the mailbox is not full: %+v", o)
		}
		outcomes, err := s.Apply(t.Context(), []*mailbox.Submission{content(0, 4, "c", 1), content(0, 5, "d", 1)}, []mailbox.Ack{{Device: device(1), Number: 1}})
		if err != nil || outcomes[0].Verdict != mailbox.Done || outcomes[1].Verdict != mailbox.MailboxFull {
			t.Errorf("%+v, %v", outcomes, err)
		}
		s = p.reopen(t, s, mailbox.Quota{Messages: 2})
		if o := apply(t, s, content(0, 5, "d", 1)); o.Verdict != mailbox.MailboxFull {
			t.Errorf("from the disk, the mailbox is not full: %+v", o)
		}
		if o := apply(t, s, content(0, 5, "d", 1), mailbox.Ack{Device: device(1), Number: 3}); o.Verdict != mailbox.Done {
			t.Errorf("the mailbox is empty, and takes nothing: %+v", o)
		}
	})
}

// Hashes of submissions are found in whatever row they lie, as many as are kept, and in
// the end no more rows than those are there.
func TestMarksOnPostgreSQL(t *testing.T) {
	database := testenv.Postgres(t).DSN
	s := openAlone(t, database)
	populate(t, s, 2)
	const last = 3 * mailbox.KeptHashes
	for next := uint64(2); next <= last; {
		var batch []*mailbox.Submission
		for range min(1+next%100, last+1-next) {
			batch = append(batch, content(0, next, string(rune(next))))
			next++
		}
		if _, err := s.Apply(t.Context(), batch, nil); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		for _, c := range []struct {
			counter uint64
			text    string
			want    mailbox.Verdict
		}{
			{last, string(rune(last)), mailbox.Repeated},
			{last - mailbox.KeptHashes + 1, string(rune(last - mailbox.KeptHashes + 1)), mailbox.Repeated},
			{last - 500, string(rune(last - 500)), mailbox.Repeated},
			{last - 500, "other", mailbox.StateConflict},
			{last - mailbox.KeptHashes, string(rune(last - mailbox.KeptHashes)), mailbox.StateConflict},
		} {
			if o := apply(t, s, content(0, c.counter, c.text)); o.Verdict != c.want {
				t.Errorf("counter %d, %q: verdict %d, want %d", c.counter, c.text, o.Verdict, c.want)
			}
			hash, err := s.Recall(t.Context(), device(0), c.counter)
			if kept := c.counter+mailbox.KeptHashes > last; (err == nil) != kept || err != nil && !errors.Is(err, mailbox.ErrNotFound) {
				t.Errorf("counter %d: %x, %v", c.counter, hash, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openAlone(t, database)
	}
	var kept int
	err := s.db.View(t.Context(), func(tx *store.Tx) error {
		return tx.QueryRowContext(t.Context(), `SELECT sum(length(hashes)) / 32 FROM marks`).Scan(&kept)
	})
	if err != nil || kept < mailbox.KeptHashes || kept > mailbox.KeptHashes+markSweep+2*markRow {
		t.Errorf("%d hashes are kept, %v", kept, err)
	}
}

// before is the migrations up to one.
func before(t *testing.T, name string) fs.FS {
	t.Helper()
	some := make(fstest.MapFS)
	all, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		if path.Base(file) >= name {
			continue
		}
		text, err := fs.ReadFile(migrations, file)
		if err != nil {
			t.Fatal(err)
		}
		some[path.Base(file)] = &fstest.MapFile{Data: text}
	}
	return some
}

// A database that was in use before messages for one mailbox lay in it goes on with what
// it has: its mail is read and acknowledged, its marks are known.
func TestFormerDatabase(t *testing.T) {
	database := testenv.Postgres(t).DSN
	db, err := store.Open(t.Context(), store.Config{Path: database, Migrations: before(t, "00014"), ApplicationID: ApplicationID})
	if err != nil {
		t.Fatal(err)
	}
	first := content(0, 7, "single", 1)
	err = db.Update(t.Context(), func(tx *store.Tx) error {
		for i := range 3 {
			d := device(i)
			if _, err := tx.ExecContext(t.Context(), `INSERT INTO devices (id, device, address, chain, seen) VALUES ($1, $2, 'a@x.example', $3, 0)`, i+1, d[:], []byte{}); err != nil {
				return err
			}
			mark, mail := 8, 0
			if i > 0 {
				mark, mail = 0, 2
			}
			if _, err := tx.ExecContext(t.Context(), `INSERT INTO states (device, incarnation, counter, last, acked, held, bytes) VALUES ($1, $2, $3, $4, 0, $5, $6)`,
				i+1, incarnation[:], mark, mail, mail, 5*mail); err != nil {
				return err
			}
		}
		for _, query := range []string{
			`INSERT INTO groups (id, group_id, epoch, info) VALUES (1, 'g', 0, 'i')`,
			`INSERT INTO messages (id, kind, grp, epoch, sender, time, refs, payload) VALUES (11, 1, 1, 0, 1, 1000, 1, 'for 1'), (12, 1, 1, 0, 1, 1000, 1, 'for 2'), (13, 1, 1, 0, 1, 1000, 2, 'both!')`,
			`INSERT INTO refs (message, n) VALUES (13, 2)`,
			`INSERT INTO mailbox (device, number, message, size) VALUES (2, 1, 11, 5), (2, 2, 13, 5), (3, 1, 12, 5), (3, 2, 13, 5)`,
		} {
			if _, err := tx.ExecContext(t.Context(), query); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(t.Context(), `INSERT INTO submissions (device, slot, counter, hash) VALUES (1, 7, 7, $1), (1, 8, 8, $2)`, first.Hash[:], bytes.Repeat([]byte{8}, 32))
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}

	s := openAlone(t, database)
	if o := apply(t, s, first); o.Verdict != mailbox.Repeated {
		t.Errorf("what was done before: %+v", o)
	}
	if o := apply(t, s, content(0, 8, "other", 1)); o.Verdict != mailbox.StateConflict {
		t.Errorf("other bytes under a former mark: %+v", o)
	}
	if o := apply(t, s, content(0, 9, "new", 1)); o.Verdict != mailbox.Done {
		t.Errorf("%+v", o)
	}
	want := [][]string{{}, {"for 1", "both!", "new"}, {"for 2", "both!"}}
	for d, texts := range want {
		entries := read(t, s, d, 0)
		if len(entries) != len(texts) {
			t.Fatalf("device %d has %d entries", d, len(entries))
		}
		for i, e := range entries {
			if string(e.Payload) != texts[i] || e.Number != uint64(i)+1 || e.Sender != device(0) || string(e.Group) != "g" {
				t.Errorf("device %d: %+v", d, e)
			}
		}
	}
	if _, err := s.Apply(context.Background(), nil, []mailbox.Ack{{Device: device(1), Number: 3}, {Device: device(2), Number: 1}}); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Totals(t.Context()); err != nil || n.Messages != 1 || n.Pointers != 1 {
		t.Errorf("%+v, %v", n, err)
	}
	losses, err := s.Expire(t.Context(), time.UnixMilli(2000), 10)
	if err != nil || len(losses) != 1 {
		t.Errorf("%+v, %v", losses, err)
	}
	if _, err := s.Apply(context.Background(), nil, []mailbox.Ack{{Device: device(2), Number: 2}}); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Totals(t.Context()); err != nil || n.Messages != 0 || n.Pointers != 0 {
		t.Errorf("%+v, %v", n, err)
	}
}
