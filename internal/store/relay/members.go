// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"fmt"

	"valise/gateway/mailbox"
	"valise/internal/store"
)

// Who stands in a group's tree is kept beside it, by device. Steps bring what changes; for
// a group from before this was kept, List brings all of it, once.

const (
	putMember  = `INSERT INTO group_members (device, grp) SELECT id, $2 FROM devices WHERE device = $1 ON CONFLICT (device, grp) DO NOTHING`
	dropMember = `DELETE FROM group_members WHERE device = (SELECT id FROM devices WHERE device = $1) AND grp = $2`
)

// GroupsOf implements mailbox.Store.
func (s tables) GroupsOf(ctx context.Context, device mailbox.Device, after int64, limit int) ([][]byte, int64, error) {
	return s.groupPage(ctx, `SELECT g.id, g.group_id FROM group_members m JOIN groups g ON g.id = m.grp
		WHERE m.device = (SELECT id FROM devices WHERE device = $4) AND m.grp > $1 AND g.epoch < $3 ORDER BY m.grp LIMIT $2`, after, limit, device[:])
}

// Unlisted implements mailbox.Store.
func (s tables) Unlisted(ctx context.Context, after int64, limit int) ([][]byte, int64, error) {
	return s.groupPage(ctx, `SELECT id, group_id FROM groups WHERE listed = 0 AND id > $1 AND epoch < $3 ORDER BY id LIMIT $2`, after, limit)
}

// groupPage reads groups that go on, by a query with a beginning, a limit and the epoch of
// those that do not.
func (s tables) groupPage(ctx context.Context, query string, after int64, limit int, more ...any) (ids [][]byte, last int64, err error) {
	args := append([]any{after, limit, int64(mailbox.LostEpoch)}, more...)
	err = s.db.View(ctx, func(tx *store.Tx) error {
		ids, last = nil, after
		rows, err := tx.QueryContext(ctx, query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id []byte
			if err := rows.Scan(&last, &id); err != nil {
				return err
			}
			ids = append(ids, id)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, 0, fmt.Errorf("relay store: list groups: %w", err)
	}
	return ids, last, nil
}

// List implements mailbox.Store. The group's row is written first, so that a step that is
// under way is waited for, and changes the list afterwards.
func (s tables) List(ctx context.Context, group []byte, epoch uint64, members []mailbox.Device) error {
	err := s.db.Update(ctx, func(tx *store.Tx) error {
		result, err := tx.ExecContext(ctx, `UPDATE groups SET listed = 1 WHERE group_id = $1 AND epoch = $2 AND listed = 0`, group, int64(epoch))
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return err // it has moved on, or somebody else was faster
		}
		var row int64
		if err := tx.QueryRowContext(ctx, `SELECT id FROM groups WHERE group_id = $1`, group).Scan(&row); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM group_members WHERE grp = $1`, row); err != nil {
			return err
		}
		for _, d := range members {
			if _, err := tx.ExecContext(ctx, putMember, d[:], row); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("relay store: list a group's members: %w", err)
	}
	return nil
}

// keepMembers notes who has come into a group's tree and who has left it.
func (b *batch) keepMembers(group int64, step *mailbox.Step) error {
	for _, d := range step.Left {
		if _, err := b.tx.ExecContext(b.ctx, dropMember, d[:], group); err != nil {
			return err
		}
	}
	for _, d := range step.Joined {
		if _, err := b.tx.ExecContext(b.ctx, putMember, d[:], group); err != nil {
			return err
		}
	}
	return nil
}

// keepMembers is that of batch, in two statements.
func (b *sharedBatch) keepMembers(group int64, step *mailbox.Step) {
	if len(step.Left) > 0 {
		b.flow.Later(`DELETE FROM group_members WHERE grp = $1 AND device IN (SELECT id FROM devices WHERE device = ANY($2))`, group, raw(step.Left))
	}
	if len(step.Joined) > 0 {
		b.flow.Later(`INSERT INTO group_members (device, grp) SELECT id, $1 FROM devices WHERE device = ANY($2)
			ON CONFLICT (device, grp) DO NOTHING`, group, raw(step.Joined))
	}
}

func raw(devices []mailbox.Device) [][]byte {
	out := make([][]byte, len(devices))
	for i := range devices {
		out[i] = devices[i][:]
	}
	return out
}
