// SPDX-License-Identifier: Apache-2.0

package feed

import (
	"errors"
	"fmt"

	"valise/internal/store/authority"
)

// What gateways proved stands in the database, so that neither another gateway's
// word nor a restart nor another process ends the read-only state before it is here.
const (
	flagOwed   = "owed"   // how far a gateway proved that our record went
	flagForked = "forked" // which gateway's checkpoint contradicts the record
)

// owed is how much of our own a gateway has proved to hold.
type owed struct {
	leaves   int64
	bulletin uint64
}

func readOwed(tx *authority.Tx) (o owed, err error) {
	text, err := tx.Flag(flagOwed)
	if errors.Is(err, authority.ErrNotFound) {
		return o, nil
	}
	if err == nil {
		if _, scanErr := fmt.Sscanf(string(text), "%d %d", &o.leaves, &o.bulletin); scanErr != nil {
			err = fmt.Errorf("feed: what gateways proved to know cannot be read from the database: %w", scanErr)
		}
	}
	return o, err
}

// owe makes the authority read-only until it has what a gateway proved to hold.
func owe(tx *authority.Tx, c *claim) error {
	o, err := readOwed(tx)
	if err != nil {
		return err
	}
	o.leaves, o.bulletin = max(o.leaves, c.head.N), max(o.bulletin, c.number())
	return errors.Join(
		tx.SetFlag(flagOwed, fmt.Appendf(nil, "%d %d", o.leaves, o.bulletin)),
		tx.SetFlag(authority.FlagRestored, []byte("a gateway knows more")),
	)
}

// settled reports, as an error, what the authority must have before it goes on.
func settled(tx *authority.Tx) error {
	if text, err := tx.Flag(flagForked); !errors.Is(err, authority.ErrNotFound) {
		return errors.Join(fmt.Errorf("%w: gateway %s", errFork, text), err)
	}
	o, err := readOwed(tx)
	if err != nil {
		return err
	}
	size, err := tx.LedgerSize()
	if err != nil {
		return err
	}
	newest, err := tx.LatestBulletin()
	if err != nil && !errors.Is(err, authority.ErrNotFound) {
		return err
	}
	if size < o.leaves || newest.Number < o.bulletin {
		return fmt.Errorf("%w: %d leaves of %d, bulletin %d of %d", errOwed, size, o.leaves, newest.Number, o.bulletin)
	}
	return tx.ClearFlag(flagOwed)
}

// errOwed: a gateway has proved that it knows more than this database.
var errOwed = errors.New("feed: a gateway holds more of this record, and has not given it back")
