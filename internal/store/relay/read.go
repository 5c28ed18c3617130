// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"

	"valise/gateway/mailbox"
	"valise/internal/store"
)

// tables answer what is asked alike of both databases.
type tables struct {
	db    *store.DB
	id    [16]byte // which store this is; another one after a restore
	floor uint64   // numbers of mailboxes that are new begin behind it
}

// Read implements mailbox.Store.
func (s tables) Read(ctx context.Context, device mailbox.Device, after uint64, count, bytes int) ([]mailbox.Entry, error) {
	entries, _, err := s.readUpTo(ctx, device, after, math.MaxInt64, count, bytes)
	return entries, err
}

// readUpTo reads the mail after one number and up to another. more says that there is
// some that count or bytes left out.
func (s tables) readUpTo(ctx context.Context, device mailbox.Device, after, upTo uint64, count, bytes int) (entries []mailbox.Entry, more bool, err error) {
	return s.some(ctx, count, bytes, selectMail, device[:], int64(after), int64(upTo), count)
}

// selectMail is what a device that is Free has after one number, and up to another.
const selectMail = `SELECT m.number, m.kind, g.group_id, m.epoch, d.device, m.time, m.payload
	FROM mail m
	JOIN groups g ON g.id = m.grp
	JOIN devices d ON d.id = m.sender
	WHERE m.device = (SELECT o.id FROM devices o JOIN states s ON s.device = o.id WHERE o.device = $1 AND s.hold = 0) AND m.number > $2 AND m.number <= $3
	ORDER BY m.number LIMIT $4`

// some returns the entries that a query finds, at most count and, beyond the first, at
// most so many bytes of payload.
func (s tables) some(ctx context.Context, count, bytes int, query string, args ...any) (entries []mailbox.Entry, more bool, err error) {
	err = s.db.View(ctx, func(tx *store.Tx) error {
		entries, more = nil, false
		rows, err := tx.QueryContext(ctx, query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for total := 0; rows.Next(); {
			e, err := scanEntry(rows)
			if err != nil {
				return err
			}
			if total += len(e.Payload); total > bytes && len(entries) > 0 {
				more = true
				break
			}
			entries = append(entries, e)
		}
		more = more || len(entries) == count
		return rows.Err()
	})
	if err != nil {
		return nil, false, fmt.Errorf("relay store: read a mailbox: %w", err)
	}
	return entries, more, nil
}

// Last implements mailbox.Store.
func (s tables) Last(ctx context.Context, device mailbox.Device) (last uint64, err error) {
	err = s.db.View(ctx, func(tx *store.Tx) error {
		err := tx.QueryRowContext(ctx, `SELECT s.last FROM states s JOIN devices d ON d.id = s.device WHERE d.device = $1`, device[:]).Scan(&last)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return last, err
}

func scanEntry(rows *sql.Rows) (e mailbox.Entry, err error) {
	var sender []byte
	if err := rows.Scan(&e.Number, &e.Kind, &e.Group, &e.Epoch, &sender, &e.Time, &e.Payload); err != nil {
		return e, err
	}
	copy(e.Sender[:], sender)
	return e, nil
}

// Group implements mailbox.Store.
func (s tables) Group(ctx context.Context, id []byte) (*mailbox.Group, error) {
	var g *mailbox.Group
	err := s.db.View(ctx, func(tx *store.Tx) error {
		g = &mailbox.Group{ID: id}
		var row int64
		err := tx.QueryRowContext(ctx, `SELECT id, epoch, info FROM groups WHERE group_id = $1`, id).Scan(&row, &g.Epoch, &g.Info)
		if errors.Is(err, sql.ErrNoRows) {
			return mailbox.ErrNotFound
		}
		if err != nil {
			return err
		}
		rows, err := tx.QueryContext(ctx, `SELECT key, value FROM group_records WHERE grp = $1 ORDER BY key`, row)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r mailbox.Record
			if err := rows.Scan(&r.Key, &r.Value); err != nil {
				return err
			}
			g.Records = append(g.Records, r)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("relay store: group: %w", err)
	}
	return g, nil
}

// Known implements mailbox.Store.
func (s tables) Known(ctx context.Context, devices []mailbox.Device) (map[mailbox.Device]bool, error) {
	known := make(map[mailbox.Device]bool, len(devices))
	err := s.db.View(ctx, func(tx *store.Tx) error {
		for _, d := range devices {
			_, err := deviceRow(ctx, tx, d)
			if err != nil && !errors.Is(err, mailbox.ErrNotFound) {
				return err
			}
			known[d] = err == nil
		}
		return nil
	})
	return known, err
}

// offered says of a device that others may begin something with it.
const offered = `EXISTS (SELECT 1 FROM key_packages k WHERE k.device = d.id) AND EXISTS (SELECT 1 FROM states s WHERE s.device = d.id AND s.hold = 0)`

// Directory implements mailbox.Store.
func (s tables) Directory(ctx context.Context, prefix string, limit int) (list []mailbox.Listing, err error) {
	err = s.db.View(ctx, func(tx *store.Tx) error {
		list = nil
		rows, err := tx.QueryContext(ctx, `SELECT device, address, chain FROM devices d
			WHERE address LIKE $1 ESCAPE '\' AND `+offered+`
			ORDER BY address, id LIMIT $2`, likePrefix(prefix), limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var l mailbox.Listing
			var device, chain []byte
			if err := rows.Scan(&device, &l.Address, &chain); err != nil {
				return err
			}
			copy(l.Device[:], device)
			if l.Chain, err = parseChain(chain); err != nil {
				return err
			}
			list = append(list, l)
		}
		return rows.Err()
	})
	return list, err
}

var likeEscape = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

func likePrefix(prefix string) string { return likeEscape.Replace(prefix) + "%" }

// Devices implements mailbox.Store.
func (s tables) Devices(ctx context.Context, address string) ([]mailbox.Device, error) {
	return s.devices(ctx, `SELECT device FROM devices d WHERE address = $1 AND `+offered+` ORDER BY id`, address)
}

func (s tables) devices(ctx context.Context, query, address string) (devices []mailbox.Device, err error) {
	err = s.db.View(ctx, func(tx *store.Tx) error {
		devices = nil
		rows, err := tx.QueryContext(ctx, query, address)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var raw []byte
			if err := rows.Scan(&raw); err != nil {
				return err
			}
			devices = append(devices, mailbox.Device(raw))
		}
		return rows.Err()
	})
	return devices, err
}

// Totals implements mailbox.Store.
func (s tables) Totals(ctx context.Context) (t mailbox.Totals, err error) {
	err = s.db.View(ctx, func(tx *store.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM devices), (SELECT count(*) FROM groups),
			(SELECT count(*) FROM messages) + (SELECT count(*) FROM mailbox WHERE message IS NULL), (SELECT count(*) FROM mailbox),
			(SELECT count(*) FROM key_packages), (SELECT count(*) FROM blobs WHERE ended = 0)`).
			Scan(&t.Devices, &t.Groups, &t.Messages, &t.Pointers, &t.KeyPackages, &t.Blobs)
	})
	return t, err
}
