// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/store"
)

// taskNumber is the number of a kind of housekeeping.
func taskNumber(task string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(task)) // never fails
	return h.Sum32()
}

// TransportKeys implements mailbox.Node. The first gateway that asks makes them.
//
// They lie in a row because that is where all gateways look anyway, and because they are
// worth no more than it is: with the one key connections can be ended, with the other an
// address can be passed off as proven. Whoever reads the database knows who writes to whom,
// and who writes to it can end all delivery.
func (s *Shared) TransportKeys(ctx context.Context) (mailbox.TransportKeys, error) {
	return s.transportKeys(ctx, false)
}

// RotateTransportKeys exchanges the keys that the gateways share. Each uses them when it
// is started the next time; until all were, those of the other kind cost a round trip.
func (s *Shared) RotateTransportKeys(ctx context.Context) (mailbox.TransportKeys, error) {
	return s.transportKeys(ctx, true)
}

func (s *Shared) transportKeys(ctx context.Context, rotate bool) (keys mailbox.TransportKeys, err error) {
	err = s.db.Update(ctx, func(tx *store.Tx) error {
		var had int64
		keys, had, err = readKeys(ctx, tx)
		if err == nil && !rotate {
			return nil
		}
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		keys = mailbox.TransportKeys{Version: uint64(had) + 1}
		_, _ = rand.Read(keys.Reset[:]) // never fails
		_, _ = rand.Read(keys.Token[:])
		var made int64
		if err := tx.QueryRowContext(ctx, `INSERT INTO transport_keys (version, reset, token, made) VALUES ($1, $2, $3, `+serverTime+`) RETURNING made`,
			int64(keys.Version), keys.Reset[:], keys.Token[:]).Scan(&made); err != nil {
			return err
		}
		keys.Made = time.UnixMilli(made)
		_, err := tx.ExecContext(ctx, `DELETE FROM transport_keys WHERE version < $1`, int64(keys.Version))
		return err
	})
	if err != nil {
		return mailbox.TransportKeys{}, fmt.Errorf("relay store: transport keys: %w", err)
	}
	return keys, nil
}

func readKeys(ctx context.Context, tx *store.Tx) (keys mailbox.TransportKeys, version int64, err error) {
	var reset, token []byte
	var made int64
	err = tx.QueryRowContext(ctx, `SELECT version, reset, token, made FROM transport_keys ORDER BY version DESC LIMIT 1`).Scan(&version, &reset, &token, &made)
	if err != nil {
		return keys, 0, err
	}
	if version < 1 || len(reset) != len(keys.Reset) || len(token) != len(keys.Token) {
		return keys, 0, errors.New("the row of the transport keys is damaged: exchange them")
	}
	return mailbox.TransportKeys{Reset: [32]byte(reset), Token: [32]byte(token), Version: uint64(version), Made: time.UnixMilli(made)}, version, nil
}
