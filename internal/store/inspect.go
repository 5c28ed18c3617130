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
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// Facts are what Inspect finds out about a database.
type Facts struct {
	Dialect Dialect
	Server  string // version of the server; of SQLite, that of the library
	Schema  int64  // the last migration that was done; 0: none
	Known   int64  // the last one that this program knows
	Oldest  int64  // the oldest program that the database takes, by its last migration; 0: it does not say

	Syncs    bool   // a commit is on disk when it is acknowledged
	How      string // the settings that say so
	Encoding string // UTF8, or what it is instead
	ReadOnly bool   // PostgreSQL: a standby, or a server that takes no writes

	// Of PostgreSQL: connections that the server allows to all, those in use, and
	// those of them that are ours on this database.
	Connections, Used, Ours int

	// Said is the server's clock, asked between Before and After; zero of SQLite.
	Said, Before, After time.Time
}

// Inspect looks at a database without changing it: no migration, no table, no lock that
// a running daemon would notice. It returns ErrMissing where there is none, and
// ErrForeign for another program's. Of cfg it uses Path, Migrations and ApplicationID.
func Inspect(ctx context.Context, cfg Config) (*Facts, error) {
	cfg = cfg.withDefaults()
	f := new(Facts)
	if IsPostgreSQL(cfg.Path) {
		f.Dialect = PostgreSQL
		return f, inspectPostgreSQL(ctx, cfg, f)
	}
	if err := inspectSQLite(ctx, cfg, f); err != nil {
		return f, fmt.Errorf("store: inspect %s: %w", cfg.Path, err)
	}
	return f, nil
}

func inspectSQLite(ctx context.Context, cfg Config, f *Facts) error {
	path, err := filepath.Abs(cfg.Path)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return ErrMissing
	} else if err != nil {
		return err
	}
	q := url.Values{"mode": {"ro"}, "_pragma": {"query_only(1)", "busy_timeout(5000)"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: uriPath(filepath.ToSlash(path)), RawQuery: q.Encode()}).String())
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if err := claim(ctx, db, cfg.ApplicationID, Existing); err != nil {
		return err
	}
	var mode string
	if err := errors.Join(
		db.QueryRowContext(ctx, "SELECT sqlite_version()").Scan(&f.Server),
		db.QueryRowContext(ctx, "PRAGMA encoding").Scan(&f.Encoding),
		db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode),
	); err != nil {
		return err
	}
	if f.Encoding == "UTF-8" {
		f.Encoding = "UTF8"
	}
	f.Syncs, f.How = mode == "wal", "journal_mode="+mode
	return f.versions(ctx, db, cfg)
}

func inspectPostgreSQL(ctx context.Context, cfg Config, f *Facts) error {
	config, err := parsePostgreSQL(cfg.Path)
	if err != nil {
		return err
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "valise check"
	}
	if config.ConnectTimeout == 0 || config.ConnectTimeout > time.Minute {
		config.ConnectTimeout = connectTimeout
	}
	config.DialFunc = dial
	name := fmt.Sprintf("PostgreSQL database %s on %s", config.Database, config.Host)
	if err := f.ask(ctx, cfg, config); err != nil {
		return fmt.Errorf("store: inspect %s: %w", name, hush(err, config.Password))
	}
	return nil
}

// ask does the work of inspectPostgreSQL.
func (f *Facts) ask(ctx context.Context, cfg Config, config *pgx.ConnConfig) error {
	db := stdlib.OpenDB(*config)
	defer db.Close()
	db.SetMaxOpenConns(1)
	if err := db.PingContext(ctx); err != nil {
		return err
	}
	var fsync, commit, readOnly string
	var reserved, own int
	f.Before = time.Now()
	err := db.QueryRowContext(ctx, `SELECT clock_timestamp(), current_setting('server_version'), current_setting('fsync'),
		current_setting('synchronous_commit'), current_setting('server_encoding'), current_setting('transaction_read_only'),
		CAST(current_setting('max_connections') AS int), CAST(current_setting('superuser_reserved_connections') AS int),
		(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()),
		(SELECT count(*) FROM pg_stat_activity WHERE application_name = 'valise' AND datname = current_database()),
		(SELECT CASE WHEN rolconnlimit < 0 THEN 1000000 ELSE rolconnlimit END FROM pg_roles WHERE rolname = current_user)`).
		Scan(&f.Said, &f.Server, &fsync, &commit, &f.Encoding, &readOnly, &f.Connections, &reserved, &f.Used, &f.Ours, &own)
	f.After = time.Now()
	if err != nil {
		return err
	}
	f.Connections = min(f.Connections-reserved, own)
	// A session of ours switches synchronous_commit on where a server has it off.
	f.Syncs, f.How, f.ReadOnly = fsync == "on", "fsync="+fsync+" synchronous_commit="+commit, readOnly == "on"
	if err := claimPostgreSQL(ctx, db, cfg.ApplicationID, Existing); err != nil {
		return err
	}
	return f.versions(ctx, db, cfg)
}

// versions compares what was migrated with what this program knows.
func (f *Facts) versions(ctx context.Context, db *sql.DB, cfg Config) error {
	err := db.QueryRowContext(ctx, "SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied").Scan(&f.Schema)
	if err != nil {
		return err
	}
	l, err := readLevels(cfg.Migrations)
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	f.Known = l.own
	if f.Dialect != PostgreSQL {
		return db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&f.Oldest)
	}
	err = db.QueryRowContext(ctx, "SELECT coalesce((to_jsonb(v) ->> 'oldest')::bigint, 0) FROM valise_database v").Scan(&f.Oldest)
	return err
}
