// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"valise/ledger"
)

// ErrEntry is returned for an entry that must not follow the record as it stands.
var ErrEntry = errors.New("authority: the entry does not fit the ledger")

// AppendLeaf appends an entry and its payload in this transaction, and returns the
// leaf's index. Indexes have no gaps and the tree never forks, whoever else appends.
// Entries have times that never decrease.
func (tx *Tx) AppendLeaf(entry *ledger.Entry, payload []byte) (int64, error) {
	if !entry.Records(payload) {
		return 0, fmt.Errorf("%w: it is another payload's", ErrEntry)
	}
	newest, err := tx.newestTime()
	if err != nil {
		return 0, err
	}
	if entry.Time.Before(newest) {
		return 0, fmt.Errorf("%w: its time %v is before %v", ErrEntry, entry.Time, newest)
	}
	return tx.appendLeaf(entry, payload)
}

// AppendIssuance appends the leaf of a certificate that is going to be signed, as an
// entry without a time.
func (tx *Tx) AppendIssuance(tbs []byte) (int64, error) {
	entry, err := ledger.NewIssuance(tbs)
	if err != nil {
		return 0, err
	}
	return tx.appendLeaf(entry, tbs)
}

func (tx *Tx) appendLeaf(entry *ledger.Entry, payload []byte) (int64, error) {
	if !tx.appends {
		return 0, errAppends
	}
	if err := tx.Writable(); err != nil {
		return 0, err
	}
	size, err := tx.LedgerSize()
	if err != nil {
		return 0, err
	}
	hashes, err := ledger.Append(size, entry.Leaf(), storedHashes{tx})
	if err != nil {
		return 0, err
	}
	if err := tx.Later().exec("INSERT INTO leaves (id, entry, payload, subject) VALUES ($1, $2, $3, $4)",
		size, entry.Marshal(), payload, entry.Subject[:]); err != nil {
		return 0, err
	}
	tx.tail = &tail{size + 1, entry.Marshal()}
	return size, tx.storeHashes(ledger.Count(size), hashes)
}

// storeHashes stores hashes at indexes from first on.
func (tx *Tx) storeHashes(first int64, hashes []tlog.Hash) error {
	args := make([]any, 0, 2*len(hashes))
	for i, h := range hashes {
		args = append(args, first+int64(i), h[:])
	}
	rows := placeholders(len(hashes), func(i int) string { return fmt.Sprintf("($%d, $%d)", 2*i+1, 2*i+2) })
	return tx.Later().exec("INSERT INTO hashes (id, hash) VALUES "+rows, args...)
}

func placeholders(n int, one func(i int) string) string {
	all := make([]string, n)
	for i := range all {
		all[i] = one(i)
	}
	return strings.Join(all, ", ")
}

// A tail is the ledger's end: how many leaves there are, and the newest one's entry.
type tail struct {
	size  int64
	entry []byte // of the newest; nil if there is none
}

// end looks at the ledger's end, once in a transaction: only its own appends change
// what it sees. It asks whether the store is writable by the way.
func (tx *Tx) end() (*tail, error) {
	if tx.tail != nil {
		return tx.tail, nil
	}
	t, flags := new(tail), 0
	err := tx.row(`SELECT coalesce(newest.id + 1, 0), newest.entry, flags.n FROM (SELECT count(*) AS n FROM meta WHERE name = $1) AS flags
		LEFT JOIN (SELECT id, entry FROM leaves ORDER BY id DESC LIMIT 1) AS newest ON true`, flagRestored)(&t.size, &t.entry, &flags)
	if err != nil {
		return nil, err
	}
	if !tx.loose {
		tx.tail, tx.writable = t, flags == 0
	}
	return t, nil
}

// newestTime is the newest entry's, or zero.
func (tx *Tx) newestTime() (time.Time, error) {
	t, err := tx.end()
	if err != nil || t.entry == nil {
		return time.Time{}, err
	}
	entry, err := ledger.ParseEntry(t.entry)
	if err != nil {
		return time.Time{}, err
	}
	return entry.Time, nil
}

// LedgerSize returns the number of leaves.
func (tx *Tx) LedgerSize() (int64, error) {
	t, err := tx.end()
	if err != nil {
		return 0, err
	}
	return t.size, nil
}

// LedgerEntry returns the entry behind a leaf.
func (tx *Tx) LedgerEntry(index int64) (*ledger.Entry, error) {
	var data []byte
	if err := tx.row("SELECT entry FROM leaves WHERE id = $1", index)(&data); err != nil {
		return nil, err
	}
	return ledger.ParseEntry(data)
}

// FindLeaf returns the newest leaf with a subject, and its entry.
func (tx *Tx) FindLeaf(subject [32]byte) (int64, *ledger.Entry, error) {
	var index int64
	var data []byte
	err := tx.row("SELECT id, entry FROM leaves WHERE subject = $1 ORDER BY id DESC LIMIT 1", subject[:])(&index, &data)
	if err != nil {
		return 0, nil, err
	}
	entry, err := ledger.ParseEntry(data)
	if err == nil && entry.Subject != subject {
		err = fmt.Errorf("authority: ledger leaf %d is damaged", index)
	}
	return index, entry, err
}

// Items returns leaves with what they stand for, from an index on, at most limit of
// them. Nothing is verified but their form and order.
func (tx *Tx) Items(from int64, limit int) ([]ledger.Item, error) {
	var all []ledger.Item
	err := tx.each(func(scan func(...any) error) error {
		var item ledger.Item
		var data []byte
		if err := scan(&item.Index, &data, &item.Payload); err != nil {
			return wrap(err)
		}
		if item.Index != from+int64(len(all)) {
			return fmt.Errorf("authority: ledger leaf %d is missing", from+int64(len(all)))
		}
		var err error
		if item.Entry, err = ledger.ParseEntry(data); err != nil {
			return fmt.Errorf("authority: ledger leaf %d is damaged: %w", item.Index, err)
		}
		all = append(all, item)
		return nil
	}, "SELECT id, entry, payload FROM leaves WHERE id >= $1 ORDER BY id LIMIT $2", from, limit)
	return all, err
}

// LedgerHead returns size and root hash of the tree.
func (tx *Tx) LedgerHead() (ledger.Head, error) {
	size, err := tx.LedgerSize()
	if err != nil {
		return ledger.Head{}, err
	}
	return tx.LedgerHeadAt(size)
}

// LedgerHeadAt returns the head that the tree had when it had size leaves.
func (tx *Tx) LedgerHeadAt(size int64) (ledger.Head, error) {
	return ledger.HeadOf(size, storedHashes{tx})
}

// ProveInclusion proves that a leaf stands in the tree as it is now.
func (tx *Tx) ProveInclusion(index int64) (tlog.RecordProof, error) {
	size, err := tx.LedgerSize()
	if err != nil {
		return nil, err
	}
	return ledger.ProveInclusion(size, index, storedHashes{tx})
}

// Hashes reads the tree's stored hashes within this transaction, for proofs and
// tiles.
func (tx *Tx) Hashes() tlog.HashReader { return storedHashes{tx} }

// storedHashes reads the tree's hashes within a transaction.
type storedHashes struct{ tx *Tx }

// maxHashes bounds the hashes asked for at once; the database has a bound for
// parameters, and every length of the question is prepared once.
const maxHashes = 256

// ReadHashes implements tlog.HashReader.
func (s storedHashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	found := make(map[int64]tlog.Hash, len(indexes))
	for rest := indexes; len(rest) > 0; {
		some := rest[:min(len(rest), maxHashes)]
		rest = rest[len(some):]
		if err := s.read(some, found); err != nil {
			return nil, err
		}
	}
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		h, ok := found[index]
		if !ok {
			return nil, fmt.Errorf("ledger hash %d: %w", index, ErrNotFound)
		}
		out[i] = h
	}
	return out, nil
}

func (s storedHashes) read(indexes []int64, into map[int64]tlog.Hash) error {
	args := make([]any, len(indexes))
	for i, index := range indexes {
		args[i] = index
	}
	list := placeholders(len(indexes), func(i int) string { return fmt.Sprintf("$%d", i+1) })
	return s.tx.each(func(scan func(...any) error) error {
		var index int64
		var data []byte
		if err := scan(&index, &data); err != nil {
			return wrap(err)
		}
		if len(data) != tlog.HashSize {
			return fmt.Errorf("authority: ledger hash %d is damaged", index)
		}
		into[index] = tlog.Hash(data)
		return nil
	}, "SELECT id, hash FROM hashes WHERE id IN ("+list+")", args...)
}
