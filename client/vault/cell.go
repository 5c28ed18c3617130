// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"

	"valise/internal/store"
)

// A Tx reads and writes cells inside one transaction.
type Tx struct {
	ctx     context.Context
	tx      *store.Tx
	aead    cipher.AEAD
	names   []byte // key of the HMACs that stand for names
	version uint64 // of what this transaction writes; 0 in a View
}

// A Cell is one value and what it is called.
type Cell struct {
	Row   []byte
	Value []byte
}

// Numbered makes the row of a numbered cell: a zero byte and the number. Such rows
// are kept as they are, so that [Tx.Range] can follow their order; they show how
// many there are, and nothing else.
func Numbered(n uint64) []byte { return binary.BigEndian.AppendUint64([]byte{0}, n) }

// Number reads the row of a numbered cell.
func Number(row []byte) uint64 {
	if !numbered(row) {
		return 0
	}
	return binary.BigEndian.Uint64(row[1:])
}

func numbered(row []byte) bool { return len(row) == 9 && row[0] == 0 }

// Put writes a cell, replacing what was there. A row made by Numbered is a number,
// any other is a name.
func (t *Tx) Put(table string, parent, row, value []byte) error {
	if len(value) > MaxValue {
		return fmt.Errorf("vault: a value of %d bytes for table %s; at most %d", len(value), table, MaxValue)
	}
	p, r, err := t.place(table, parent, row)
	if err != nil {
		return err
	}
	sealed, err := t.seal(table, p, r, row, value)
	if err != nil {
		return err
	}
	_, err = t.tx.ExecContext(t.ctx, `INSERT INTO cell (tbl, parent, row, version, value) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (tbl, parent, row) DO UPDATE SET version = excluded.version, value = excluded.value`,
		table, p, r, int64(t.version), sealed)
	return err
}

// Get reads a cell; nil without an error means that there is none.
func (t *Tx) Get(table string, parent, row []byte) ([]byte, error) {
	p, r, err := t.place(table, parent, row)
	if err != nil {
		return nil, err
	}
	var version uint64
	var sealed []byte
	err = t.tx.QueryRowContext(t.ctx, "SELECT version, value FROM cell WHERE tbl = $1 AND parent = $2 AND row = $3", table, p, r).
		Scan(&version, &sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, damaged(err)
	}
	c, err := t.open(table, p, r, version, sealed)
	if err != nil {
		return nil, err
	}
	return c.Value, nil
}

// Has says whether there is such a cell, without opening it.
func (t *Tx) Has(table string, parent, row []byte) (bool, error) {
	p, r, err := t.place(table, parent, row)
	if err != nil {
		return false, err
	}
	var n int
	err = t.tx.QueryRowContext(t.ctx, "SELECT count(*) FROM cell WHERE tbl = $1 AND parent = $2 AND row = $3", table, p, r).Scan(&n)
	return n > 0, err
}

// Delete removes a cell; one that is not there is fine.
func (t *Tx) Delete(table string, parent, row []byte) error {
	p, r, err := t.place(table, parent, row)
	if err != nil {
		return err
	}
	_, err = t.tx.ExecContext(t.ctx, "DELETE FROM cell WHERE tbl = $1 AND parent = $2 AND row = $3", table, p, r)
	return err
}

// DeleteAll removes every cell under a parent.
func (t *Tx) DeleteAll(table string, parent []byte) error {
	p, _, err := t.place(table, parent, nil)
	if err != nil {
		return err
	}
	_, err = t.tx.ExecContext(t.ctx, "DELETE FROM cell WHERE tbl = $1 AND parent = $2", table, p)
	return err
}

// DeleteThrough removes the numbered cells up to and including number n.
func (t *Tx) DeleteThrough(table string, parent []byte, n uint64) error {
	p, _, err := t.place(table, parent, nil)
	if err != nil {
		return err
	}
	_, err = t.tx.ExecContext(t.ctx, "DELETE FROM cell WHERE tbl = $1 AND parent = $2 AND row <= $3 AND length(row) = 9", table, p, Numbered(n))
	return err
}

// List reads all cells under a parent, in no order that means anything unless
// the table is numbered.
func (t *Tx) List(table string, parent []byte) ([]Cell, error) {
	return t.rows(table, parent, "SELECT row, version, value FROM cell WHERE tbl = $1 AND parent = $2 ORDER BY row")
}

// Range reads at most limit numbered cells with numbers above after, in order.
func (t *Tx) Range(table string, parent []byte, after uint64, limit int) ([]Cell, error) {
	return t.rows(table, parent, "SELECT row, version, value FROM cell WHERE tbl = $1 AND parent = $2 AND row > $3 ORDER BY row LIMIT $4",
		Numbered(after), limit)
}

// Last returns the highest number in a numbered table, 0 if it is empty.
func (t *Tx) Last(table string, parent []byte) (uint64, error) {
	p, _, err := t.place(table, parent, nil)
	if err != nil {
		return 0, err
	}
	var row []byte
	err = t.tx.QueryRowContext(t.ctx, "SELECT row FROM cell WHERE tbl = $1 AND parent = $2 ORDER BY row DESC LIMIT 1", table, p).Scan(&row)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return Number(row), damaged(err)
}

func (t *Tx) rows(table string, parent []byte, query string, args ...any) ([]Cell, error) {
	p, _, err := t.place(table, parent, nil)
	if err != nil {
		return nil, err
	}
	rows, err := t.tx.QueryContext(t.ctx, query, append([]any{table, p}, args...)...)
	if err != nil {
		return nil, damaged(err)
	}
	defer rows.Close()
	var cells []Cell
	for rows.Next() {
		var row, sealed []byte
		var version uint64
		if err := rows.Scan(&row, &version, &sealed); err != nil {
			return nil, damaged(err)
		}
		c, err := t.open(table, p, row, version, sealed)
		if err != nil {
			return nil, err
		}
		cells = append(cells, c)
	}
	return cells, damaged(rows.Err())
}

// place turns the caller's names into those in the file.
func (t *Tx) place(table string, parent, row []byte) (p, r []byte, err error) {
	if table == "" || len(table) > maxTable || len(parent) > MaxKey || len(row) > MaxKey {
		return nil, nil, errKey
	}
	p = t.name("parent", table, parent)
	if numbered(row) {
		return p, row, nil
	}
	return p, t.name("row", table, row), nil
}

func (t *Tx) name(kind, table string, name []byte) []byte {
	mac := hmac.New(sha256.New, t.names)
	mac.Write([]byte(kind + "\x00" + table + "\x00"))
	mac.Write(name)
	return mac.Sum(nil)[:16]
}

// seal encrypts struct { opaque row<0..2^16-1>; opaque value[rest]; }.
func (t *Tx) seal(table string, p, r, row, value []byte) ([]byte, error) {
	plain := make([]byte, 0, 2+len(row)+len(value))
	plain = binary.BigEndian.AppendUint16(plain, uint16(len(row)))
	plain = append(append(plain, row...), value...)
	defer clear(plain)
	nonce := make([]byte, t.aead.NonceSize(), t.aead.NonceSize()+len(plain)+t.aead.Overhead())
	rand.Read(nonce)
	return t.aead.Seal(nonce, nonce, plain, additional(table, p, r, t.version)), nil
}

func (t *Tx) open(table string, p, r []byte, version uint64, sealed []byte) (Cell, error) {
	n := t.aead.NonceSize()
	if len(sealed) < n {
		return Cell{}, fmt.Errorf("%w: a cell of table %s is cut short", ErrAltered, table)
	}
	plain, err := t.aead.Open(nil, sealed[:n], sealed[n:], additional(table, p, r, version))
	if err != nil {
		return Cell{}, fmt.Errorf("%w: a cell of table %s does not open", ErrAltered, table)
	}
	return parseCell(plain)
}

func parseCell(plain []byte) (Cell, error) {
	s := cryptobyte.String(plain)
	var row cryptobyte.String
	if !s.ReadUint16LengthPrefixed(&row) || len(row) > MaxKey {
		return Cell{}, fmt.Errorf("%w: a cell's content is malformed", ErrAltered)
	}
	return Cell{Row: row, Value: append([]byte{}, s...)}, nil
}

// additional is table ‖ parent ‖ row ‖ version, each part with its length.
func additional(table string, p, r []byte, version uint64) []byte {
	b := make([]byte, 0, 64)
	for _, part := range [][]byte{[]byte(table), p, r} {
		b = append(append(b, byte(len(part))), part...)
	}
	return binary.BigEndian.AppendUint64(b, version)
}
