// SPDX-License-Identifier: Apache-2.0

package authority

import "fmt"

// A Checkpoint is a signed head of the ledger.
type Checkpoint struct {
	Size int64
	Note []byte // C2SP signed note
}

// AddCheckpoint stores a checkpoint. There is one for each size: another one for the
// same size returns ErrExists.
func (tx *Tx) AddCheckpoint(c Checkpoint) error {
	if err := tx.Writable(); err != nil {
		return err
	}
	return tx.exec("INSERT INTO checkpoints (size, note) VALUES ($1, $2)", c.Size, c.Note)
}

// LatestCheckpoint returns the checkpoint of the largest tree.
func (tx *Tx) LatestCheckpoint() (Checkpoint, error) {
	var c Checkpoint
	err := tx.row("SELECT size, note FROM checkpoints ORDER BY size DESC LIMIT 1")(&c.Size, &c.Note)
	return c, err
}

// CheckpointCovering returns the smallest checkpoint that has a leaf in its tree.
func (tx *Tx) CheckpointCovering(leaf int64) (Checkpoint, error) {
	var c Checkpoint
	err := tx.row("SELECT size, note FROM checkpoints WHERE size > $1 ORDER BY size LIMIT 1", leaf)(&c.Size, &c.Note)
	return c, err
}

// A SignedBulletin is a bulletin as it was signed.
type SignedBulletin struct {
	Number uint64
	JWS    []byte
}

// AddBulletin stores a bulletin under a number above all earlier ones; ErrState says
// that the number is taken or passed.
func (tx *Tx) AddBulletin(b SignedBulletin) error {
	if b.Number == 0 || b.Number > 1<<62 {
		return fmt.Errorf("authority: bulletin number %d is out of range", b.Number)
	}
	if err := tx.Writable(); err != nil {
		return err
	}
	return tx.change("INSERT INTO bulletins (number, jws) SELECT $1, $2 WHERE NOT EXISTS (SELECT 1 FROM bulletins WHERE number >= $3)",
		int64(b.Number), b.JWS, int64(b.Number))
}

// LatestBulletin returns the bulletin with the highest number.
func (tx *Tx) LatestBulletin() (SignedBulletin, error) {
	var b SignedBulletin
	var number int64
	err := tx.row("SELECT number, jws FROM bulletins ORDER BY number DESC LIMIT 1")(&number, &b.JWS)
	b.Number = uint64(number)
	return b, err
}

// Bulletin returns one bulletin.
func (tx *Tx) Bulletin(number uint64) (SignedBulletin, error) {
	b := SignedBulletin{Number: number}
	err := tx.row("SELECT jws FROM bulletins WHERE number = $1", int64(number))(&b.JWS)
	return b, err
}

// DropBulletins removes all bulletins below a number but never the newest: they are
// superseded, and every change of standing is in the ledger.
func (tx *Tx) DropBulletins(below uint64) error {
	return tx.exec("DELETE FROM bulletins WHERE number < $1 AND number < (SELECT max(number) FROM bulletins)", int64(below))
}
