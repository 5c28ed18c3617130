// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// What is acknowledged must outlive the server that took it. Where a server waits for a
// standby (synchronous_standby_names), a commit is acknowledged when that has it. Three
// things could make one look acknowledged that is on one server alone, and be gone after the
// next failover:
//
//   - Somebody cancels the wait. The server then says that the commit is done, and a
//     warning before that. notice turns it into ErrUnconfirmed, and nothing that was read
//     on a connection since is built upon: all connections begin anew.
//   - The driver cancels by itself a statement that it gives up. dial refuses that.
//   - The server is killed while a commit waits, and comes back: after that everybody sees
//     it, although no standby may have it. So a new connection first waits until a
//     standby has all that the connection can see (confirm).

var (
	// ErrUnconfirmed is returned when a server has stopped waiting for a standby: what was to
	// be committed is done, and may be lost with that server. It is to be taken for something of
	// which nobody knows whether it happened.
	ErrUnconfirmed = errors.New("store: the server has committed without the standby that should confirm it: somebody cancelled the wait")
	// ErrLeftBehind is returned for a server that another one has taken the place of.
	ErrLeftBehind = errors.New("store: a server that was left behind: start the standbys' manager there, or take it out of the connection string")
)

// waitRoutine is where PostgreSQL waits for a standby. Its name comes with the warning, which
// is in the server's language.
const waitRoutine = "SyncRepWaitForLSN"

// notice hears what a server says beside its answers, before the answer is taken.
func (s *servers) notice(_ *pgconn.PgConn, n *pgconn.Notice) {
	if n.Routine == waitRoutine {
		s.cancelled.Add(1)
		s.endAll()
	}
}

// A character is what a server says of itself.
type character struct {
	fsync, commit, standbys string
}

// learn asks a new connection's server who it is, and notes that.
func (c *connecting) learn(ctx context.Context, conn *pgconn.PgConn) (g character, err error) {
	answer := conn.ExecParams(ctx, `SELECT current_setting('fsync'), current_setting('synchronous_commit'),
		current_setting('synchronous_standby_names'), substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)`, nil, nil, nil, nil).Read()
	if answer.Err != nil {
		return g, answer.Err
	}
	if len(answer.Rows) != 1 || len(answer.Rows[0]) != 4 {
		return g, errors.New("store: the server does not say how it commits")
	}
	row := answer.Rows[0]
	g = character{string(row[0]), string(row[1]), string(row[2])}
	timeline, err := strconv.ParseUint(string(row[3]), 16, 32)
	if err != nil {
		return g, fmt.Errorf("store: the server's timeline is %q", row[3])
	}
	return g, c.note(linkOf(conn.Conn()), uint32(timeline))
}

// linkOf finds the link below a connection.
func linkOf(conn net.Conn) *link {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	l, _ := conn.(*link)
	return l
}

// durable makes sure that a commit on a new connection is on disk when it is acknowledged, and
// on the standby if the server waits for one.
func (c *connecting) durable(ctx context.Context, conn *pgconn.PgConn) error {
	g, err := c.learn(ctx, conn)
	if err != nil {
		return err
	}
	if g.fsync != "on" {
		return errors.New("the server runs with fsync off, which loses what it has acknowledged: switch it on")
	}
	switch g.commit {
	case "on", "remote_apply":
	default: // off, local, remote_write
		if _, err := conn.Exec(ctx, "SET synchronous_commit = on").ReadAll(); err != nil {
			return err
		}
	}
	if g.standbys == "" {
		return nil
	}
	return c.confirm(ctx, conn)
}

// confirm waits until a standby has what is visible now: it commits something without any
// effect, and may be cancelled. It has the time that a connection has.
func (c *connecting) confirm(ctx context.Context, conn *pgconn.PgConn) error {
	before := c.cancelled.Load()
	_, err := conn.Exec(ctx, "SELECT pg_logical_emit_message(true, 'valise', '')").ReadAll()
	if err == nil && c.cancelled.Load() != before {
		err = ErrUnconfirmed
	}
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("store: the server waits for a standby that does not confirm what is committed: %w", err)
	}
	return err
}

// hasty lets a new connection's commits wait for nothing: the control of durability tests.
func (c *connecting) hasty(ctx context.Context, conn *pgconn.PgConn) error {
	_, err := conn.Exec(ctx, "SET synchronous_commit = off").ReadAll()
	return err
}

// several reports whether a connection string names more than one server.
func several(config *pgx.ConnConfig) bool { return len(distinct(&config.Config)) > 1 }
