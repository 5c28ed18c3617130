// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"valise/internal/store"
)

// notDumped are the tables that are not in a backup: those of the database itself,
// what must not come back, and what is made again.
var notDumped = []string{
	"goose_db_version", "valise_database", ledgerLock, // the database's own
	"nonces",         // void: the secret is not in the backup either
	"ocsp_responses", // what was good may be suspended since
}

// Dump writes a backup of one consistent state, while others go on writing. The
// header's head is filled in.
func (s *Store) Dump(ctx context.Context, w io.Writer, b Backup) error {
	begun := false
	return s.View(ctx, func(tx *Tx) error {
		if begun {
			return errors.New("authority: the backup was interrupted by the database; make it again")
		}
		begun = true
		return tx.dump(s.db.Dialect(), w, b)
	})
}

func (tx *Tx) dump(d store.Dialect, w io.Writer, b Backup) error {
	head, err := tx.LedgerHead()
	if err != nil {
		return err
	}
	out := newBackupWriter(w)
	err = out.line(lineHeader{
		Backup: backupVersion, Domain: b.Domain, Root: hex.EncodeToString(b.Root[:]), Time: b.Time.UTC(),
		Leaves: head.N, Tree: head.Hash,
	})
	if err != nil {
		return err
	}
	for _, f := range b.Files {
		if err := out.line(lineFile{File: f.Name, Data: blob(f.Data)}); err != nil {
			return err
		}
	}
	tables, err := tx.tables(d)
	if err != nil {
		return err
	}
	for _, name := range tables {
		if err := tx.dumpTable(out, name); err != nil {
			return fmt.Errorf("authority: back up %s: %w", name, err)
		}
	}
	return out.end()
}

// tables lists the tables to dump, those that others refer to first.
func (tx *Tx) tables(d store.Dialect) ([]string, error) {
	all, refers := "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name",
		`SELECT s.name, f."table" FROM sqlite_schema s, pragma_foreign_key_list(s.name) f WHERE s.type = 'table'`
	if d == store.PostgreSQL {
		all = `SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) ORDER BY relname`
		refers = `SELECT a.relname, b.relname FROM pg_constraint c JOIN pg_class a ON a.oid = c.conrelid JOIN pg_class b ON b.oid = c.confrelid
			WHERE c.contype = 'f' AND c.connamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())`
	}
	var names []string
	err := tx.each(func(scan func(...any) error) error {
		var name string
		err := scan(&name)
		if !slices.Contains(notDumped, name) {
			names = append(names, name)
		}
		return err
	}, all)
	if err != nil {
		return nil, err
	}
	needs := make(map[string][]string)
	err = tx.each(func(scan func(...any) error) error {
		var from, to string
		err := scan(&from, &to)
		if from != to {
			needs[from] = append(needs[from], to)
		}
		return err
	}, refers)
	if err != nil {
		return nil, err
	}
	return inOrder(names, needs)
}

// inOrder sorts names so that each stands behind those it needs.
func inOrder(names []string, needs map[string][]string) ([]string, error) {
	var out []string
	for len(out) < len(names) {
		before := len(out)
		for _, name := range names {
			ready := !slices.Contains(out, name)
			for _, need := range needs[name] {
				ready = ready && (slices.Contains(out, need) || !slices.Contains(names, need))
			}
			if ready {
				out = append(out, name)
			}
		}
		if len(out) == before {
			return nil, errors.New("authority: tables refer to each other in a circle")
		}
	}
	return out, nil
}

func (tx *Tx) dumpTable(out *backupWriter, table string) error {
	if !plainName(table) {
		return fmt.Errorf("%q is no name of ours", table)
	}
	rows, err := tx.tx.QueryContext(tx.ctx, "SELECT * FROM "+table)
	if err != nil {
		return err
	}
	defer rows.Close()
	columns, err := rows.ColumnTypes()
	if err != nil {
		return err
	}
	names := make([]string, len(columns))
	bytes := make([]bool, len(columns))
	values, into := make([]any, len(columns)), make([]any, len(columns))
	for i, c := range columns {
		names[i] = c.Name()
		bytes[i] = c.DatabaseTypeName() == "BLOB" || c.DatabaseTypeName() == "BYTEA"
		into[i] = &values[i]
	}
	if err := out.line(lineTable{Table: table, Columns: names}); err != nil {
		return err
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		for i := range values {
			if values[i] == nil && bytes[i] {
				values[i] = []byte{} // no column of bytes may be null; a driver reads empty ones as nil
			}
		}
		if !redact(table, names, values) {
			continue
		}
		if err := out.row(slices.Clone(values)); err != nil {
			return err
		}
	}
	return rows.Err()
}

// redact takes out what must not be in a backup. It reports whether the row is.
func redact(table string, columns []string, values []any) bool {
	switch table {
	case "meta":
		name, _ := values[slices.Index(columns, "name")].(string)
		return !strings.HasPrefix(name, "nonce-") && name != "flag:"+FlagRestored
	case "invitations":
		values[slices.Index(columns, "key")] = []byte{}
	}
	return true
}
