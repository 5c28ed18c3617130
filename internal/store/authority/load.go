// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Load fills an empty database from a backup, in one transaction, and sets
// FlagRestored. What was open at the time of the backup is ended: orders that the
// ledger knows nothing of may have been finished since, and would be issued twice.
// What the ledger has recorded is finished, with the same bytes.
//
// source is read once for each attempt; it must return the same bytes each time.
func (s *Store) Load(ctx context.Context, source func() (io.Reader, error), now time.Time) error {
	return s.Recover(ctx, func(tx *Tx) error {
		r, err := source()
		if err != nil {
			return err
		}
		made, err := tx.load(r)
		if err != nil {
			return err
		}
		return tx.closeOpen(made, now)
	})
}

// load returns when the backup was made.
func (tx *Tx) load(r io.Reader) (time.Time, error) {
	var want Backup
	into := loader{tx: tx}
	err := newBackupReader(r).read(handlers{
		header: func(b Backup) error { want = b; return nil },
		table:  into.table,
		row:    into.row,
	})
	if err := errors.Join(err, into.finish()); err != nil {
		return time.Time{}, err
	}
	head, err := tx.LedgerHead()
	if err == nil && head != want.Head {
		err = fmt.Errorf("%w: its ledger is another one than it says", ErrBackup)
	}
	return want.Time, err
}

// crlReserve allows for clocks that differ, in seconds.
const crlReserve = 24 * 60 * 60

// A loader puts rows into tables.
type loader struct {
	tx     *Tx
	insert *sql.Stmt
	truth  []bool // which columns are BOOLEAN
}

// table begins a table, which must be one that a backup holds, and empty.
func (l *loader) table(name string, columns []string) error {
	if err := l.finish(); err != nil {
		return err
	}
	if slices.Contains(notDumped, name) {
		return fmt.Errorf("table %s does not belong into a backup", name)
	}
	var n int
	if name != "meta" { // a new database has some rows of its own there, which a backup has not
		if err := l.tx.row("SELECT count(*) FROM " + name)(&n); err != nil {
			return fmt.Errorf("this program does not know table %s; was the backup made by a newer one? %w", name, err)
		}
	}
	if n != 0 {
		return fmt.Errorf("table %s is not empty: %w", name, ErrExists)
	}
	types, err := l.types(name, columns)
	if err != nil {
		return fmt.Errorf("this program does not know a column of %s; was the backup made by a newer one? %w", name, err)
	}
	l.truth = make([]bool, len(columns))
	for i, t := range types {
		l.truth[i] = t.DatabaseTypeName() == "BOOL"
	}
	values := placeholders(len(columns), func(i int) string { return fmt.Sprintf("$%d", i+1) })
	l.insert, err = l.tx.tx.PrepareContext(l.tx.ctx, "INSERT INTO "+name+" ("+strings.Join(columns, ", ")+") VALUES ("+values+")")
	return err
}

func (l *loader) types(table string, columns []string) ([]*sql.ColumnType, error) {
	rows, err := l.tx.tx.QueryContext(l.tx.ctx, "SELECT "+strings.Join(columns, ", ")+" FROM "+table+" WHERE false")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	types, err := rows.ColumnTypes()
	return types, errors.Join(err, rows.Err())
}

func (l *loader) row(values []any) error {
	for i, v := range values {
		if n, ok := v.(int64); ok && l.truth[i] { // SQLite's
			values[i] = n != 0
		}
	}
	_, err := l.insert.ExecContext(l.tx.ctx, values...)
	return err
}

func (l *loader) finish() error {
	if l.insert == nil {
		return nil
	}
	err := l.insert.Close()
	l.insert = nil
	return err
}

// closeOpen ends what the copy cannot know the end of, and sets FlagRestored.
// Gateways tell which bulletins there were, and nobody which revocation lists: their
// numbers go on behind as many as can have been made since, one a second.
func (tx *Tx) closeOpen(made, now time.Time) error {
	passed := max(0, int64(now.Sub(made).Seconds())) + crlReserve
	err := tx.exec("INSERT INTO crls (number, state, until) SELECT max(number) + $1, $2, 0 FROM crls HAVING count(*) > 0", passed, []byte{})
	if err != nil {
		return err
	}
	for _, statement := range []string{
		`UPDATE orders SET status = 'invalid', reason = 'order_expired' WHERE status IN ('pending', 'ready')
			OR status = 'processing' AND NOT EXISTS (SELECT 1 FROM issuances WHERE ref = 'order:' || orders.id)`,
		"UPDATE authorizations SET status = 'expired', reason = 'order_expired' WHERE status = 'pending'",
	} {
		if err := tx.exec(statement); err != nil {
			return err
		}
	}
	return tx.SetFlag(FlagRestored, []byte(now.UTC().Format(time.RFC3339)))
}
