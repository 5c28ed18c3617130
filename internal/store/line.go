// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
)

// A Line is one connection to PostgreSQL beside those of a DB: it holds advisory locks for as
// long as it lives, hears notifications, or sends them. What it writes need not outlast the
// server, and so nothing waits for a disk: it is for signs of life, never for what was
// promised. One goroutine at a time may use it.
type Line struct{ conn *pgx.Conn }

// Line opens one.
func (db *DB) Line(ctx context.Context) (*Line, error) {
	if db.line == nil {
		return nil, errors.New("store: only PostgreSQL has lines")
	}
	config := db.line.Copy()
	db.servers.prepare(config, db.servers.check)
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, hush(err, db.line.Password)
	}
	l := &Line{conn}
	if err = db.greet(ctx, conn); err == nil {
		err = l.Do(ctx, "SET synchronous_commit = off")
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Lock takes an advisory lock that lives as long as the line, unless another session has it.
func (l *Line) Lock(ctx context.Context, lock int64, shared bool) (ours bool, err error) {
	query := "SELECT pg_try_advisory_lock($1)"
	if shared {
		query = "SELECT pg_try_advisory_lock_shared($1)"
	}
	err = l.conn.QueryRow(ctx, query, lock).Scan(&ours)
	return ours, err
}

// Unlock gives a lock back.
func (l *Line) Unlock(ctx context.Context, lock int64) error {
	return l.Do(ctx, "SELECT pg_advisory_unlock($1)", lock)
}

// Do runs one statement.
func (l *Line) Do(ctx context.Context, query string, args ...any) error {
	_, err := l.conn.Exec(ctx, query, args...)
	return err
}

// Row asks for one row.
func (l *Line) Row(ctx context.Context, query string, args ...any) pgx.Row {
	return l.conn.QueryRow(ctx, query, args...)
}

// Listen has Hear return what is sent to a channel from now on.
func (l *Line) Listen(ctx context.Context, channel string) error {
	return l.Do(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize())
}

// Hear waits for a notification. If it returns because ctx has ended, the line can still be
// used.
func (l *Line) Hear(ctx context.Context) (payload string, err error) {
	n, err := l.conn.WaitForNotification(ctx)
	if err != nil {
		return "", err
	}
	return n.Payload, nil
}

// Notify sends notifications to a channel, together and in their order, in a transaction
// that does nothing else: until that has ended, nobody else's with a notification can.
func (l *Line) Notify(ctx context.Context, channel string, payloads []string) error {
	return l.Do(ctx, "SELECT pg_notify($1, p) FROM unnest($2::text[]) WITH ORDINALITY AS u(p, i) ORDER BY i", channel, payloads)
}

// Usable reports whether the line has not ended, as far as is known without asking.
func (l *Line) Usable() bool { return !l.conn.IsClosed() }

// Close ends the line, and its locks with it.
func (l *Line) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	return l.conn.Close(ctx)
}
