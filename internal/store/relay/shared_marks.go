// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	"slices"

	"valise/gateway/mailbox"
	"valise/internal/store"
)

// The hashes of a device's submissions lie in rows of up to markRow, those of a batch
// together, under the counter of the first. Rows that are of no use any more go all
// together, when a device's counter passes a multiple of markSweep.
const (
	markRow   = 32 // a row stays small enough to lie in its table
	markSweep = mailbox.KeptHashes / 4
)

// newMarks are the hashes of one device's submissions in one transaction: their counters
// have no gap.
type newMarks struct {
	first  uint64
	hashes [][]byte
}

// mark notes a submission that is done.
func (b *sharedBatch) mark(from *state, sub *mailbox.Submission) {
	m := b.done[from.id]
	if m == nil {
		m = &newMarks{first: sub.Counter}
		b.done[from.id] = m
	}
	m.hashes = append(m.hashes, sub.Hash[:])
}

// find returns the hash of a counter.
func (m *newMarks) find(counter uint64) (hash [32]byte, ok bool) {
	if m == nil || counter < m.first || counter-m.first >= uint64(len(m.hashes)) {
		return hash, false
	}
	copy(hash[:], m.hashes[counter-m.first])
	return hash, true
}

// selectMark finds the row in which a counter may be, and where it begins.
const selectMark = `SELECT first, hashes FROM marks WHERE device = $1 AND first <= $2 ORDER BY first DESC LIMIT 1`

func scanMark(row scanner, counter uint64) (hash [32]byte, err error) {
	var first int64
	var hashes []byte
	if err := row.Scan(&first, &hashes); err != nil {
		return hash, err
	}
	at := (int64(counter) - first) * int64(len(hash))
	if at < 0 || at+int64(len(hash)) > int64(len(hashes)) {
		return hash, mailbox.ErrNotFound
	}
	copy(hash[:], hashes[at:])
	return hash, nil
}

// Recall implements mailbox.Store.
func (s *Shared) Recall(ctx context.Context, device mailbox.Device, counter uint64) (hash [32]byte, err error) {
	err = s.db.View(ctx, func(tx *store.Tx) error {
		id, err := deviceRow(ctx, tx, device)
		if err != nil {
			return err
		}
		var mark int64
		if err := tx.QueryRowContext(ctx, `SELECT counter FROM states WHERE device = $1`, id).Scan(&mark); err != nil {
			return noRow(err)
		}
		if counter > uint64(mark) || counter+mailbox.KeptHashes <= uint64(mark) {
			return mailbox.ErrNotFound
		}
		hash, err = scanMark(tx.QueryRowContext(ctx, selectMark, id, int64(counter)), counter)
		return noRow(err)
	})
	return hash, err
}

// flushMarks writes the marks of the transaction, and drops what they make useless.
func (b *sharedBatch) flushMarks() {
	if len(b.done) == 0 {
		return
	}
	var devices, firsts, sweptDevices, afters, upTos []int64
	var hashes [][]byte
	for _, id := range slices.Sorted(maps.Keys(b.done)) {
		m := b.done[id]
		first := int64(m.first)
		for row := range slices.Chunk(m.hashes, markRow) {
			devices, firsts = append(devices, id), append(firsts, first)
			hashes = append(hashes, slices.Concat(row...))
			first += int64(len(row))
		}
		if after, upTo := useless(int64(m.first)-1), useless(first-1); upTo > after {
			sweptDevices, afters, upTos = append(sweptDevices, id), append(afters, after), append(upTos, upTo)
		}
	}
	b.flow.Later(`INSERT INTO marks (device, first, hashes) SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[])`, devices, firsts, hashes)
	if len(sweptDevices) > 0 {
		b.flow.Later(`DELETE FROM marks m USING unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS a(device, after, number)
			WHERE m.device = a.device AND m.first > a.after AND m.first <= a.number`, sweptDevices, afters, upTos)
	}
}

// useless says up to which counter rows may begin that are of no use when a device's
// counter is at mark.
func useless(mark int64) int64 {
	return max(0, mark/markSweep*markSweep-mailbox.KeptHashes-markRow)
}

// noRow is ErrNotFound for what database/sql says of no row.
func noRow(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return mailbox.ErrNotFound
	}
	return err
}
