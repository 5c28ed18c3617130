// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"bufio"
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	_ "modernc.org/sqlite"

	"valise/internal/testenv"
)

// machine is a disk in a folder, with a power switch.
type machine struct {
	*Disk
	t   *testing.T
	dir string
	m   *Mount
}

func newMachine(t *testing.T, cfg Config) *machine {
	t.Helper()
	testenv.Need(t, "/dev/fuse", "fuse3")
	m := &machine{Disk: New(cfg), t: t, dir: t.TempDir()}
	m.mount()
	t.Cleanup(func() {
		if m.m != nil {
			m.unmount()
		}
	})
	return m
}

func (m *machine) mount() {
	m.t.Helper()
	var err error
	if m.m, err = m.Mount(m.dir); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) unmount() {
	m.t.Helper()
	if err := m.m.Unmount(); err != nil {
		m.t.Fatal(err)
	}
	m.m = nil
}

func (m *machine) powerLoss() {
	m.t.Helper()
	m.Cut()
	m.unmount()
	m.Restore()
	m.mount()
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

// put writes a file, and syncs it if it is to be.
func (m *machine) put(name, text string, sync bool) {
	m.t.Helper()
	f, err := os.OpenFile(m.path(name), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		m.t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if sync {
		err = errors.Join(err, f.Sync())
	}
	if err := errors.Join(err, f.Close()); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) syncFolder() {
	m.t.Helper()
	d, err := os.Open(m.dir)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		m.t.Fatal(err)
	}
}

// text is what a file holds; "-" if there is none.
func (m *machine) text(name string) string {
	m.t.Helper()
	data, err := os.ReadFile(m.path(name))
	if errors.Is(err, os.ErrNotExist) {
		return "-"
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return string(data)
}

func (m *machine) want(name, text string) {
	m.t.Helper()
	if got := m.text(name); got != text {
		m.t.Errorf("%s holds %.40q, want %.40q", name, got, text)
	}
}

// What was synced is there after a power loss, and what was not is gone: bytes, sizes,
// entries and renames, each beside one that was synced.
func TestPowerLossKeepsWhatWasSynced(t *testing.T) {
	m := newMachine(t, Config{})
	m.put("old", "first", true)
	m.put("renamed", "content", true)
	m.put("removed", "still here", true)
	m.put("shortened", "twelve bytes", true)
	m.syncFolder()
	m.powerLoss()
	m.want("old", "first")

	m.put("synced", "file alone", true)  // its folder was not
	m.put("old", "second", false)        // truncated and written
	m.put("removed", "rewritten", false) // then removed
	if err := errors.Join(os.Remove(m.path("removed")), os.Rename(m.path("renamed"), m.path("name")), os.Truncate(m.path("shortened"), 3)); err != nil {
		t.Fatal(err)
	}
	m.want("old", "second") // as long as there is power
	m.want("name", "content")
	m.want("shortened", "twe")
	m.powerLoss()
	m.want("synced", "-")
	m.want("old", "first")
	m.want("removed", "still here")
	m.want("renamed", "content")
	m.want("name", "-")
	m.want("shortened", "twelve bytes")
	if s := m.Stats(); s.Cuts != 2 || s.Lost == 0 || s.Syncs == 0 {
		t.Errorf("%+v", s)
	}
}

// A file's second name lasts from when its folder is synced, and shows the same file.
func TestLink(t *testing.T) {
	m := newMachine(t, Config{Seed: 1})
	m.put("one", "text", true)
	for _, name := range []string{"two", "three"} {
		if err := os.Link(m.path("one"), m.path(name)); err != nil {
			t.Fatal(err)
		}
		if name == "two" {
			m.Sync()
		}
	}
	if err := os.Link(m.path("one"), m.path("two")); !errors.Is(err, os.ErrExist) {
		t.Errorf("a name that is taken: %v", err)
	}
	m.powerLoss()
	if err := os.Remove(m.path("one")); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(m.path("two")); string(data) != "text" {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := os.Stat(m.path("three")); !os.IsNotExist(err) {
		t.Errorf("a name that was not synced: %v", err)
	}
}

// From the cut on every call fails, also on files that are open.
func TestNothingAfterTheCut(t *testing.T) {
	m := newMachine(t, Config{})
	m.put("a", "before", true)
	m.syncFolder()
	f, err := os.OpenFile(m.path("a"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("during"); err != nil {
		t.Fatal(err)
	}
	m.Cut()
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("sync after the cut: %v", err)
	}
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("write after the cut: %v", err)
	}
	if _, err := os.ReadFile(m.path("a")); !errors.Is(err, syscall.EIO) {
		t.Errorf("read after the cut: %v", err)
	}
	m.unmount() // with a file open
	m.Restore()
	m.mount()
	m.want("a", "before")
}

// A lying disk answers syncs and loses what they were for.
func TestLyingDiskLoses(t *testing.T) {
	for _, lying := range []bool{false, true} {
		m := newMachine(t, Config{})
		m.put("a", "one", true)
		m.syncFolder()
		m.Lie(lying)
		m.put("a", "two", true)
		m.powerLoss()
		want := "two"
		if lying {
			want = "one"
		}
		m.want("a", want)
		if got := m.Stats().Lied > 0; got != lying {
			t.Errorf("lied: %v, want %v", got, lying)
		}
	}
}

// A full disk refuses growth, and nothing else.
func TestFullDisk(t *testing.T) {
	m := newMachine(t, Config{})
	m.put("a", "0123456789", true)
	m.SetRoom(2 * pageSize)
	m.put("b", "some", true)
	m.SetRoom(0)
	if err := os.WriteFile(m.path("c"), []byte("no room"), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a new file: %v", err)
	}
	f, err := os.OpenFile(m.path("a"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("rewritten."), 0); err != nil {
		t.Errorf("in place: %v", err)
	}
	if _, err := f.WriteAt(make([]byte, pageSize), pageSize); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("growth: %v", err)
	}
	m.SetRoom(-1)
	if _, err := f.WriteAt(make([]byte, pageSize), pageSize); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if m.Stats().Refused == 0 {
		t.Error("no refusal was counted")
	}
}

// A torn disk keeps sectors of what was not synced, each whole: never bytes that
// nobody wrote, and all that was synced.
func TestTornDisk(t *testing.T) {
	m := newMachine(t, Config{Seed: 7, Torn: true})
	before, after := bytes.Repeat([]byte("a"), 64*pageSize), bytes.Repeat([]byte("b"), 64*pageSize)
	m.put("f", string(before), true)
	m.syncFolder()
	f, err := os.OpenFile(m.path("f"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(after, 0); err != nil {
		t.Fatal(err)
	}
	f.Close()
	m.powerLoss()
	text := []byte(m.text("f"))
	kinds := map[byte]int{}
	for s := 0; s < len(text); s += sectorSize {
		sector := text[s : s+sectorSize]
		if len(bytes.Trim(sector, string(sector[:1]))) != 0 {
			t.Fatalf("sector %d is mixed", s/sectorSize)
		}
		kinds[sector[0]]++
	}
	if len(text) != len(before) || kinds['a'] == 0 || kinds['b'] == 0 || len(kinds) != 2 {
		t.Errorf("%d bytes, sectors %v", len(text), kinds)
	}
}

// sqliteOn names the database on which this program works when it is run for TestSQLite:
// a process that maps a file into its memory must not be the one that serves the file.
const sqliteOn = "VALISE_DISK_SQLITE"

func TestMain(m *testing.M) {
	if dsn := os.Getenv(sqliteOn); dsn != "" {
		os.Exit(workOnSQLite(dsn))
	}
	os.Exit(m.Run())
}

// workOnSQLite says how many rows there are, adds twenty, tidies if it is told to, says
// "done", and holds the database open until its input ends.
func workOnSQLite(dsn string) int {
	db, err := sql.Open("sqlite", dsn)
	if err == nil {
		_, err = db.Exec(`CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, b BLOB)`)
	}
	var n int
	if err == nil {
		err = db.QueryRow(`SELECT count(*) FROM t`).Scan(&n)
	}
	if err != nil {
		fmt.Println("no database:", err)
		return 3
	}
	fmt.Println(n)
	for range 20 {
		if _, err := db.Exec(`INSERT INTO t SELECT coalesce(max(n), 0) + 1, $1 FROM t`, make([]byte, 3000)); err != nil {
			fmt.Println(err)
			return 1
		}
	}
	if os.Getenv(sqliteOn+"_TIDY") != "" {
		if _, err := db.Exec(`PRAGMA wal_checkpoint(TRUNCATE)`); err != nil {
			fmt.Println(err)
			return 1
		}
	}
	fmt.Println("done")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// sqlite has another process work on a database, cuts the power while it is open, and
// returns how many rows it found; -1 if there was not even a database.
func (m *machine) sqlite(sync string, tidy bool) int {
	m.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), sqliteOn+"="+m.path("x.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous("+sync+")")
	if tidy {
		cmd.Env = append(cmd.Env, sqliteOn+"_TIDY=1")
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		m.t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	n, done, said := -1, false, ""
	for !done && lines.Scan() {
		said += lines.Text() + "; "
		if n < 0 {
			if _, err := fmt.Sscan(lines.Text(), &n); err != nil {
				n = -1
				break
			}
		}
		done = lines.Text() == "done"
	}
	m.Cut()
	_ = in.Close()
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // killed
	if n >= 0 && !done {
		m.t.Fatalf("synchronous=%s: %s", sync, said)
	}
	m.unmount()
	m.Restore()
	m.mount()
	return n
}

// SQLite in WAL mode, as the gateway uses it, keeps each transaction that it has
// committed with synchronous=FULL, and loses some with OFF.
func TestSQLite(t *testing.T) {
	for _, torn := range []bool{false, true} {
		for sync, loses := range map[string]bool{"FULL": false, "OFF": true} {
			m := newMachine(t, Config{Seed: 3, Torn: torn})
			m.syncFolder()
			lost, there := 0, 0
			for round := range 5 {
				n := m.sqlite(sync, round == 2)
				if n != there {
					lost += there - n
				}
				if n < 0 {
					break // not even a database is left
				}
				there = n + 20
			}
			if loses != (lost > 0) {
				t.Errorf("synchronous=%s, torn %v: %d rows lost", sync, torn, lost)
			}
		}
	}
}
