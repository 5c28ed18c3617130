// SPDX-License-Identifier: Apache-2.0

package daemons

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"valise/internal/stage"
)

// A Postgres is a cluster of its own on a unix socket, with PostgreSQL's default
// settings: every commit is on disk before it is answered.
type Postgres struct {
	*Process
	dir string
}

// programs are Debian's, newest version first; elsewhere they are on the PATH.
func postgresProgram(name string) (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err == nil && len(found) > 0 {
		return found[len(found)-1], nil
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return "", fmt.Errorf("%s is missing: apt-get install postgresql", name)
}

// NewPostgres makes and starts a cluster in dir. PostgreSQL refuses to run as root,
// so root drops to "postgres" or "nobody".
func NewPostgres(ctx context.Context, dir string) (*Postgres, error) {
	initdb, err := postgresProgram("initdb")
	if err != nil {
		return nil, err
	}
	server, err := postgresProgram("postgres")
	if err != nil {
		return nil, err
	}
	as, err := unprivileged()
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if as != nil {
		if err := os.Chown(dir, int(as.Uid), int(as.Gid)); err != nil {
			return nil, err
		}
	}
	data := filepath.Join(dir, "data")
	cmd := exec.CommandContext(ctx, initdb, "-D", data, "-U", "bench", "-A", "trust", "--no-locale", "-E", "UTF8")
	cmd.Dir, cmd.SysProcAttr = dir, &syscall.SysProcAttr{Credential: as}
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	// SIGINT is PostgreSQL's fast shutdown.
	p, err := Start(dir+".log", syscall.SIGINT, as, nil, server, "-D", data, "-k", dir, "-c", "listen_addresses=")
	if err != nil {
		return nil, err
	}
	pg := &Postgres{Process: p, dir: dir}
	if err := pg.Accepts(ctx, "unix", filepath.Join(dir, ".s.PGSQL.5432")); err != nil {
		pg.Stop()
		return nil, err
	}
	// It listens before it answers.
	_, err = stage.Poll(ctx, "PostgreSQL to answer", func() (struct{}, bool, error) {
		return struct{}{}, pg.SQL(ctx, "SELECT 1") == nil, pg.Ended()
	})
	if err != nil {
		pg.Stop()
		return nil, err
	}
	return pg, nil
}

// SQL runs one statement.
func (pg *Postgres) SQL(ctx context.Context, statement string) error {
	psql, err := postgresProgram("psql")
	if err != nil {
		return err
	}
	_, err = stage.Output(ctx, nil, psql, "-qX", "-v", "ON_ERROR_STOP=1", "-h", pg.dir, "-U", "bench", "-d", "postgres", "-c", statement)
	return err
}

// DSN names a database of the cluster.
func (pg *Postgres) DSN(database string) string {
	return strings.Join([]string{"host=" + pg.dir, "user=bench", "dbname=" + database}, " ")
}

func unprivileged() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil && uid != 0 {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is no user postgres or nobody")
}
