// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// present makes a new connection known as one of a program of this schema, by an advisory
// lock that says application and version and ends with the connection. Then it sees
// whether the schema has meanwhile become too new: in this order, so that whoever changes
// the schema sees the connection, or the connection sees the change.
func (db *DB) present(ctx context.Context, conn *pgx.Conn, application int32, own int64) error {
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock_shared($1, $2)", application, int32(own)); err != nil {
		return err
	}
	if !db.founded.Load() {
		return nil // Open looks itself
	}
	var oldest int64
	if err := conn.QueryRow(ctx, "SELECT oldest FROM valise_database").Scan(&oldest); err != nil {
		return err
	}
	if oldest > own {
		return newer(oldest, oldest, own)
	}
	return nil
}

// shared is a PostgreSQL database as ground.
type shared struct {
	db          *sql.DB
	application int32
	attempts    int // of tests; 0: holdAttempts
}

// recorded implements ground. A database from before this was kept gets its column.
func (s *shared) recorded(ctx context.Context) (oldest int64, err error) {
	var has bool
	err = s.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM pg_attribute
		WHERE attrelid = to_regclass('valise_database') AND attname = 'oldest' AND NOT attisdropped)`).Scan(&has)
	if err != nil {
		return 0, err
	}
	if !has {
		if _, err := s.db.ExecContext(ctx, "ALTER TABLE valise_database ADD COLUMN oldest BIGINT NOT NULL DEFAULT 0"); err != nil {
			return 0, err
		}
	}
	return oldest, s.db.QueryRowContext(ctx, "SELECT oldest FROM valise_database").Scan(&oldest)
}

// record implements ground.
func (s *shared) record(ctx context.Context, oldest int64) error {
	_, err := s.db.ExecContext(ctx, "UPDATE valise_database SET oldest = $1", oldest)
	return err
}

// vacant implements ground. A program that has just ended gets a moment to be gone.
func (s *shared) vacant(ctx context.Context, oldest int64) error {
	for attempt := 0; ; attempt++ {
		names, err := s.older(ctx, oldest)
		if err != nil || len(names) == 0 {
			return err
		}
		if attempt == cmp.Or(s.attempts, holdAttempts) {
			return fmt.Errorf("%w (connected are: %s)", ErrOlder, strings.Join(names, "; "))
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// older names the programs that are connected and older than this.
func (s *shared) older(ctx context.Context, oldest int64) (names []string, err error) {
	rows, err := s.db.QueryContext(ctx, `SELECT l.objid::bigint, coalesce(host(a.client_addr), 'this machine'), min(a.pid), count(*)
		FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
		WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted AND l.classid = $1::bigint::oid AND l.objid < $2::bigint::oid
		AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
		GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 8`, int64(uint32(s.application)), oldest)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var version, pid, n int64
		var from string
		if err := rows.Scan(&version, &from, &pid, &n); err != nil {
			return nil, err
		}
		names = append(names, fmt.Sprintf("schema %d from %s, %d connections, the first as process %d of the server", version, from, n, pid))
	}
	return names, rows.Err()
}

// embedded is an SQLite file as ground.
type embedded struct{ db *sql.DB }

// recorded implements ground.
func (e embedded) recorded(ctx context.Context) (oldest int64, err error) {
	return oldest, e.db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&oldest)
}

// record implements ground.
func (e embedded) record(ctx context.Context, oldest int64) error {
	_, err := e.db.ExecContext(ctx, "PRAGMA user_version = "+strconv.FormatInt(oldest, 10))
	return err
}

// vacant implements ground: a file can leave its write-ahead log only while nobody else has
// it open, of whatever version.
func (e embedded) vacant(ctx context.Context, _ int64) error {
	var mode string
	err := e.db.QueryRowContext(ctx, "PRAGMA journal_mode = DELETE").Scan(&mode)
	if Retryable(err) || err == nil && mode != "delete" {
		return ErrOlder
	}
	if err != nil {
		return err
	}
	return e.db.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode)
}
