// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"valise/internal/testenv"
)

func TestIsPostgreSQL(t *testing.T) {
	for path, want := range map[string]bool{
		"postgres://h/d": true, "postgresql://u@h/d?sslmode=verify-full": true, "host=/run/postgresql dbname=valise": true,
		" dbname = valise": true, "service=valise": true,
		"/var/lib/valise/authority.db": false, "authority.db": false, "host/authority.db": false, "postgres.db": false, "": false,
	} {
		if got := IsPostgreSQL(path); got != want {
			t.Errorf("%q: %t", path, got)
		}
	}
}

// To another host, nothing is sent before its certificate is verified; the control
// differs in that.
func TestPostgreSQLTransport(t *testing.T) {
	for dsn, ok := range map[string]bool{
		"host=db.example user=u dbname=d sslmode=verify-full":         true,
		"postgres://u@db.example/d?sslmode=verify-full":               true,
		"host=/run/postgresql user=u dbname=d":                        true,
		"host=127.0.0.1 user=u dbname=d sslmode=disable":              true,
		"host=db.example user=u dbname=d":                             false,
		"host=db.example user=u dbname=d sslmode=disable":             false,
		"host=db.example user=u dbname=d sslmode=require":             false,
		"postgres://u@db.example/d?sslmode=prefer":                    false,
		"host=/run/postgresql,db.example user=u dbname=d":             false,
		"postgres://u@127.0.0.1,192.0.2.7/d?sslmode=disable":          false,
		"postgres://u@db.example,db2.example/d?sslmode=verify-full":   true,
		"host=db.example user=u dbname=d sslmode=allow":               false,
		"postgres://u:p@db.example:5432/d?sslmode=verify-full&port=x": false,
	} {
		if _, err := CheckPostgreSQL(dsn); (err == nil) != ok {
			t.Errorf("%s: %v", dsn, err)
		}
	}
}

// No error shows the password, wherever it stands in the connection string, and
// whatever is wrong with that.
func TestPasswordIsNotShown(t *testing.T) {
	const secret = "s3cr3t-w0rd"
	for _, dsn := range []string{
		"postgres://u:" + secret + "@127.0.0.1:1/d",
		"postgres://u:" + secret + "@127.0.0.1:port/d",
		"postgres://u:" + secret + "%zz@127.0.0.1/d",
		"postgres://u@127.0.0.1:1/d?password=" + secret,
		"host=127.0.0.1 port=1 user=u dbname=d password=" + secret,
		"host=127.0.0.1 port=x user=u dbname=d password=" + secret,
		"host=127.0.0.1 user=u dbname=d password='" + secret,
		"host=127.0.0.1 user=u dbname=d password = " + secret + " sslmode=maybe",
		"host=192.0.2.1 user=u dbname=d password=" + secret,
	} {
		_, err := Open(t.Context(), Config{Path: dsn, Migrations: testMigrations(t)})
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", dsn, err)
		}
	}
	for dsn, want := range map[string]bool{
		"postgres://u:p@127.0.0.1/d": true, "postgres://u@127.0.0.1/d": false, "postgres://u@127.0.0.1/d?password=p": true,
		"host=127.0.0.1 user=u dbname=d password=p": true, "host=127.0.0.1 user=u dbname=d": false,
	} {
		if got, err := CheckPostgreSQL(dsn); err != nil || got != want {
			t.Errorf("%s: password %t, %v", dsn, got, err)
		}
	}
}

// A database with tables of somebody else is left alone.
func TestForeignSchemaIsRefused(t *testing.T) {
	ctx := t.Context()
	server := testenv.Postgres(t)
	other, err := sql.Open("pgx", server.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.ExecContext(ctx, "CREATE TABLE somebodys (n BIGINT)"); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Path: server.DSN, Migrations: testMigrations(t)}
	if _, err := Open(ctx, cfg); !errors.Is(err, ErrForeign) {
		t.Errorf("got %v", err)
	}
	if _, err := other.ExecContext(ctx, "DROP TABLE somebodys"); err != nil {
		t.Fatal(err)
	}
	testOpen(t, cfg.Path)
}

// Several programs that start at once on an empty database make it once.
func TestStartersAtOnce(t *testing.T) {
	eachDatabase(t, func(t *testing.T, path string) {
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				db, err := Open(t.Context(), Config{Path: path, Migrations: testMigrations(t)})
				if err != nil {
					t.Error(err)
					return
				}
				_ = db.Close()
			})
		}
		wg.Wait()
	})
}

// Appenders behind a lock see what the one before them did: no attempt is wasted, and
// the numbers have no gap. Without the lock, the control, attempts are.
func TestUpdateLockedAppends(t *testing.T) {
	eachDatabase(t, func(t *testing.T, path string) {
		ctx := t.Context()
		dbs := []*DB{testOpen(t, path), testOpen(t, path)}
		if err := dbs[0].Update(ctx, insertParent(ctx)); err != nil {
			t.Fatal(err)
		}
		const workers, rounds = 6, 10
		appendAll := func(update func(db *DB, f func(*Tx) error) error) (attempts int64) {
			var n atomic.Int64
			var wg sync.WaitGroup
			for w := range workers {
				wg.Go(func() {
					for range rounds {
						err := update(dbs[w%2], func(tx *Tx) error {
							n.Add(1)
							var next int64
							if err := tx.QueryRowContext(ctx, "SELECT coalesce(max(id), 0) + 1 FROM child").Scan(&next); err != nil {
								return err
							}
							return exec(ctx, "INSERT INTO child VALUES ($1, $2, $3)", next, 1, next)(tx)
						})
						if err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			return n.Load()
		}
		locked := appendAll(func(db *DB, f func(*Tx) error) error { return db.UpdateLocked(ctx, "parent", f) })
		if locked != workers*rounds {
			t.Errorf("%d attempts for %d appends", locked, workers*rounds)
		}
		if dbs[0].Dialect() == PostgreSQL {
			free := appendAll(func(db *DB, f func(*Tx) error) error {
				for {
					err := db.Update(ctx, f)
					if err == nil || !Retryable(err) && !IsConstraint(err) {
						return err
					}
				}
			})
			t.Logf("without the lock: %d attempts for %d appends", free, workers*rounds)
			if free <= workers*rounds {
				t.Error("the control had no conflicts: the test shows nothing")
			}
		}
		var count, last int
		err := dbs[0].View(ctx, func(tx *Tx) error {
			return tx.QueryRowContext(ctx, "SELECT count(*), max(id) FROM child").Scan(&count, &last)
		})
		if err != nil || count != last {
			t.Errorf("%d rows up to %d, %v", count, last, err)
		}
	})
}

// However many are in each other's way, nobody is sent away.
func TestManyWritersGetThrough(t *testing.T) {
	ctx := t.Context()
	path := testenv.Postgres(t).DSN
	dbs := []*DB{testOpen(t, path), testOpen(t, path)}
	if err := dbs[0].Update(ctx, insertParent(ctx)); err != nil {
		t.Fatal(err)
	}
	if err := dbs[0].Update(ctx, exec(ctx, "INSERT INTO child VALUES ($1, $2, $3)", 1, 1, 0)); err != nil {
		t.Fatal(err)
	}
	const workers, rounds = 32, 5
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for range rounds {
				err := dbs[w%2].Update(ctx, func(tx *Tx) error {
					var n int64
					if err := tx.QueryRowContext(ctx, "SELECT n FROM child WHERE id = $1", 1).Scan(&n); err != nil {
						return err
					}
					return exec(ctx, "UPDATE child SET n = $1 WHERE id = $2", n+1, 1)(tx)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var n int
	err := dbs[0].View(ctx, func(tx *Tx) error { return tx.QueryRowContext(ctx, "SELECT n FROM child").Scan(&n) })
	if err != nil || n != workers*rounds {
		t.Errorf("%d of %d, %v", n, workers*rounds, err)
	}
	t.Logf("%d transactions, %d of them once more", workers*rounds, dbs[0].Retries()+dbs[1].Retries())
}

// What was acknowledged survives a crash of the server, and the pool finds it again
// by itself.
func TestServerCrash(t *testing.T) {
	ctx := t.Context()
	server := testenv.PostgresServer(t)
	db := testOpen(t, server.Database(t).DSN)
	if err := db.Update(ctx, insertParent(ctx)); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 { // fill the pool with connections that will be dead
		wg.Go(func() { _ = db.View(ctx, exec(ctx, "SELECT pg_sleep(0.05)")) })
	}
	wg.Wait()
	server.Crash(t)
	if err := db.Update(ctx, exec(ctx, "DELETE FROM parent")); err == nil {
		t.Error("written without a server")
	}
	server.Start(t)
	var n int
	err := db.View(ctx, func(tx *Tx) error { return tx.QueryRowContext(ctx, "SELECT count(*) FROM parent").Scan(&n) })
	if err != nil || n != 1 {
		t.Errorf("%d rows, %v", n, err)
	}
}

// A connection that ends between two transactions is replaced without an error.
func TestLostConnectionIsReplaced(t *testing.T) {
	ctx := t.Context()
	server := testenv.Postgres(t)
	db := testOpen(t, server.DSN)
	if err := db.Update(ctx, insertParent(ctx)); err != nil {
		t.Fatal(err)
	}
	server.Exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+server.Name+"'")
	if err := db.Update(ctx, exec(ctx, "UPDATE parent SET ok = $1", false)); err != nil {
		t.Error(err)
	}
}

// A server that does not sync is refused; the control syncs.
func TestUnsyncedServerIsRefused(t *testing.T) {
	ctx := t.Context()
	server := testenv.PostgresServer(t)
	dsn := server.Database(t).DSN
	testOpen(t, dsn)
	server.Stop(t)
	conf := filepath.Join(server.Socket, "data", "postgresql.auto.conf")
	if err := os.WriteFile(conf, []byte("synchronous_commit = off\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	server.Start(t)
	db := testOpen(t, dsn)
	var commit string
	err := db.View(ctx, func(tx *Tx) error { return tx.QueryRowContext(ctx, "SHOW synchronous_commit").Scan(&commit) })
	if err != nil || commit != "on" {
		t.Errorf("synchronous_commit %s, %v", commit, err)
	}
	server.Set(t, "fsync", "off")
	_, err = Open(ctx, Config{Path: dsn, Migrations: testMigrations(t)})
	if err == nil || !strings.Contains(err.Error(), "fsync") {
		t.Errorf("got %v", err)
	}
	server.Set(t, "fsync", "on")
	testOpen(t, dsn)
}

// A stopped process loses its transaction, and its locks, in the end.
func TestSessionsAreBounded(t *testing.T) {
	db := testOpen(t, testenv.Postgres(t).DSN)
	for setting, want := range map[string]string{"idle_in_transaction_session_timeout": "1min", "enable_seqscan": "off", "application_name": "valise"} {
		var got string
		err := db.View(context.WithoutCancel(t.Context()), func(tx *Tx) error {
			return tx.QueryRowContext(t.Context(), "SELECT current_setting($1)", setting).Scan(&got)
		})
		if err != nil || got != want {
			t.Errorf("%s = %s, %v", setting, got, err)
		}
	}
}
