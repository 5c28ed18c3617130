// SPDX-License-Identifier: Apache-2.0

package authority

// FlagRestored is set by a restore from a backup. While it is set, the authority
// issues nothing and signs nothing numbered: AppendLeaf, AddBulletin, AddCheckpoint
// and the issuances return ErrRestored, outside Recover.
const FlagRestored = "restored"

// flagRestored is its row in the table meta.
const flagRestored = "flag:" + FlagRestored

// Writable returns ErrRestored while FlagRestored is set, outside Recover. Whoever is
// about to sign anything asks it in the transaction that decides.
func (tx *Tx) Writable() error {
	if tx.recover || tx.writable {
		return nil
	}
	var n int
	err := tx.row("SELECT count(*) FROM meta WHERE name = $1", flagRestored)(&n)
	if err == nil && n != 0 {
		err = ErrRestored
	}
	tx.writable = err == nil && !tx.loose
	return err
}

// SetFlag stores a named value, in place of an earlier one.
func (tx *Tx) SetFlag(name string, value []byte) error {
	tx.writable = false
	return tx.exec("INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
		"flag:"+name, blob(value))
}

// Flag returns a named value, or ErrNotFound.
func (tx *Tx) Flag(name string) ([]byte, error) {
	var value []byte
	err := tx.row("SELECT value FROM meta WHERE name = $1", "flag:"+name)(&value)
	return value, err
}

// ClearFlag removes a named value; that there is none is no error.
func (tx *Tx) ClearFlag(name string) error {
	return tx.exec("DELETE FROM meta WHERE name = $1", "flag:"+name)
}
