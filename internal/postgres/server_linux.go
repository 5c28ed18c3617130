// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrNotInstalled is returned by Programs.
var ErrNotInstalled = errors.New("postgres: PostgreSQL is not installed: run make setup")

// Programs is the folder of PostgreSQL's programs. Debian keeps them off the PATH.
func Programs() (string, error) {
	if path, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			if _, err := os.Stat(filepath.Join(filepath.Dir(real), "initdb")); err == nil {
				return filepath.Dir(real), nil
			}
		}
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", ErrNotInstalled
	}
	return filepath.Dir(found[len(found)-1]), nil
}

// A Config says how a server is made. Only Programs is required.
type Config struct {
	Programs string // folder of PostgreSQL's programs
	Log      string // file that its log is appended to; in its own folder if empty

	// Settings are more of the server's, as "name=value".
	Settings []string

	// Standby of another server, which it copies and follows under the name given: what that
	// one's synchronous_standby_names may say.
	Of   *Server
	Name string

	// Place is called with the data folder, empty, before anything is in it, and with
	// the user whom it must belong to: to mount something there. Made is called when the data
	// is there, of which nothing has been synced. Nil does nothing.
	Place func(data string, uid, gid uint32) error
	Made  func()
}

// A Server is a running server, or one that was ended and can be started again. Its
// methods may be called by any goroutine.
type Server struct {
	Socket string // its folder, in which only its user and root can enter

	cfg  Config
	who  *User
	done chan struct{} // closed when the keeper has ended

	mu      sync.Mutex
	life    io.WriteCloser // guarded by mu; to the keeper: it ends when this end of the pipe is closed
	answers *bufio.Reader  // guarded by mu
}

// Superuser owns every database.
const Superuser = "valise"

// New makes a server's data and starts it.
func New(cfg Config) (*Server, error) {
	who, err := Unprivileged()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("/var/tmp", "valise-pg") // short: the socket's path may have 107 bytes
	if err != nil {
		return nil, err
	}
	s := &Server{Socket: dir, cfg: cfg, who: who}
	if cfg.Log == "" {
		s.cfg.Log = filepath.Join(dir, "log")
	}
	if err = s.prepare(); err == nil {
		err = s.keep()
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	how := "init"
	if cfg.Of != nil {
		how = "copy"
	}
	if err = s.order(how); err == nil {
		if cfg.Made != nil {
			cfg.Made()
		}
		err = s.Start()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// prepare makes the folders.
func (s *Server) prepare() error {
	if err := os.Mkdir(s.data(), 0o700); err != nil {
		return err
	}
	if s.cfg.Place != nil {
		if err := s.cfg.Place(s.data(), s.who.uid, s.who.gid); err != nil {
			return err
		}
	}
	return errors.Join(s.who.Own(s.Socket), s.who.Own(s.data()))
}

func (s *Server) data() string { return filepath.Join(s.Socket, "data") }

// DSN is the connection string of a database. It has a port, which is a part of the
// socket's name, because a default would be the environment's.
func (s *Server) DSN(database string) string {
	return fmt.Sprintf("host=%s port=5432 user=%s dbname=%s sslmode=disable", s.Socket, Superuser, database)
}

// SocketFile is where the server listens.
func (s *Server) SocketFile() string { return filepath.Join(s.Socket, ".s.PGSQL.5432") }

// keeper runs the server and does what it is told on its standard input, line by line.
// That ends when this process does, however that comes: then the server is ended and
// the folder removed. $1 is the program, $2 the folder; the rest is the server's.
//
// All processes of a server are children of its first one, which is stopped before the
// list is made so that there are no new ones. A dead one nobody has waited for has no exe.
// $3 is how a standby reaches the server that it follows.
const keeper = `
program=$1 dir=$2 primary=$3; shift 3
trap '' PIPE # nobody may be left to read the answer
server=
runs() { [ -n "$server" ] && [ -e /proc/$server/exe ]; }
gone() { for p; do while [ -e /proc/$p/exe ]; do sleep 0.01; done; done; }
while read -r word; do
	case $word in
	init) "${program%/*}/initdb" --pgdata="$dir/data" --username=` + Superuser + ` --auth=trust --encoding=UTF8 \
		--locale=C --no-sync --no-instructions --wal-segsize=1 >&2 </dev/null || { echo failed; continue; } ;;
	copy) "${program%/*}/pg_basebackup" --pgdata="$dir/data" --dbname="$primary" --checkpoint=fast --wal-method=stream \
		--write-recovery-conf --no-sync >&2 </dev/null || { echo failed; continue; } ;;
	start) runs || { "$program" "$@" >&2 </dev/null & server=$!; } ;;
	runs) runs || { echo failed; continue; } ;;
	crash) runs && kill -QUIT $server; wait $server ;;
	stop) runs && kill -INT $server; wait $server ;;
	kill) runs && kill -STOP $server && {
		all=$(cat /proc/$server/task/$server/children)
		kill -KILL $server $all; wait $server; gone $all; } ;;
	freeze) runs && kill -STOP $server && kill -STOP $(cat /proc/$server/task/$server/children) ;;
	thaw) runs && kill -CONT $(cat /proc/$server/task/$server/children) $server ;;
	esac
	echo done 2>/dev/null
done
[ -z "$server" ] || kill -CONT $(cat /proc/$server/task/$server/children 2>/dev/null) $server 2>/dev/null
[ -z "$server" ] || kill -INT $server 2>/dev/null
wait
rm -rf "$dir"/* "$dir"/.s* 2>/dev/null
rm -rf "$dir"
`

// keep starts the keeper.
func (s *Server) keep() error {
	primary := ""
	if of := s.cfg.Of; of != nil {
		primary = of.DSN("replication") + " application_name=" + s.cfg.Name
	}
	args := []string{
		"-c", keeper, "sh", filepath.Join(s.cfg.Programs, "postgres"), s.Socket, primary,
		"-D", s.data(), "-k", s.Socket, "-c", "listen_addresses=", "-c", "max_connections=200", "-c", "shared_buffers=32MB",
		"-c", "log_min_messages=warning", "-c", "log_min_error_statement=panic",
	}
	for _, setting := range s.cfg.Settings {
		args = append(args, "-c", setting)
	}
	log, err := os.OpenFile(s.cfg.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("/bin/sh", args...)
	cmd.Dir, cmd.Stderr = s.Socket, log
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = s.who.Attr()
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
	s.life, s.answers, s.done = life, bufio.NewReader(answers), make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(s.done)
	}()
	return nil
}

// order has the keeper do something, and returns when it has.
func (s *Server) order(word string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := io.WriteString(s.life, word+"\n"); err != nil {
		return err
	}
	answer, err := s.answers.ReadString('\n')
	if err == nil && answer != "done\n" {
		err = fmt.Errorf("postgres: %s %s%s", word, answer, s.log())
	}
	return err
}

// Start starts the server if it does not run, and returns when it answers.
func (s *Server) Start() error {
	if err := s.order("start"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		err := s.Exec(ctx, "SELECT 1")
		if err == nil {
			return nil
		}
		if gone := s.order("runs"); gone != nil {
			return gone
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("postgres: the server does not answer: %w\n%s", err, s.log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Server) log() []byte {
	data, _ := os.ReadFile(s.cfg.Log)
	return bytes.TrimSpace(data[max(0, len(data)-4096):])
}

// Crash ends the server and all its connections at once, without a word to anybody
// and without writing anything more, as PostgreSQL's "immediate" shutdown does. Start
// recovers it from its log.
func (s *Server) Crash() error { return s.order("crash") }

// Kill is kill -9 of all its processes, as if its machine had ended but for the
// system's cache. Start recovers it.
func (s *Server) Kill() error { return s.order("kill") }

// Stop ends the server in order, cutting its connections off.
func (s *Server) Stop() error { return s.order("stop") }

// Freeze stops all its processes where they are: it takes connections and answers nothing.
// Thaw lets them go on.
func (s *Server) Freeze() error { return s.order("freeze") }

// Thaw ends Freeze.
func (s *Server) Thaw() error { return s.order("thaw") }

// Promote makes a standby a server that takes writes, whatever has become of the one that it
// followed.
func (s *Server) Promote(ctx context.Context) error { return s.Exec(ctx, "SELECT pg_promote()") }

// Close ends the server and removes its folder.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.life.Close()
	<-s.done
	_ = os.RemoveAll(s.Socket) // what a mount has kept the keeper from
}

// Exec runs a statement as the server's owner, in a database of its own.
func (s *Server) Exec(ctx context.Context, statement string) error {
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, statement)
	return err
}

// Set changes a setting of the running server, as its administrator would, and returns
// when new connections have it.
func (s *Server) Set(ctx context.Context, name, value string) error {
	if err := s.Exec(ctx, "ALTER SYSTEM SET "+name+" = '"+value+"'"); err != nil {
		return err
	}
	if err := s.Exec(ctx, "SELECT pg_reload_conf()"); err != nil {
		return err
	}
	for {
		now, err := s.show(ctx, name)
		if err == nil && now == value {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("postgres: %s stays %s: %w", name, now, errors.Join(err, ctx.Err()))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (s *Server) show(ctx context.Context, name string) (value string, err error) {
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	return value, conn.QueryRow(ctx, "SHOW "+name).Scan(&value)
}
