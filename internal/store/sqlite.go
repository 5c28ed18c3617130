// SPDX-License-Identifier: Apache-2.0

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
	"strconv"
	"strings"
)

func openSQLite(ctx context.Context, cfg Config) (*DB, error) {
	path, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, err
	}
	// SQLite would create the file with the umask's mode; its companions copy ours.
	f, err := os.OpenFile(path, os.O_RDWR|cfg.Expect.flags(), 0o600)
	switch {
	case cfg.Expect == Existing && errors.Is(err, fs.ErrNotExist):
		return nil, ErrMissing
	case cfg.Expect == Fresh && errors.Is(err, fs.ErrExist):
		return nil, ErrPresent
	case err != nil:
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}

	writer, err := openKeeping(dsn(path, cfg, true))
	if err != nil {
		return nil, err
	}
	writer.SetMaxOpenConns(1)
	db := &DB{dialect: SQLite, writer: writer}
	if err := db.prepareAmongOthers(ctx, cfg); err != nil {
		return nil, errors.Join(err, writer.Close())
	}
	db.reader, err = openKeeping(dsn(path, cfg, false))
	if err != nil {
		return nil, errors.Join(err, writer.Close())
	}
	db.reader.SetMaxOpenConns(cfg.Readers)
	db.reader.SetMaxIdleConns(cfg.Readers)
	return db, nil
}

// flags are for opening the file.
func (e Expectation) flags() int {
	switch e {
	case Existing:
		return 0
	case Fresh:
		return os.O_CREATE | os.O_EXCL
	}
	return os.O_CREATE
}

// prepareAmongOthers prepares a file that other processes may be preparing too.
// SQLite does not wait for its busy timeout while another one changes the journal
// mode: it says that the file is busy at once.
func (db *DB) prepareAmongOthers(ctx context.Context, cfg Config) error {
	for wait := firstPause; ; wait *= 2 {
		err := db.prepare(ctx, cfg)
		if err == nil || !Retryable(err) || wait > cfg.BusyTimeout {
			return err
		}
		if ctxErr := pause(ctx, wait); ctxErr != nil {
			return errors.Join(err, ctxErr)
		}
	}
}

// prepare claims the file for this application and migrates it.
func (db *DB) prepare(ctx context.Context, cfg Config) error {
	if err := claim(ctx, db.writer, cfg.ApplicationID, cfg.Expect); err != nil {
		return err
	}
	return migrate(ctx, db.writer, cfg, SQLite, embedded{db.writer})
}

// claim writes the application id into an empty file and compares it in any other.
func claim(ctx context.Context, db *sql.DB, want int32, expect Expectation) error {
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
	case expect == Existing: // a file without anything in it
		return ErrMissing
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
