// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"database/sql"
	"path/filepath"
	"slices"
	"testing"

	"valise/internal/store"
)

// What refers to rows that are deleted has an index for it, or the database looks through
// the whole table for each row that goes: a drain of a large store would last for hours.
func TestNoDeletionScans(t *testing.T) {
	s, err := Open(t.Context(), Config{Path: filepath.Join(t.TempDir(), "relay.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	kept := []string{"devices", "groups"} // no row of which is ever deleted
	bound := 0
	err = s.db.View(t.Context(), func(tx *store.Tx) error {
		for _, r := range references(t, tx) {
			bound++
			if !slices.Contains(kept, r.parent) && !indexed(t, tx, r) {
				t.Errorf("%s.%s refers to %s without an index: deletions there look through all of it", r.table, r.column, r.parent)
			}
		}
		return nil
	})
	if err != nil || bound == 0 {
		t.Errorf("%d references, %v", bound, err)
	}
}

type reference struct{ table, column, parent string }

func references(t *testing.T, tx *store.Tx) (all []reference) {
	rows, err := tx.QueryContext(context.Background(),
		`SELECT s.name, f."from", f."table" FROM sqlite_schema s JOIN pragma_foreign_key_list(s.name) f WHERE s.type = 'table'`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var r reference
		if err := rows.Scan(&r.table, &r.column, &r.parent); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// indexed says whether an index of the table begins with the column.
func indexed(t *testing.T, tx *store.Tx, r reference) bool {
	var name string
	err := tx.QueryRowContext(context.Background(),
		`SELECT l.name FROM pragma_index_list($1) l JOIN pragma_index_info(l.name) i WHERE i.seqno = 0 AND i.name = $2`, r.table, r.column).Scan(&name)
	if err != nil && err != sql.ErrNoRows {
		t.Fatal(err)
	}
	return err == nil
}

// What mailboxes held before they were made anew, they hold afterwards.
func TestMailboxesMadeAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "relay.db")
	db, err := store.Open(t.Context(), store.Config{Path: path, Migrations: before(t, "00016"), ApplicationID: ApplicationID})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(t.Context(), func(tx *store.Tx) error {
		_, err := tx.ExecContext(context.Background(), `INSERT INTO devices (id, device, address, chain, seen) VALUES (7, x'01', 'a', x'', 0);
			INSERT INTO groups (id, group_id, epoch, info) VALUES (3, x'02', 0, x'');
			INSERT INTO messages (id, kind, grp, epoch, sender, time, refs, payload) VALUES (5, 1, 3, 0, 7, 0, 1, x'4d');
			INSERT INTO mailbox (device, number, message) VALUES (7, 1, 5)`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = s.db.View(t.Context(), func(tx *store.Tx) error {
		var payload string
		err := tx.QueryRowContext(context.Background(), `SELECT payload FROM mail WHERE device = 7 AND number = 1`).Scan(&payload)
		if payload != "M" {
			t.Errorf("the mailbox holds %q, want what it held", payload)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
