// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/store"
)

// A store that was put back into an earlier state has forgotten what devices have
// seen: numbers that it gave to their mail, KeyPackages that it handed out, commits
// that ended an epoch. It must not go on as if nothing had been. Being restored means:
//
//   - Each mailbox goes on far above every number that it can have given out. The
//     number above the gap is a notice, of kind mailbox.Restored: what was taken since
//     the backup is lost, and no group goes on.
//   - No group goes on: what the store has of it may be an epoch that members have
//     left, with somebody in it whom they have removed. Members found successors.
//   - One-time KeyPackages are gone. Last resorts, which are handed out again and again
//     by their nature, stay: without them nobody who is away could be taken along.
//   - Mailboxes of devices that the store has never heard of begin above the gap too.
//
// Marks of submissions stay: what they refuse was done. A device goes on behind the
// lower mark, with other bytes, for messages to groups that do not go on.

// A Restoration says what was done.
type Restoration struct {
	Devices, Groups int64
	Packages        int64  // KeyPackages that were dropped
	Floor           uint64 // of the numbers from now on
}

// noticeBytes is what a mailbox's notice weighs.
const noticeBytes = 16

// leap is how far a mailbox's numbers go up at least: more than one can be given
// between two looks of anybody.
const leap = 1 << 32

// floorAt is the number behind which a store restored at some time goes on. It
// rises by 2^30 a second, faster than a store gives numbers: a store that is restored
// twice from the same backup uses none twice either.
func floorAt(t time.Time) uint64 { return uint64(t.Unix()) << 30 }

// Restored marks the embedded store as one that was put back into the state that it
// had at some time, or if there is none, makes one whose predecessor is gone. No
// gateway may have it open.
func Restored(ctx context.Context, cfg Config, since, now time.Time) (_ Restoration, err error) {
	s, err := openStore(ctx, cfg)
	if err != nil {
		return Restoration{}, err
	}
	switch _, err := s.journalID(ctx, false); {
	case err == nil:
		if s, err = s.flushed(ctx, cfg); err != nil {
			return Restoration{}, err
		}
	case !errors.Is(err, sql.ErrNoRows):
		return Restoration{}, errors.Join(err, s.Close())
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return s.tables.restored(ctx, since, now)
}

// flushed opens a database again, whose journal it has taken over.
func (s *Store) flushed(ctx context.Context, cfg Config) (*Store, error) {
	if err := s.Close(); err != nil {
		return nil, err
	}
	j, err := OpenJournaled(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(j.Flush(ctx), j.Close()); err != nil {
		return nil, err
	}
	return openStore(ctx, cfg)
}

// RestoredShared is Restored for PostgreSQL.
func RestoredShared(ctx context.Context, cfg SharedConfig, since, now time.Time) (_ Restoration, err error) {
	cfg.Alone = true
	s, err := OpenShared(ctx, cfg)
	if err != nil {
		return Restoration{}, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return s.tables.restored(ctx, since, now)
}

// life reads which store this is, and makes it one if it has never been told.
func (s *tables) life(ctx context.Context) error {
	return s.db.Update(ctx, func(tx *store.Tx) error {
		var id []byte
		err := tx.QueryRowContext(ctx, `SELECT id, floor FROM lives`).Scan(&id, &s.floor)
		if errors.Is(err, sql.ErrNoRows) {
			id, s.floor = newLife(), 0
			_, err = tx.ExecContext(ctx, `INSERT INTO lives (one, id, beat, floor) VALUES (1, $1, 0, 0)`, id)
		}
		if err == nil && len(id) != len(s.id) {
			err = errors.New("the row that says which store this is is damaged")
		}
		copy(s.id[:], id)
		return err
	})
}

func newLife() []byte {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	return id
}

func (s *tables) restored(ctx context.Context, since, now time.Time) (r Restoration, err error) {
	if now.Before(since) || now.Unix() < 0 || now.Unix() >= 1<<33 {
		return r, fmt.Errorf("relay store: it is %s by this machine's clock, and the backup was made at %s: set the clock first",
			now.UTC().Format(time.RFC3339), since.UTC().Format(time.RFC3339))
	}
	err = s.db.Update(ctx, func(tx *store.Tx) error {
		r = Restoration{Floor: max(floorAt(now), s.floor+leap)}
		t := &restoring{ctx: ctx, tx: tx, dialect: s.db.Dialect(), since: since.UnixMilli(), now: now.UnixMilli(), floor: int64(r.Floor)}
		for _, step := range []func(*Restoration) error{t.groups, t.packages, t.mailboxes, t.store} {
			if err := step(&r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return r, fmt.Errorf("relay store: restored: %w", err)
	}
	return r, s.life(ctx)
}

// restoring is the one transaction of a restoration.
type restoring struct {
	ctx               context.Context
	tx                *store.Tx
	dialect           store.Dialect
	since, now, floor int64
}

func (t *restoring) exec(query string, args ...any) (int64, error) {
	result, err := t.tx.ExecContext(t.ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// groups ends all groups, and makes one that no device has: that of the notices.
func (t *restoring) groups(r *Restoration) (err error) {
	if r.Groups, err = t.exec(`UPDATE groups SET epoch = $1 WHERE epoch < $1`, int64(mailbox.LostEpoch)); err != nil {
		return err
	}
	_, err = t.exec(`INSERT INTO groups (group_id, epoch, info) VALUES ($1, $2, $3) ON CONFLICT (group_id) DO NOTHING`,
		noGroup[:], int64(mailbox.LostEpoch), []byte{})
	return err
}

// noGroup stands in notices of the store itself.
var noGroup [16]byte

// packages drops one-time KeyPackages, and files that were on their way.
func (t *restoring) packages(r *Restoration) (err error) {
	if r.Packages, err = t.exec(`DELETE FROM key_packages WHERE NOT last_resort`); err != nil {
		return err
	}
	_, err = t.exec(`UPDATE blobs SET expires = 0 WHERE NOT complete`)
	return err
}

// mailboxes puts a notice into each mailbox, above a gap in its numbers. What the notice
// says is put together by the database, as mailbox.RestoredTo writes it.
func (t *restoring) mailboxes(r *Restoration) (err error) {
	var before int64
	if err := t.tx.QueryRowContext(t.ctx, `SELECT coalesce(max(id), 0) FROM messages`).Scan(&before); err != nil {
		return err
	}
	into, id, size, length := "", "", "", ""
	payload := `unhex(printf('%016x%016x', last + 1, $4))`
	if t.dialect == store.PostgreSQL {
		into, id = "id, ", fmt.Sprintf("nextval('message_blocks') * %d, ", blockSize)
		size, length = ", size", fmt.Sprintf(", %d", noticeBytes)
		payload = `int8send(last + 1) || int8send($4::bigint)`
	}
	_, err = t.exec(`INSERT INTO messages (`+into+`kind, grp, epoch, sender, time, refs, payload, incarnation, counter)
		SELECT `+id+`$1, (SELECT id FROM groups WHERE group_id = $2), 0, device, $3, 1, `+payload+`, $5, 0 FROM states WHERE hold <> $6`,
		int64(mailbox.Restored), noGroup[:], t.now, t.since, []byte{}, int64(mailbox.Purged))
	if err != nil {
		return err
	}
	if r.Devices, err = t.exec(`UPDATE states SET last = CASE WHEN last > $1 THEN last + $2 ELSE $3 END`,
		t.floor-leap, int64(leap), t.floor); err != nil {
		return err
	}
	_, err = t.exec(`INSERT INTO mailbox (device, number, message`+size+`)
		SELECT s.device, s.last, m.id`+length+` FROM messages m JOIN states s ON s.device = m.sender WHERE m.kind = $1 AND m.id > $2`,
		int64(mailbox.Restored), before)
	if err != nil {
		return err
	}
	_, err = t.exec(`UPDATE states SET held = held + 1, bytes = bytes + $1 WHERE hold <> $2`, int64(noticeBytes), int64(mailbox.Purged))
	return err
}

// store makes it another store.
func (t *restoring) store(*Restoration) error {
	if _, err := t.exec(`INSERT INTO former_lives (id) SELECT id FROM lives WHERE one = $1 ON CONFLICT (id) DO NOTHING`, 1); err != nil {
		return err
	}
	_, err := t.exec(`UPDATE lives SET id = $1, beat = 0, floor = $2`, newLife(), t.floor)
	return err
}

// Was reports whether this is a store that was restored and, before that, the one with
// this name: of several gateways on it only one is told so by its operator.
func (s *Shared) Was(ctx context.Context, id [16]byte) (was bool, err error) {
	err = s.db.View(ctx, func(tx *store.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM former_lives WHERE id = $1)`, id[:]).Scan(&was)
	})
	return was, err
}

// A Mark says how far a store has come. Kept outside of it, it tells when the store
// was put back into an earlier state by other means than a restore.
type Mark struct {
	Store [16]byte
	Seen  uint64 // rises
}

// ErrRolledBack is wrapped when a store is behind its mark.
var ErrRolledBack = errors.New("this database is an older one than the gateway has used, or another: numbers, key packages and epochs would be given out twice")

// Check compares a store's mark with one that was noted before.
func (m Mark) Check(noted Mark) error {
	if m.Store != noted.Store || m.Seen < noted.Seen {
		return ErrRolledBack
	}
	return nil
}

// Mark says how far the store has come: what it says is on disk.
func (j *Journaled) Mark(context.Context) (Mark, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return Mark{Store: j.db.id, Seen: j.last}, nil
}

// Beat is Mark before it is noted.
func (j *Journaled) Beat(ctx context.Context) (Mark, error) { return j.Mark(ctx) }

// Mark says how far the store has come, counted in beats.
func (s *Shared) Mark(ctx context.Context) (Mark, error) {
	return s.mark(ctx, `SELECT id, beat FROM lives`)
}

// Beat is Mark before it is noted: it counts one more.
func (s *Shared) Beat(ctx context.Context) (Mark, error) {
	return s.mark(ctx, `UPDATE lives SET beat = beat + 1 RETURNING id, beat`)
}

func (s *Shared) mark(ctx context.Context, query string) (m Mark, err error) {
	err = s.db.Update(ctx, func(tx *store.Tx) error {
		var id []byte
		var beat int64
		err := tx.QueryRowContext(ctx, query).Scan(&id, &beat)
		if err == nil && (len(id) != len(m.Store) || beat < 0) {
			err = errors.New("relay store: the row that says which store this is is damaged")
		}
		copy(m.Store[:], id)
		m.Seen = uint64(beat)
		return err
	})
	return m, err
}
