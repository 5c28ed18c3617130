// SPDX-License-Identifier: Apache-2.0

// Package store opens the databases that Valise keeps its state in: the
// authority's, an embedded gateway's and a device's vault. All of them are SQLite
// files here; the texts are written so that PostgreSQL can run the same ones.
//
// Open comes first: it creates the file with mode 0600 if there is none, refuses a
// file that belongs to another program or to a newer version, and migrates it.
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
// Update is one serialized read-write transaction; when it returns nil, the change
// is on disk (WAL, synchronous=FULL). View is a consistent read-only snapshot that
// runs beside the writer. Both call the function again when the database asks for
// it (a lock held by another process, a serialization failure), so the function
// must assign its results, not append to them, and must have no other effects.
//
// Never hold a transaction while a card, an HSM, the network or a person is
// awaited: there is one writer. Never call Update inside Update: it waits for
// itself until its context ends.
//
// Rules for the SQL: parameters are $1, $2, … in the order in which they first
// appear; times are int64; every table says STRICT; migrations use the words
// BIGINT, BOOLEAN and BLOB, which are exchanged for the dialect's own (see
// dialect.go).
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	_ "modernc.org/sqlite" // registers the driver "sqlite"
)

// Tx is a running transaction. Commit and Rollback belong to Update and View.
type Tx = sql.Tx

// Errors that callers act on.
var (
	// ErrForeign is returned when the file is a database of another program.
	ErrForeign = errors.New("database belongs to another program")
	// ErrNewer is returned when a newer version of Valise has migrated the file.
	ErrNewer = errors.New("database was made by a newer version: install that version, or restore a copy made before it ran")
)

// A Config says which file to open and how. Only Path and Migrations are required.
type Config struct {
	// Path is the database file. Its directory must exist. SQLite puts two more
	// files beside it (-wal and -shm) while it is open.
	Path string
	// Migrations holds goose files (00001_name.sql) at its top.
	Migrations fs.FS
	// ApplicationID is written into a new file's header; an existing file with
	// another one is refused. Zero means 0x56414c49 ("VALI").
	ApplicationID int32
	// Readers bounds the connections that View uses; zero means GOMAXPROCS, at
	// least 2.
	Readers int
	// BusyTimeout is how long one statement waits for another process's lock; zero
	// means 5 s.
	BusyTimeout time.Duration
	// SecureDelete overwrites deleted content with zeros. The vault asks for it.
	SecureDelete bool
	// UnsafeNoSync switches fsync off. It exists for the control of durability
	// tests, which must lose data with it, and for nothing else.
	UnsafeNoSync bool
}

// A DB is an open database. Its methods may be called by any goroutine.
type DB struct {
	writer *sql.DB // exactly one connection; BEGIN IMMEDIATE
	reader *sql.DB // query_only connections
}

// Open creates or opens the database file and brings its schema up to date.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if cfg.Path == "" || cfg.Migrations == nil {
		return nil, errors.New("store: path and migrations must be given")
	}
	db, err := open(ctx, cfg.withDefaults())
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
	if cfg.BusyTimeout == 0 {
		cfg.BusyTimeout = 5 * time.Second
	}
	return cfg
}

func open(ctx context.Context, cfg Config) (*DB, error) {
	path, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, err
	}
	// SQLite would create the file with the umask's mode; its companions copy ours.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}

	writer, err := sql.Open("sqlite", dsn(path, cfg, true))
	if err != nil {
		return nil, err
	}
	writer.SetMaxOpenConns(1)
	db := &DB{writer: writer}
	if err := db.prepare(ctx, cfg); err != nil {
		return nil, errors.Join(err, writer.Close())
	}
	db.reader, err = sql.Open("sqlite", dsn(path, cfg, false))
	if err != nil {
		return nil, errors.Join(err, writer.Close())
	}
	db.reader.SetMaxOpenConns(cfg.Readers)
	db.reader.SetMaxIdleConns(cfg.Readers)
	return db, nil
}

// prepare claims the file for this application and migrates it.
func (db *DB) prepare(ctx context.Context, cfg Config) error {
	if err := claim(ctx, db.writer, cfg.ApplicationID); err != nil {
		return err
	}
	return migrate(ctx, db.writer, cfg.Migrations, SQLite)
}

// claim writes the application id into an empty file and compares it in any other.
func claim(ctx context.Context, db *sql.DB, want int32) error {
	var id int32
	var tables int
	if err := db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return err
	}
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil {
		return err
	}
	switch {
	case id == want:
		return nil
	case id != 0 || tables != 0:
		return fmt.Errorf("%w (application id %#x, want %#x)", ErrForeign, uint32(id), uint32(want))
	}
	_, err := db.ExecContext(ctx, "PRAGMA application_id = "+strconv.Itoa(int(want)))
	return err
}

func dsn(path string, cfg Config, write bool) string {
	q := url.Values{}
	pragma := func(name, value string) { q.Add("_pragma", name+"("+value+")") }
	pragma("busy_timeout", strconv.FormatInt(cfg.BusyTimeout.Milliseconds(), 10))
	pragma("journal_mode", "WAL")
	pragma("foreign_keys", "1")
	pragma("trusted_schema", "0")
	if cfg.UnsafeNoSync {
		pragma("synchronous", "OFF")
	} else {
		pragma("synchronous", "FULL")
	}
	if cfg.SecureDelete {
		pragma("secure_delete", "1")
	}
	q.Set("_dqs", "0") // "x" is an identifier, never a string
	if write {
		q.Set("_txlock", "immediate")
	} else {
		pragma("query_only", "1")
	}
	return (&url.URL{Scheme: "file", Path: uriPath(filepath.ToSlash(path)), RawQuery: q.Encode()}).String()
}

// uriPath puts a slash before a drive letter: file:///C:/… (https://sqlite.org/uri.html).
func uriPath(path string) string {
	if !strings.HasPrefix(path, "/") {
		return "/" + path
	}
	return path
}

// Prepare compiles a statement for use inside Update, by tx.StmtContext. Hot paths
// use it; the statement lives until Close.
func (db *DB) Prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	return db.writer.PrepareContext(ctx, query)
}

// Checkpoint moves the write-ahead log into the database file and truncates it, so
// that no deleted content stays readable there. The vault calls it when it locks.
func (db *DB) Checkpoint(ctx context.Context) error {
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

// Close ends all connections; SQLite folds the write-ahead log into the file.
func (db *DB) Close() error {
	return errors.Join(db.reader.Close(), db.writer.Close())
}
