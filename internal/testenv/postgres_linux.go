// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// A Database is an empty PostgreSQL database made for one test.
type Database struct {
	Name string
	DSN  string // connection string, without a password
	*Cluster
}

// A Cluster is a PostgreSQL server of our own. It answers at a unix socket in a
// folder that only its user and root can enter, and nowhere else; it syncs what it
// writes to the disk, as one in earnest does.
type Cluster struct {
	Socket string // its folder
	dir    string
	bin    string
	as     *syscall.Credential // nil: the user who runs the tests
	done   chan struct{}       // closed when the keeper has ended

	life    io.WriteCloser // to the keeper: it ends when this end of the pipe is closed
	answers *bufio.Reader

	mu   sync.Mutex
	made int // databases, guarded by mu
}

var cluster struct {
	sync.Mutex
	running *Cluster // guarded by the mutex; ends with the process
}

// Postgres makes a database for one test, in the cluster of this test process,
// which it starts when there is none. It skips where PostgreSQL is missing.
func Postgres(t testing.TB) *Database {
	t.Helper()
	bin := postgresPrograms(t)
	cluster.Lock()
	defer cluster.Unlock()
	if cluster.running == nil {
		c, err := newCluster(bin)
		if err != nil {
			t.Fatal(err)
		}
		cluster.running = c
	}
	return cluster.running.Database(t)
}

// PostgresServer starts a cluster for one test, which may stop and start it.
func PostgresServer(t testing.TB) *Cluster {
	t.Helper()
	c, err := newCluster(postgresPrograms(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.end)
	return c
}

// postgresPrograms is the folder of PostgreSQL's programs. Debian keeps them off the
// PATH.
func postgresPrograms(t testing.TB) string {
	t.Helper()
	if path, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil && find(filepath.Join(filepath.Dir(real), "initdb")) != "" {
			return filepath.Dir(real)
		}
	}
	return filepath.Dir(Need(t, "/usr/lib/postgresql/*/bin/initdb", "postgresql"))
}

// Database makes a database in this cluster and drops it at the end of the test.
func (c *Cluster) Database(t testing.TB) *Database {
	t.Helper()
	c.mu.Lock()
	c.made++
	name := fmt.Sprintf("test%d", c.made)
	c.mu.Unlock()
	c.Exec(t, "CREATE DATABASE "+name+" TEMPLATE template0")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = c.exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)") // a test may have stopped the server
	})
	return &Database{Name: name, DSN: c.dsn(name), Cluster: c}
}

// DSN has no port: the name of the socket has, and the default one is ours.
func (c *Cluster) dsn(database string) string {
	return fmt.Sprintf("host=%s port=5432 user=%s dbname=%s sslmode=disable", c.Socket, superuser, database)
}

const superuser = "valise"

// Exec runs a statement as the cluster's owner, outside of any test's database.
func (c *Cluster) Exec(t testing.TB, statement string) {
	t.Helper()
	if err := c.exec(context.Background(), statement); err != nil {
		t.Fatalf("testenv: %s: %v", statement, err)
	}
}

func (c *Cluster) exec(ctx context.Context, statement string) error {
	conn, err := pgx.Connect(ctx, c.dsn("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, statement)
	return err
}

func newCluster(bin string) (*Cluster, error) {
	as, err := unprivileged()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("/var/tmp", "valise-pg") // short: the socket's path may have 107 bytes
	if err != nil {
		return nil, err
	}
	c := &Cluster{Socket: dir, dir: dir, bin: bin, as: as}
	if as != nil {
		err = os.Chown(dir, int(as.Uid), int(as.Gid))
	}
	if err == nil {
		err = c.keep()
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err = c.order("init"); err == nil {
		err = c.start()
	}
	if err != nil {
		c.end()
		return nil, err
	}
	return c, nil
}

// unprivileged is whom root becomes: PostgreSQL does not run as root.
func unprivileged() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, err
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("testenv: PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
}

func (c *Cluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = c.dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.as, Setpgid: true}
	return cmd
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

// keeper runs the server and does what it is told on its standard input, line by line.
// That ends when this process does, however that comes: then the server is ended and
// the folder removed. $1 is the program, $2 the folder; the rest is the server's.
const keeper = `
program=$1 dir=$2; shift 2
trap '' PIPE # nobody may be left to read the answer
server=
while read -r word; do
	case $word in
	init) "${program%/*}/initdb" --pgdata="$dir/data" --username=` + superuser + ` --auth=trust --encoding=UTF8 \
		--locale=C --no-sync --no-instructions >>"$dir/log" 2>&1 </dev/null || { echo failed; continue; } ;;
	start) "$program" "$@" >>"$dir/log" 2>&1 </dev/null & server=$! ;;
	crash) kill -QUIT $server; wait $server ;;
	stop) kill -INT $server; wait $server ;;
	esac
	echo done 2>/dev/null
done
[ -z "$server" ] || kill -INT $server 2>/dev/null
wait
rm -rf "$dir"
`

// keep starts the keeper.
func (c *Cluster) keep() error {
	cmd := c.command("/bin/sh", "-c", keeper, "sh", filepath.Join(c.bin, "postgres"), c.dir,
		"-D", c.data(), "-k", c.Socket, "-c", "listen_addresses=", "-c", "max_connections=200", "-c", "shared_buffers=32MB",
		"-c", "log_min_messages=warning", "-c", "log_min_error_statement=panic")
	life, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	answers, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	c.life, c.answers, c.done = life, bufio.NewReader(answers), make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(c.done)
	}()
	return nil
}

// order has the keeper do something, and returns when it has.
func (c *Cluster) order(word string) error {
	if _, err := io.WriteString(c.life, word+"\n"); err != nil {
		return err
	}
	answer, err := c.answers.ReadString('\n')
	if err == nil && answer != "done\n" {
		err = fmt.Errorf("testenv: PostgreSQL: %s %s%s", word, answer, c.log())
	}
	return err
}

// start returns when the server answers.
func (c *Cluster) start() error {
	if err := c.order("start"); err != nil {
		return err
	}
	return c.await()
}

func (c *Cluster) await() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		err := c.exec(ctx, "SELECT 1")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("testenv: PostgreSQL does not answer: %w\n%s", err, c.log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (c *Cluster) log() []byte {
	data, _ := os.ReadFile(filepath.Join(c.dir, "log"))
	return bytes.TrimSpace(data[max(0, len(data)-4096):])
}

// Crash ends the server and all its connections at once, without a word to anybody
// and without writing anything more, as PostgreSQL's "immediate" shutdown does. Start
// recovers it from its log.
func (c *Cluster) Crash(t testing.TB) { t.Helper(); c.tell(t, "crash") }

// Stop ends the server in order, cutting its connections off. Start starts it again.
func (c *Cluster) Stop(t testing.TB) { t.Helper(); c.tell(t, "stop") }

func (c *Cluster) tell(t testing.TB, word string) {
	t.Helper()
	if err := c.order(word); err != nil {
		t.Fatal(err)
	}
}

// Start starts the server after Crash or Stop.
func (c *Cluster) Start(t testing.TB) {
	t.Helper()
	if err := c.start(); err != nil {
		t.Fatal(err)
	}
}

// end ends the server and removes its folder.
func (c *Cluster) end() {
	_ = c.life.Close()
	<-c.done
}

// Set changes a setting of the running server, as its administrator would.
func (c *Cluster) Set(t testing.TB, name, value string) {
	t.Helper()
	c.Exec(t, "ALTER SYSTEM SET "+name+" = '"+value+"'")
	c.Exec(t, "SELECT pg_reload_conf()")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for {
		var now string
		err := c.ask(ctx, "SHOW "+name, &now)
		if err == nil && now == value {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("testenv: %s stays %s: %v", name, now, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (c *Cluster) ask(ctx context.Context, query string, into any) error {
	conn, err := pgx.Connect(ctx, c.dsn("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return conn.QueryRow(ctx, query).Scan(into)
}
