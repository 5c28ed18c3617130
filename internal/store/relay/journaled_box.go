// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"

	"valise/gateway/mailbox"
	"valise/internal/store"
	"valise/internal/store/relay/journal"
)

// A box is one device in memory: its state, and what of its mail and its hashes
// is not in the database yet.
type box struct {
	id     int64 // of its row; never changes
	device mailbox.Device

	// Owned by the holder of Journaled.commit.
	work  state  // as the running batch leaves it
	round uint64 // the batch that work and slot belong to
	slot  int    // its place in that batch's changes, from 1; 0: it has none

	// Guarded by Journaled.mu. cur is written with commit held as well.
	cur     state
	index   []pointer  // mail that is in the journal only, in order
	urgent  *pressing  // what of it is urgent; nil: nothing
	hashes  [][32]byte // of the counters saved+1, saved+2, …
	saved   uint64     // hashes up to this counter are in the database, or forgotten
	swept   uint64     // no mail up to this number is in the database
	top     uint64     // no mail beyond this number is in the database
	waiting int        // heavy work for this device that the database does not have
	version uint64     // counts changes of cur
	stored  uint64     // the version that the database has
	listed  bool       // it is in Journaled.active
	seen    int64      // last arrival; 0: as the database says
	card    [32]byte   // hash of address and chain; zero: not known
}

// A pointer is one entry of a mailbox.
type pointer struct {
	number uint64
	letter *letter
}

// A letter is a message whose payload lies in the journal.
type letter struct {
	seq         uint64 // of its batch
	part        int64  // which message of the batch, from 1
	place       journal.Place
	size        int
	kind        mailbox.Kind
	urgent      uint8 // its precedence; 0: it is not urgent
	group       *group
	epoch       uint64
	sender      mailbox.Device
	from        int64
	incarnation [16]byte
	counter     uint64
	time        int64
	to          []destination
	one         [1]destination // memory for to: most messages have one recipient
	live        int            // guarded by Journaled.mu; how many mailboxes point to it
}

type destination struct {
	box    *box
	number uint64
}

// upTo says whether a letter comes before a mark or stands at it.
func (l *letter) upTo(seq uint64, part int64) bool {
	return l.seq < seq || l.seq == seq && l.part <= part
}

// A group is a group in memory; work belongs to the batch of that round.
type group struct {
	id    int64 // of its row; never changes
	name  []byte
	cur   groupRow
	work  groupRow
	round uint64
	seq   uint64 // of the batch with its newest step; 0: the database has it
}

// begin makes a box that of a device that has just arrived for the first time.
func (b *box) begin(id int64, floor uint64) {
	b.cur.id, b.cur.last, b.cur.acked = id, floor, floor
	b.swept, b.top = floor, floor
}

// clean says whether the database has all that a box holds.
func (b *box) clean() bool {
	return b.version == b.stored && len(b.index) == 0 && len(b.hashes) == 0 && b.waiting == 0 && b.seen == 0 && !b.unswept()
}

// unswept says whether mail that was acknowledged is still in the database.
func (b *box) unswept() bool { return b.cur.acked > b.swept && b.top > b.swept }

// first is the number at which what is in the journal begins.
func (b *box) first() uint64 {
	if len(b.index) > 0 {
		return b.index[0].number
	}
	return b.cur.last + 1
}

// recall looks for a hash in memory; known says whether the database need not be
// asked. fresh are the hashes behind
// those in memory.
func (b *box) recall(mark, counter uint64, fresh [][32]byte) (hash [32]byte, known bool, err error) {
	switch {
	case counter == 0 || counter > mark || counter+mailbox.KeptHashes <= mark:
		return hash, true, mailbox.ErrNotFound
	case counter > b.saved+uint64(len(b.hashes)):
		return fresh[counter-b.saved-uint64(len(b.hashes))-1], true, nil
	case counter > b.saved:
		return b.hashes[counter-b.saved-1], true, nil
	}
	return hash, false, nil
}

// keep adds hashes, and forgets those that nobody may ask for any more.
func (b *box) keep(hashes [][32]byte) {
	b.hashes = append(b.hashes, hashes...)
	if n := len(b.hashes) - mailbox.KeptHashes; n > mailbox.KeptHashes {
		b.hashes = append([][32]byte(nil), b.hashes[n:]...)
		b.saved += uint64(n)
	}
}

// hashChunk is how many hashes lie in one row of the database.
const hashChunk = 32

// hashSlots is how many rows a device uses in turn, so that the kept ones fit.
const hashSlots = mailbox.KeptHashes/hashChunk + 1

// hashRow is the key of a row of hashes, and base what it must say there.
func hashRow(device int64, counter uint64) (id, base int64) {
	base = int64((counter - 1) / hashChunk)
	return device*64 + base%hashSlots, base
}

// storedHash looks for a hash in the database. A database that once ran without
// a journal has older ones in submissions.
func storedHash(ctx context.Context, tx *store.Tx, device int64, counter uint64) (hash [32]byte, err error) {
	id, base := hashRow(device, counter)
	var all []byte
	err = tx.QueryRowContext(ctx, `SELECT hashes FROM recent WHERE id = $1 AND base = $2`, id, base).Scan(&all)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return hash, err
	}
	if at := int((counter - 1) % hashChunk * 32); at+32 <= len(all) {
		copy(hash[:], all[at:])
	}
	if hash != [32]byte{} {
		return hash, nil
	}
	return recall(ctx, tx, device, counter)
}

// saveHashes writes the hashes of the counters after saved.
func saveHashes(ctx context.Context, tx *store.Tx, device int64, saved uint64, hashes [][32]byte) error {
	for len(hashes) > 0 {
		id, base := hashRow(device, saved+1)
		inside := int(saved % hashChunk)
		n := min(len(hashes), hashChunk-inside)
		var row []byte
		if inside > 0 {
			err := tx.QueryRowContext(ctx, `SELECT hashes FROM recent WHERE id = $1 AND base = $2`, id, base).Scan(&row)
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return err
			}
			row = append(row, make([]byte, max(inside*32-len(row), 0))...)[:inside*32]
		}
		for i := range n {
			row = append(row, hashes[i][:]...)
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO recent (id, base, hashes) VALUES ($1, $2, $3)
			ON CONFLICT (id) DO UPDATE SET base = excluded.base, hashes = excluded.hashes`, id, base, row)
		if err != nil {
			return err
		}
		hashes, saved = hashes[n:], saved+uint64(n)
	}
	return nil
}

// append adds a letter to a batch, and says where its payload begins.
func (l *letter) append(b, payload []byte) ([]byte, int) {
	b = appendMessage(b, l.kind, l.urgent, l.group.name, l.epoch, len(l.to))
	for _, d := range l.to {
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(d.box.id)), d.number)
	}
	b = binary.AppendUvarint(b, uint64(len(payload)))
	return append(b, payload...), len(b)
}

// take puts the letters of a batch that is on disk into the index.
func (b *box) take(given []*letter) {
	number := b.cur.last - uint64(len(given))
	for _, l := range given {
		number++
		b.index = append(b.index, pointer{number, l})
		b.press(pointer{number, l})
	}
}
