// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// keyword is how a connection string of the form "host=… dbname=…" begins.
var keyword = regexp.MustCompile(`^\s*(host|hostaddr|port|user|password|passfile|dbname|service|servicefile|sslmode)\s*=`)

// IsPostgreSQL reports whether a database's name is a PostgreSQL connection string
// (a URL or key=value pairs) and not the path of an SQLite file.
func IsPostgreSQL(path string) bool {
	return strings.HasPrefix(path, "postgres://") || strings.HasPrefix(path, "postgresql://") || keyword.MatchString(path)
}

// CheckPostgreSQL parses a connection string and reports whether it holds a
// password. Its error shows nothing of the string.
func CheckPostgreSQL(dsn string) (password bool, err error) {
	config, err := parsePostgreSQL(dsn)
	if err != nil {
		return false, err
	}
	// One from PGPASSWORD or ~/.pgpass does not stand in the string.
	return config.Password != "" && strings.Contains(dsn, "assword") || strings.Contains(userInfo(dsn), ":"), nil
}

// userInfo is what stands before the host in a URL.
func userInfo(dsn string) string {
	_, rest, ok := strings.Cut(dsn, "://")
	if !ok {
		return ""
	}
	authority, _, _ := strings.Cut(rest, "/")
	at := strings.LastIndexByte(authority, '@')
	return authority[:max(at, 0)]
}

func parsePostgreSQL(dsn string) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		// The driver's own text quotes the string.
		return nil, errors.New("store: the PostgreSQL connection string is malformed, or names a file that cannot be read")
	}
	if err := checkTransport(config); err != nil {
		return nil, err
	}
	return config, nil
}

// checkTransport refuses to talk to another host without knowing that it is the
// right one. The driver's default would fall back to plain text.
func checkTransport(config *pgx.ConnConfig) error {
	check := func(host string, verified bool) error {
		if verified || local(host) {
			return nil
		}
		return fmt.Errorf("store: PostgreSQL on %s without a verified certificate: add sslmode=verify-full and sslrootcert to the connection string", host)
	}
	verified := func(c *pgconn.FallbackConfig) bool {
		return c.TLSConfig != nil && (!c.TLSConfig.InsecureSkipVerify || c.TLSConfig.VerifyPeerCertificate != nil)
	}
	err := check(config.Host, verified(&pgconn.FallbackConfig{TLSConfig: config.TLSConfig}))
	for _, f := range config.Fallbacks {
		err = errors.Join(err, check(f.Host, verified(f)))
	}
	return err
}

func local(host string) bool {
	if strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// Settings of our sessions, in milliseconds where they are times.
const (
	// A process that stands still inside a transaction (stopped, or cut off
	// from the network) loses it, and its locks, after a minute.
	idleInTransaction = "60000"
	connectTimeout    = 5 * time.Second
)

func openPostgreSQL(ctx context.Context, cfg Config) (*DB, error) {
	config, err := parsePostgreSQL(cfg.Path)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("PostgreSQL database %s on %s", config.Database, config.Host)
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "valise"
	}
	config.RuntimeParams["idle_in_transaction_session_timeout"] = idleInTransaction
	for name, value := range serverPatience {
		config.RuntimeParams[name] = value
	}
	// A sequential scan of a small table counts as a read of the whole table:
	// serializable transactions would then fail for rows that they never saw.
	config.RuntimeParams["enable_seqscan"] = "off"
	if config.ConnectTimeout == 0 || config.ConnectTimeout > time.Minute {
		config.ConnectTimeout = connectTimeout
		if several(config) {
			config.ConnectTimeout = severalTimeout
		}
	}
	if config.ValidateConnect == nil { // of several hosts, the one that can write
		config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	l, err := readLevels(cfg.Migrations)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	servers := &servers{links: map[*link]struct{}{}, check: (*connecting).durable}
	if cfg.UnsafeNoSync {
		servers.check = (*connecting).hasty
	}
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	db := &DB{dialect: PostgreSQL, servers: servers, stop: stop}
	db.greet = func(ctx context.Context, conn *pgx.Conn) error {
		return db.present(ctx, conn, cfg.ApplicationID, l.own)
	}
	pool := stdlib.OpenDB(*config, stdlib.OptionBeforeConnect(servers.next), stdlib.OptionAfterConnect(db.greet), stdlib.OptionResetSession(usable))
	pool.SetMaxOpenConns(cfg.Connections)
	pool.SetMaxIdleConns(cfg.Connections)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	db.writer, db.reader, db.line = pool, pool, config.Copy()
	if several(config) {
		go servers.watch(watching, config.Copy())
	}
	// Who waits for a table keeps everybody else from it: migrations have connections
	// of their own, which do not wait for long.
	impatient := config.Copy()
	impatient.RuntimeParams["lock_timeout"] = strconv.FormatInt(lockTimeout.Milliseconds(), 10)
	builder := stdlib.OpenDB(*impatient, stdlib.OptionBeforeConnect(servers.next), stdlib.OptionResetSession(usable))
	defer builder.Close()
	if err := db.found(ctx, cfg, builder); err != nil {
		return nil, fmt.Errorf("store: open %s: %w", name, errors.Join(hush(err, config.Password), db.Close()))
	}
	db.founded.Store(true)
	return db, nil
}

// hush replaces an error that shows the password; none is known to.
func hush(err error, password string) error {
	if password != "" && strings.Contains(err.Error(), password) {
		return errors.New("the server refuses, in words that show the password")
	}
	return err
}

// foundingLock is held, as an advisory lock of the session, while a database is
// claimed and migrated, so that of two programs that start at once one waits.
const foundingLock = 0x56414c4900000001

// found claims the database for this application and migrates it.
func (db *DB) found(ctx context.Context, cfg Config, builder *sql.DB) (err error) {
	conn, err := db.writer.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", int64(foundingLock)); err != nil {
		return err
	}
	defer func() {
		_, e := conn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", int64(foundingLock))
		err = errors.Join(err, e)
	}()
	if err := claimPostgreSQL(ctx, db.writer, cfg.ApplicationID, cfg.Expect); err != nil {
		return err
	}
	return migrate(ctx, builder, cfg, PostgreSQL, &shared{db: db.writer, application: cfg.ApplicationID, attempts: cfg.attempts})
}

// claimPostgreSQL writes the application id into a schema without tables and
// compares it in any other. The schema is the first of the search path.
func claimPostgreSQL(ctx context.Context, db *sql.DB, want int32, expect Expectation) error {
	var tables int
	var ours bool
	err := db.QueryRowContext(ctx, `SELECT count(*), coalesce(bool_or(relname = 'valise_database'), false)
		FROM pg_class WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
		AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')`).Scan(&tables, &ours)
	if err != nil {
		return err
	}
	switch {
	case !ours && tables > 0:
		return fmt.Errorf("%w (it has tables, and none of ours)", ErrForeign)
	case !ours && expect == Existing:
		return ErrMissing
	case ours && expect == Fresh:
		return ErrPresent
	case !ours:
		_, err := db.ExecContext(ctx, "CREATE TABLE valise_database AS SELECT CAST("+strconv.Itoa(int(want))+" AS BIGINT) AS application, CAST(0 AS BIGINT) AS oldest")
		return err
	}
	var id int64
	if err := db.QueryRowContext(ctx, "SELECT application FROM valise_database").Scan(&id); err != nil {
		return err
	}
	if id != int64(want) {
		return fmt.Errorf("%w (application id %#x, want %#x)", ErrForeign, uint32(id), uint32(want))
	}
	return nil
}

// ErrHeld is returned by Hold when another session has the lock.
var ErrHeld = errors.New("another process holds this database")

// Hold takes an advisory lock of PostgreSQL and returns the connection that holds it:
// the lock ends with that. It waits a moment for a session that is about to end.
func (db *DB) Hold(ctx context.Context, lock int64) (*sql.Conn, error) {
	if db.dialect != PostgreSQL {
		return nil, errors.New("store: only PostgreSQL has advisory locks")
	}
	conn, err := db.writer.Conn(ctx)
	if err != nil {
		return nil, err
	}
	for attempt := 0; ; attempt++ {
		var ours bool
		err := conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", lock).Scan(&ours)
		if err == nil && ours {
			return conn, nil
		}
		if err == nil && attempt < holdAttempts {
			err = pause(ctx, 50*time.Millisecond)
			if err == nil {
				continue
			}
		} else if err == nil {
			err = ErrHeld
		}
		return nil, errors.Join(err, conn.Close())
	}
}

const holdAttempts = 40
