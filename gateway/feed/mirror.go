// SPDX-License-Identifier: Apache-2.0

package feed

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"valise/bulletin"
	"valise/internal/store"
	"valise/ledger"
)

//go:embed migrations/*.sql
var migrations embed.FS

// applicationID marks the file as a gateway's copy of a record ("VGre").
const applicationID = 0x56477265

// A mirror is the copy on disk. It verifies that leaves follow on one another,
// and no signature.
type mirror struct{ db *store.DB }

func openMirror(ctx context.Context, path string) (*mirror, error) {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	db, err := store.Open(ctx, store.Config{Path: path, Migrations: sub, ApplicationID: applicationID})
	if err != nil {
		return nil, err
	}
	return &mirror{db}, nil
}

func (m *mirror) close() error { return m.db.Close() }

// held is the newest of everything, as it was signed; nil where there is none.
type held struct {
	size       int64 // leaves, those after the checkpoint too
	signed     int64 // leaves that the checkpoint covers
	manifest   []byte
	checkpoint []byte
	bulletin   []byte
	statements []seen
}

// seen is a statement that came by hand.
type seen struct {
	raw  []byte
	seen time.Time
}

func (m *mirror) held(ctx context.Context) (*held, error) {
	var h *held
	err := m.db.View(ctx, func(tx *store.Tx) error {
		h = new(held)
		err := errors.Join(
			one(tx.QueryRowContext(ctx, "SELECT coalesce(max(id) + 1, 0) FROM leaves"), &h.size),
			one(tx.QueryRowContext(ctx, "SELECT size, note FROM checkpoints ORDER BY size DESC LIMIT 1"), &h.signed, &h.checkpoint),
			one(tx.QueryRowContext(ctx, newestManifest), &h.manifest),
			one(tx.QueryRowContext(ctx, newestBulletin), &h.bulletin),
		)
		if err != nil {
			return err
		}
		return each(ctx, tx, func(rows *sql.Rows) error {
			var s seen
			var at int64
			if err := rows.Scan(&s.raw, &at); err != nil {
				return err
			}
			s.seen = time.Unix(at, 0)
			h.statements = append(h.statements, s)
			return nil
		}, "SELECT jws, seen FROM statements ORDER BY seen, hash LIMIT $1", maxStatements)
	})
	return h, err
}

// newest returns one document, nil if there is none.
func (m *mirror) newest(ctx context.Context, query string) (raw []byte, err error) {
	err = m.db.View(ctx, func(tx *store.Tx) error {
		raw = nil
		return one(tx.QueryRowContext(ctx, query), &raw)
	})
	return raw, err
}

// manifests returns those that were in force, the newest first.
func (m *mirror) manifests(ctx context.Context) (all [][]byte, err error) {
	err = m.db.View(ctx, func(tx *store.Tx) error {
		all = nil
		return each(ctx, tx, func(rows *sql.Rows) error {
			var raw []byte
			err := rows.Scan(&raw)
			all = append(all, raw)
			return err
		}, "SELECT jws FROM manifests ORDER BY number DESC LIMIT $1", maxManifests)
	})
	return all, err
}

// sizes returns how many leaves are held, and how many the newest checkpoint
// covers.
func (m *mirror) sizes(ctx context.Context) (size, signed int64, err error) {
	err = m.db.View(ctx, func(tx *store.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT (SELECT coalesce(max(id) + 1, 0) FROM leaves),
			(SELECT coalesce(max(size), 0) FROM checkpoints)`).Scan(&size, &signed)
	})
	return size, signed, err
}

// one scans a row, if there is one.
func one(row *sql.Row, into ...any) error {
	if err := row.Scan(into...); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	return nil
}

func each(ctx context.Context, tx *store.Tx, f func(*sql.Rows) error, query string, args ...any) error {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// append adds leaves that follow on those held.
func (m *mirror) append(ctx context.Context, items []ledger.Item) error {
	return m.db.Update(ctx, func(tx *store.Tx) error {
		for _, i := range items {
			hashes, err := ledger.Append(i.Index, i.Entry.Leaf(), stored{ctx, tx})
			if err != nil {
				return err
			}
			if err := exec(ctx, tx, "INSERT INTO leaves (id, entry, payload, subject) VALUES ($1, $2, $3, $4)",
				i.Index, i.Entry.Marshal(), i.Payload, i.Entry.Subject[:]); err != nil {
				return err
			}
			for n, hash := range hashes {
				if err := exec(ctx, tx, "INSERT INTO hashes (id, hash) VALUES ($1, $2)", ledger.Count(i.Index)+int64(n), hash[:]); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func exec(ctx context.Context, tx *store.Tx, query string, args ...any) error {
	_, err := tx.ExecContext(ctx, query, args...)
	return err
}

// truncate drops leaves from an index on, and keeps statements that they held.
func (m *mirror) truncate(ctx context.Context, from int64, keep []seen) error {
	return m.db.Update(ctx, func(tx *store.Tx) error {
		for _, s := range keep {
			if err := addStatement(ctx, tx, s); err != nil {
				return err
			}
		}
		return errors.Join(
			exec(ctx, tx, "DELETE FROM leaves WHERE id >= $1", from),
			exec(ctx, tx, "DELETE FROM hashes WHERE id >= $1", ledger.Count(from)),
		)
	})
}

func addStatement(ctx context.Context, tx *store.Tx, s seen) error {
	hash := sha256.Sum256(s.raw)
	return exec(ctx, tx, "INSERT INTO statements (hash, jws, seen) VALUES ($1, $2, $3) ON CONFLICT (hash) DO NOTHING",
		hash[:], s.raw, s.seen.Unix())
}

// keepStatement keeps a statement that came by hand.
func (m *mirror) keepStatement(ctx context.Context, s seen) error {
	return m.db.Update(ctx, func(tx *store.Tx) error { return addStatement(ctx, tx, s) })
}

// What devices ask for most.
const (
	newestManifest   = "SELECT jws FROM manifests ORDER BY number DESC LIMIT 1"
	newestBulletin   = "SELECT jws FROM bulletins ORDER BY number DESC LIMIT 1"
	newestCheckpoint = "SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1"
)

// The tables of signed documents, and what they are ordered by.
const (
	putCheckpoint = "INSERT INTO checkpoints (size, note) VALUES ($1, $2) ON CONFLICT (size) DO NOTHING"
	putManifest   = "INSERT INTO manifests (number, jws) VALUES ($1, $2) ON CONFLICT (number) DO NOTHING"
	putBulletin   = "INSERT INTO bulletins (number, jws) VALUES ($1, $2) ON CONFLICT (number) DO NOTHING"
)

func (m *mirror) put(ctx context.Context, query string, number int64, raw []byte) error {
	return m.db.Update(ctx, func(tx *store.Tx) error { return exec(ctx, tx, query, number, raw) })
}

// putBulletin keeps a bulletin, drops old ones, and drops statements that came
// by hand and that it knows.
func (m *mirror) putBulletin(ctx context.Context, b *bulletin.Bulletin, raw []byte) error {
	return m.db.Update(ctx, func(tx *store.Tx) error {
		return errors.Join(
			exec(ctx, tx, putBulletin, int64(b.Number), raw),
			exec(ctx, tx, "DELETE FROM bulletins WHERE number < (SELECT max(number) FROM bulletins) - $1", keepBulletins),
			exec(ctx, tx, "DELETE FROM statements WHERE hash IN (SELECT subject FROM leaves WHERE id < $1)", b.LedgerSize),
		)
	})
}

// leaf returns one leaf's entry.
func (m *mirror) leaf(ctx context.Context, index int64) (entry []byte, err error) {
	err = m.db.View(ctx, func(tx *store.Tx) error {
		return tx.QueryRowContext(ctx, "SELECT entry FROM leaves WHERE id = $1", index).Scan(&entry)
	})
	return entry, err
}

// leafOf returns where the record holds a payload, or bulletin.Unrecorded.
func (m *mirror) leafOf(ctx context.Context, payload []byte) (leaf int64, err error) {
	subject := sha256.Sum256(payload)
	err = m.db.View(ctx, func(tx *store.Tx) error {
		leaf = bulletin.Unrecorded
		return one(tx.QueryRowContext(ctx, "SELECT id FROM leaves WHERE subject = $1 ORDER BY id LIMIT 1", subject[:]), &leaf)
	})
	return leaf, err
}

// items reads leaves from an index on.
func (m *mirror) items(ctx context.Context, from int64, limit int) ([]ledger.Item, error) {
	var all []ledger.Item
	err := m.db.View(ctx, func(tx *store.Tx) error {
		all = nil
		return each(ctx, tx, func(rows *sql.Rows) error {
			i, err := scanItem(rows)
			all = append(all, i)
			return err
		}, "SELECT id, entry, payload FROM leaves WHERE id >= $1 ORDER BY id LIMIT $2", from, limit)
	})
	return all, err
}

// eachStatement calls f with every leaf from an index on that holds a statement.
func (m *mirror) eachStatement(ctx context.Context, from int64, f func(ledger.Item)) error {
	const page = 64
	for {
		items, err := m.items(ctx, from, page)
		if err != nil {
			return err
		}
		for _, i := range items {
			if i.Entry.Kind == ledger.KindStatement {
				f(i)
			}
			from = i.Index + 1
		}
		if len(items) < page {
			return nil
		}
	}
}

func scanItem(rows *sql.Rows) (ledger.Item, error) {
	var i ledger.Item
	var data []byte
	if err := rows.Scan(&i.Index, &data, &i.Payload); err != nil {
		return i, err
	}
	var err error
	if i.Entry, err = ledger.ParseEntry(data); err != nil {
		err = fmt.Errorf("feed: leaf %d of the copy is damaged: %w", i.Index, err)
	}
	return i, err
}

// head computes the tree of the first leaves.
func (m *mirror) head(ctx context.Context, size int64) (h ledger.Head, err error) {
	err = m.db.View(ctx, func(tx *store.Tx) error {
		h, err = ledger.HeadOf(size, stored{ctx, tx})
		return err
	})
	return h, err
}

// stored reads the tree's hashes within a transaction.
type stored struct {
	ctx context.Context
	tx  *store.Tx
}

// ReadHashes implements tlog.HashReader.
func (s stored) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for n, index := range indexes {
		var data []byte
		if err := s.tx.QueryRowContext(s.ctx, "SELECT hash FROM hashes WHERE id = $1", index).Scan(&data); err != nil {
			return nil, fmt.Errorf("feed: hash %d of the copy: %w", index, err)
		}
		if len(data) != tlog.HashSize {
			return nil, fmt.Errorf("feed: hash %d of the copy is damaged", index)
		}
		out[n] = tlog.Hash(data)
	}
	return out, nil
}
