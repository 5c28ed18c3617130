// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"valise/internal/disk"
	"valise/internal/postgres"
	"valise/internal/testenv"
)

// machine is a server whose data lies on a disk that can lose its power.
type machine struct {
	*postgres.Server
	t     *testing.T
	disk  *disk.Disk
	mount *disk.Mount
	data  string
	conn  *pgx.Conn
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	testenv.Need(t, "/dev/fuse", "fuse3")
	programs, err := postgres.Programs()
	if errors.Is(err, postgres.ErrNotInstalled) {
		testenv.Need(t, "/usr/lib/postgresql/*/bin/initdb", "postgresql")
	}
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t}
	m.Server, err = postgres.New(postgres.Config{
		Programs: programs,
		Place: func(data string, uid, gid uint32) (err error) {
			m.data, m.disk = data, disk.New(disk.Config{Seed: 1, Torn: true, UID: uid, GID: gid})
			m.mount, err = m.disk.Mount(data)
			return err
		},
		Made: func() { m.disk.Sync() },
	})
	t.Cleanup(m.end)
	if err != nil {
		t.Fatal(err)
	}
	m.connect()
	m.do("CREATE TABLE t (n BIGINT)")
	return m
}

func (m *machine) end() {
	if m.Server != nil {
		m.Close()
	}
	if m.mount != nil {
		if err := m.mount.Unmount(); err != nil {
			m.t.Error(err)
		}
	}
	if m.Server == nil {
		return
	}
	_ = os.RemoveAll(m.Socket)
	if _, err := os.Stat(m.Socket); !os.IsNotExist(err) {
		m.t.Errorf("the server's folder: %v", err)
	}
}

func (m *machine) connect() {
	m.t.Helper()
	var err error
	if m.conn, err = pgx.Connect(m.t.Context(), m.DSN("postgres")); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = m.conn.Close(context.Background()) })
}

func (m *machine) do(statement string) {
	m.t.Helper()
	if _, err := m.conn.Exec(m.t.Context(), statement); err != nil {
		m.t.Fatal(err)
	}
}

// insert commits ten rows, one after the other.
func (m *machine) insert() {
	m.t.Helper()
	for range 10 {
		m.do("INSERT INTO t VALUES (1)")
	}
}

func (m *machine) rows() (n int) {
	m.t.Helper()
	if err := m.conn.QueryRow(m.t.Context(), "SELECT count(*) FROM t").Scan(&n); err != nil {
		m.t.Fatal(err)
	}
	return n
}

// stopWriter stops the process that writes the log of commits that did not wait for it:
// how soon it comes round by itself is a matter of the machine's load.
func (m *machine) stopWriter() {
	m.t.Helper()
	var pid int
	const writer = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'"
	for { // it is listed a moment after the server answers
		err := m.conn.QueryRow(m.t.Context(), writer).Scan(&pid)
		if err == nil {
			break
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			m.t.Fatal(err)
		}
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		m.t.Fatal(err)
	}
}

// kill ends the server with -9, and with it the connection.
func (m *machine) kill() {
	m.t.Helper()
	if err := m.Kill(); err != nil {
		m.t.Fatal(err)
	}
	if _, err := m.conn.Exec(m.t.Context(), "SELECT 1"); err == nil {
		m.t.Fatal("a killed server answers")
	}
}

func (m *machine) powerLoss() {
	m.t.Helper()
	m.disk.Cut()
	m.kill()
	if err := m.mount.Unmount(); err != nil {
		m.t.Fatal(err)
	}
	m.disk.Restore()
	var err error
	if m.mount, err = m.disk.Mount(m.data); err != nil {
		m.t.Fatal(err)
	}
	m.start()
}

func (m *machine) start() {
	m.t.Helper()
	if err := m.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.connect()
}

// What was committed is there after a loss of power. It is not when the
// disk has lied, nor after kill -9 when commits do not wait for the log: killing a
// server proves something, but not that it syncs.
func TestServerKeepsWhatWasCommitted(t *testing.T) {
	m := newMachine(t)
	m.insert()
	m.powerLoss()
	if n := m.rows(); n != 10 {
		t.Fatalf("%d of 10 rows after a loss of power", n)
	}
	m.disk.Lie(true)
	m.insert()
	m.powerLoss()
	if n := m.rows(); n >= 20 {
		t.Errorf("a lying disk kept %d rows", n)
	}
	before := m.rows()
	m.disk.Lie(false)
	m.do("SET synchronous_commit = off")
	m.stopWriter()
	m.insert()
	m.kill()
	m.start()
	if n := m.rows(); n >= before+10 {
		t.Errorf("a server whose commits wait for nothing kept all %d rows", n)
	}
}
