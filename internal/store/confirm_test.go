// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"valise/internal/testenv"
)

// patience is for what takes an instant on a machine that has nothing else to do.
const patience = time.Minute

// until asks until the answer is yes.
func until(t *testing.T, what string, ask func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for !ask() {
		if pause(ctx, 5*time.Millisecond) != nil {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// An onlooker looks at a database on a connection of its own, without anything of ours.
type onlooker struct {
	t    *testing.T
	conn *pgx.Conn
}

func newOnlooker(t *testing.T, dsn string) onlooker {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return onlooker{t, conn}
}

func (o onlooker) number(query string) (n int) {
	o.t.Helper()
	if err := o.conn.QueryRow(o.t.Context(), query).Scan(&n); err != nil {
		o.t.Fatalf("%s: %v", query, err)
	}
	return n
}

// waiting counts the commits that wait for a standby.
func (o onlooker) waiting() int {
	o.t.Helper()
	return o.number("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
}

// absent is the name of a standby that there is not: whoever commits waits for it.
const absent = "absent"

// desert has commits wait for a standby that there is not, and returns when they do: it is
// another process of the server's that has to hear of it.
func desert(t *testing.T, server *testenv.Cluster, o onlooker) {
	t.Helper()
	server.Set(t, "synchronous_standby_names", absent)
	t.Cleanup(func() { server.Set(t, "synchronous_standby_names", "") })
	until(t, "commits to wait", func() bool {
		conn, err := pgx.Connect(t.Context(), o.conn.Config().ConnString())
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := conn.Exec(t.Context(), "SELECT pg_logical_emit_message(true, 'test', '')")
			done <- errors.Join(err, conn.Close(t.Context()))
		}()
		for {
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
				return false
			default:
			}
			if o.waiting() == 1 {
				o.number(cancelWaiting)
				if err := <-done; err != nil {
					t.Error(err)
				}
				return true
			}
		}
	})
}

const cancelWaiting = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"

// What is acknowledged, and what is read, is on the standby that a server waits for.
func TestStandbyHasWhatIsSaid(t *testing.T) {
	server := testenv.PostgresServer(t)
	t.Run("cancelled wait", func(t *testing.T) { testCancelledWait(t, server) })
	t.Run("given up", func(t *testing.T) { testGivenUp(t, server) })
	t.Run("killed server", func(t *testing.T) { testNothingUnconfirmedIsRead(t, server) })
}

// Whatever way a commit goes, it is not taken for done when somebody cancels its wait for
// the standby: the server's answer is the same as in the control, where nobody waits. What
// may be run twice is run again, and the others are told.
func testCancelledWait(t *testing.T, server *testenv.Cluster) {
	db := testOpen(t, server.Database(t).DSN)
	o := newOnlooker(t, server.Database(t).DSN)
	const insert = addParent + " ON CONFLICT (id) DO UPDATE SET ok = false RETURNING id"
	runs := 0
	counted := func(f *Flow) error {
		runs++
		f.Later(insert, runs, true, []byte("x"))
		return nil
	}
	for name, way := range map[string]struct {
		again bool
		do    func(ctx context.Context) error
	}{
		"update": {false, func(ctx context.Context) error {
			return db.Update(ctx, func(tx *Tx) error { runs++; return exec(ctx, insert, runs, true, []byte("x"))(tx) })
		}},
		"write": {true, func(ctx context.Context) error {
			return db.Write(ctx, func(s Statements) error {
				runs++
				_, err := s.ExecContext(ctx, insert, runs, true, []byte("x"))
				return err
			})
		}},
		"asked": {true, func(ctx context.Context) error {
			return db.Ask(ctx, Question{insert, []any{1, true, []byte("x")}, func(scan func(...any) error) error { runs++; return scan(new(int)) }})
		}},
		"flow": {false, func(ctx context.Context) error { return db.UpdateFlow(ctx, "", counted) }},
		"rows": {false, func(ctx context.Context) error { return db.UpdateRows(ctx, false, counted) }},
		"held": {false, func(ctx context.Context) error {
			conn, err := db.Hold(ctx, 1)
			if err != nil {
				return err
			}
			defer conn.Close()
			return db.UpdateOn(ctx, func(context.Context) (*sql.Conn, error) { return conn, nil }, false, counted)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := way.do(t.Context()); err != nil {
				t.Fatalf("control: %v", err)
			}
			runs = 0
			desert(t, server, o)
			done := make(chan error, 1)
			go func() { done <- way.do(t.Context()) }()
			until(t, "a commit that waits", func() bool { return o.waiting() == 1 })
			o.number(cancelWaiting)
			server.Set(t, "synchronous_standby_names", "")
			if err := <-done; way.again && (err != nil || runs < 2) {
				t.Errorf("%d runs, %v", runs, err)
			} else if !way.again && (!errors.Is(err, ErrUnconfirmed) || runs != 1) {
				t.Errorf("%d runs, %v, and no standby has it", runs, err)
			}
		})
	}
}

// A commit that its caller gives up goes on waiting for the standby: nobody sees it before
// that has it. The control is the driver by itself, which cancels what is given up.
func testGivenUp(t *testing.T, server *testenv.Cluster) {
	database := server.Database(t)
	db := testOpen(t, database.DSN)
	o, driver := newOnlooker(t, database.DSN), newOnlooker(t, database.DSN)
	desert(t, server, o)
	giveUp := func(insert func(ctx context.Context) error, who string) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- insert(ctx) }()
		until(t, "a commit that waits", func() bool {
			return o.number("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = '"+who+"'") == 1
		})
		cancel()
		if err := <-done; err == nil {
			t.Error("done")
		}
	}
	giveUp(func(ctx context.Context) error { return db.Update(ctx, exec(ctx, addParent, 1, true, []byte("x"))) }, "valise")
	giveUp(func(ctx context.Context) error {
		_, err := driver.conn.Exec(ctx, addParent, 2, true, []byte("x"))
		return err
	}, "")
	until(t, "what the driver has cancelled", func() bool { return o.number("SELECT count(*) FROM parent WHERE id = 2") == 1 })
	if n := o.number("SELECT count(*) FROM parent WHERE id = 1"); n != 0 || o.waiting() != 1 {
		t.Errorf("%d rows are seen of a commit that waits, %d wait", n, o.waiting())
	}
	server.Set(t, "synchronous_standby_names", "")
	until(t, "the commit that was given up", func() bool { return o.number("SELECT count(*) FROM parent WHERE id = 1") == 1 })
}

// A server that was killed while a commit waited shows it after that to everybody, though no
// standby has it: the control sees it. A connection of ours is of use only when one has.
func testNothingUnconfirmedIsRead(t *testing.T, server *testenv.Cluster) {
	dsn := server.Database(t).DSN
	db, o := testOpen(t, dsn), newOnlooker(t, dsn)
	desert(t, server, o)
	done := make(chan error, 1)
	go func() { done <- db.Update(t.Context(), insertParent(t.Context())) }()
	until(t, "a commit that waits", func() bool { return o.waiting() == 1 })
	server.Crash(t)
	if err := <-done; err == nil {
		t.Error("done, and no standby has it")
	}
	server.Start(t)
	if o = newOnlooker(t, dsn); o.number("SELECT count(*) FROM parent") != 1 {
		t.Error("the control sees nothing")
	}
	read := func(ctx context.Context) (n int, err error) {
		return n, db.View(ctx, func(tx *Tx) error { return tx.QueryRowContext(ctx, "SELECT count(*) FROM parent").Scan(&n) })
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		until(t, "a new connection that waits", func() bool { return o.waiting() == 1 })
		cancel()
	}()
	if n, err := read(ctx); err == nil {
		t.Errorf("%d rows were read, and no standby has them", n)
	}
	// What only a new connection was about leaves nothing behind on the server.
	until(t, "its end", func() bool { return o.waiting() == 0 })
	server.Set(t, "synchronous_standby_names", "")
	if n, err := read(t.Context()); err != nil || n != 1 {
		t.Errorf("%d rows, %v", n, err)
	}
}
