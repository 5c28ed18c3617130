// SPDX-License-Identifier: Apache-2.0

package testenv_test

import (
	"os"
	"testing"

	"github.com/jackc/pgx/v5"

	"valise/internal/testenv"
)

// A database is empty, survives a crash of its server, and what was acknowledged
// with it; the folder goes with the test.
func TestPostgres(t *testing.T) {
	one, two := testenv.Postgres(t), testenv.Postgres(t)
	if one.DSN == two.DSN || one.Cluster != two.Cluster {
		t.Errorf("two tests' databases: %s and %s", one.DSN, two.DSN)
	}
	var dir string
	t.Run("crash", func(t *testing.T) {
		server := testenv.PostgresServer(t)
		dir = server.Socket
		db := server.Database(t)
		ctx := t.Context()
		conn, err := pgx.Connect(ctx, db.DSN)
		if err != nil {
			t.Fatal(err)
		}
		for _, statement := range []string{"CREATE TABLE t (n BIGINT)", "INSERT INTO t VALUES (1)"} {
			if _, err := conn.Exec(ctx, statement); err != nil {
				t.Fatal(err)
			}
		}
		server.Crash(t)
		if _, err := conn.Exec(ctx, "INSERT INTO t VALUES (2)"); err == nil {
			t.Error("a crashed server answered")
		}
		server.Start(t)
		again, err := pgx.Connect(ctx, db.DSN)
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close(ctx)
		var n int
		if err := again.QueryRow(ctx, "SELECT count(*) FROM t").Scan(&n); err != nil || n != 1 {
			t.Errorf("%d rows, %v", n, err)
		}
	})
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the cluster's folder: %v", err)
	}
}
