// SPDX-License-Identifier: Apache-2.0

// Package store opens the databases that Valise keeps its state in: the
// authority's, an embedded gateway's and a device's vault. A database is an SQLite
// file, or one in a PostgreSQL server; the texts are the same for both.
//
// Open comes first. It creates an SQLite file with mode 0600 if there is none,
// refuses a database that belongs to another program or whose schema is too new for
// this one, and migrates it. Programs of several versions may use one database: see
// schema.go for what a migration must say and may do.
//
//	db, err := store.Open(ctx, store.Config{
//		Path: "/var/lib/valise/relay.db", ApplicationID: 0x56524c59, Migrations: migrations,
//	})
//
// All work happens in two methods:
//
//	err = db.Update(ctx, func(tx *store.Tx) error {
//		_, err := tx.ExecContext(ctx, "UPDATE t SET n = n + 1 WHERE id = $1", id)
//		return err
//	})
//	err = db.View(ctx, func(tx *store.Tx) error { … })
//
// Update is one serializable read-write transaction; when it returns nil, the change
// is on disk (SQLite: WAL, synchronous=FULL; PostgreSQL: fsync and synchronous_commit
// are on, or Open refuses). View is a consistent read-only snapshot that runs beside
// the writers. Both call the function again when the database asks for it (a lock
// held by another process, a serialization failure), so the function must assign its
// results, not append to them, and must have no other effects.
//
// Never hold a transaction while a card, an HSM, the network or a person is
// awaited: SQLite has one writer. Never call Update inside Update: it waits for
// itself until its context ends. Never go on in a transaction after a statement has
// failed: PostgreSQL refuses every further one.
//
// Rules for the SQL: parameters are $1, $2, … in the order in which they first
// appear; times are int64; every table says STRICT; migrations use the words
// BIGINT, BOOLEAN and BLOB and literals like x”, which are exchanged for the
// dialect's own (see dialect.go); queries have parameters in place of literals.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// Tx is a running transaction. Commit and Rollback belong to Update and View.
type Tx = sql.Tx

// Errors that callers act on.
var (
	// ErrForeign is returned for a database of another program.
	ErrForeign = errors.New("database belongs to another program")
	// ErrNewer is returned when a newer version of Valise has migrated the database to a
	// schema that this one cannot use.
	ErrNewer = errors.New("database was made by a newer version: install that version, or restore a copy made before it ran")
	// ErrMissing is returned for Existing when there is none.
	ErrMissing = errors.New("there is no such database")
	// ErrPresent is returned for Fresh when there is one.
	ErrPresent = errors.New("there is a database already")
)

// An Expectation says which databases Open takes.
type Expectation int

const (
	Either   Expectation = iota // makes one where there is none
	Existing                    // never makes one
	Fresh                       // only makes one
)

// A Config says which database to open and how. Only Path and Migrations are
// required.
type Config struct {
	// Path is the SQLite file, whose directory must exist and where two more
	// files stand (-wal and -shm) while it is open; or a PostgreSQL connection
	// string, for which IsPostgreSQL returns true.
	Path string
	// Migrations holds goose files (00001_name.sql) at its top.
	Migrations fs.FS
	// ApplicationID is written into a new database; an existing one with another
	// id, or with tables and none, is refused. Zero means 0x56414c49 ("VALI").
	ApplicationID int32
	// Expect is Either, Existing or Fresh.
	Expect Expectation
	// Readers bounds the connections that View uses on SQLite; zero means
	// GOMAXPROCS, at least 2. On PostgreSQL, Update and View share the number
	// that Connections says; zero means 16.
	Readers     int
	Connections int
	// BusyTimeout is how long one statement waits for another process's lock in
	// SQLite; zero means 5 s.
	BusyTimeout time.Duration
	// SecureDelete overwrites deleted content with zeros. PostgreSQL cannot:
	// there, deleted content stays until a vacuum, and in its log until that is
	// recycled; what must be erased does not belong there.
	SecureDelete bool
	// UnsafeNoSync switches fsync off. It exists for the control of durability
	// tests, which must lose data with it, and for nothing else.
	UnsafeNoSync bool

	attempts int // of a migration whose tables are occupied, in tests; 0: maxOccupiedAttempts
}

// A DB is an open database. Its methods may be called by any goroutine.
type DB struct {
	dialect Dialect
	writer  *sql.DB // SQLite: exactly one connection; BEGIN IMMEDIATE
	reader  *sql.DB // SQLite: query_only connections; PostgreSQL: the same as writer
	retries atomic.Int64
	observe func(write bool, took time.Duration)   // set before the first transaction
	founded atomic.Bool                            // PostgreSQL: the database is claimed, and its schema known
	line    *pgx.ConnConfig                        // PostgreSQL: for connections beside the others
	greet   func(context.Context, *pgx.Conn) error // PostgreSQL: what each connection begins with
	servers *servers                               // PostgreSQL
	stop    context.CancelFunc                     // PostgreSQL: ends the watch of servers
}

// Open creates or opens the database and brings its schema up to date. Errors never
// show a connection string's password.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if cfg.Path == "" || cfg.Migrations == nil {
		return nil, errors.New("store: path and migrations must be given")
	}
	cfg = cfg.withDefaults()
	if IsPostgreSQL(cfg.Path) {
		return openPostgreSQL(ctx, cfg)
	}
	db, err := openSQLite(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("store: open %s: %w", cfg.Path, err)
	}
	return db, nil
}

func (cfg Config) withDefaults() Config {
	if cfg.ApplicationID == 0 {
		cfg.ApplicationID = 0x56414c49
	}
	if cfg.Readers == 0 {
		cfg.Readers = max(2, runtime.GOMAXPROCS(0))
	}
	if cfg.Connections == 0 {
		cfg.Connections = 16
	}
	if cfg.BusyTimeout == 0 {
		cfg.BusyTimeout = 5 * time.Second
	}
	return cfg
}

// Prepare compiles a statement for use inside Update, by tx.StmtContext. Hot paths
// use it; the statement lives until Close.
func (db *DB) Prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	return db.writer.PrepareContext(ctx, query)
}

// Checkpoint moves the write-ahead log into the database file and truncates it, so
// that no deleted content stays readable there. The vault calls it when it locks. On
// PostgreSQL, whose log belongs to the server, it does nothing.
func (db *DB) Checkpoint(ctx context.Context) error {
	if db.dialect == PostgreSQL {
		return nil
	}
	var busy, logged, moved int
	err := db.writer.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &logged, &moved)
	if err != nil {
		return fmt.Errorf("store: checkpoint: %w", err)
	}
	if busy != 0 {
		return errors.New("store: checkpoint: a reader still uses the write-ahead log; try again when it is done")
	}
	return nil
}

// Retries returns how many transactions had to be run once more since Open. Many of
// them say that transactions are in each other's way.
func (db *DB) Retries() int64 { return db.retries.Load() }

// Dialect says which database this is.
func (db *DB) Dialect() Dialect { return db.dialect }

// Close ends all connections; SQLite folds the write-ahead log into the file.
func (db *DB) Close() error {
	if db.stop != nil {
		db.stop()
	}
	if db.reader == db.writer {
		return db.writer.Close()
	}
	return errors.Join(db.reader.Close(), db.writer.Close())
}
