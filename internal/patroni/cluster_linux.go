// SPDX-License-Identifier: Apache-2.0

package patroni

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"valise/internal/freeport"
	"valise/internal/postgres"
)

// ErrNotInstalled is returned by New.
var ErrNotInstalled = errors.New("patroni: Patroni, etcd or PostgreSQL is not installed: run scripts/setup soak-ha")

// A Config says how a cluster is made. Only Logs is required.
type Config struct {
	Logs string // folder that the processes' logs are put into
	Etcd int    // members of etcd, 1 or 3; 0 means 1

	// Asynchronous has the primary wait for no standby: what was acknowledged may be lost with
	// it. It is the control of tests, which must lose with it.
	Asynchronous bool
	// Version3 uses etcd's newer interface, with which Debian's Patroni loses what was
	// acknowledged when a primary stands still and goes on (config.go says why).
	Version3 bool
}

// A Cluster is three servers, and what decides which of them takes writes.
type Cluster struct {
	Members []*Member

	cfg      Config
	dir      string
	who      *postgres.User
	password string
	etcd     []*process
	stop     chan struct{} // closed by Close
}

const members = 3

// New makes a cluster and starts it. It returns before there is a primary.
func New(cfg Config) (*Cluster, error) {
	if cfg.Etcd == 0 {
		cfg.Etcd = 1
	}
	programs, err := postgres.Programs()
	for _, name := range []string{"patroni", "etcd"} {
		if _, e := exec.LookPath(name); e != nil || err != nil {
			return nil, ErrNotInstalled
		}
	}
	who, err := postgres.Unprivileged()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("/var/tmp", "valise-ha") // a folder that its user can enter
	if err != nil {
		return nil, err
	}
	c := &Cluster{cfg: cfg, dir: dir, who: who, password: rand.Text(), stop: make(chan struct{})}
	go reap(c.stop)
	err = who.Own(dir)
	if err == nil {
		err = c.start(programs)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) start(programs string) error {
	urls, err := c.startEtcd()
	if err != nil {
		return err
	}
	for i := range members {
		m := &Member{Name: fmt.Sprintf("db%d", i+1), cluster: c}
		var errRest, errPort error
		m.rest, errRest = freeport.Take()
		m.port, errPort = freeport.Take()
		if err := errors.Join(errRest, errPort); err != nil {
			return err
		}
		s := settings{
			name: m.Name, host: "127.0.0.1", clients: "127.0.0.1/32", rest: m.rest, postgres: m.port, etcd: urls, data: m.data(), programs: programs,
			password: c.password, asynchronous: c.cfg.Asynchronous, version3: c.cfg.Version3,
		}
		if err := os.WriteFile(m.config(), []byte(s.yaml()), 0o600); err != nil {
			return err
		}
		if err := c.who.Own(m.config()); err != nil {
			return err
		}
		if err := m.Start(); err != nil {
			return err
		}
		c.Members = append(c.Members, m)
	}
	return nil
}

// startEtcd starts etcd and returns where Patroni finds it.
func (c *Cluster) startEtcd() (clients []string, err error) {
	type ports struct{ client, peer int }
	var all []ports
	var peers []string
	for i := range c.cfg.Etcd {
		client, errClient := freeport.Take()
		peer, errPeer := freeport.Take()
		if err := errors.Join(errClient, errPeer); err != nil {
			return nil, err
		}
		all = append(all, ports{client, peer})
		clients = append(clients, fmt.Sprintf("127.0.0.1:%d", client))
		peers = append(peers, fmt.Sprintf("etcd%d=http://127.0.0.1:%d", i+1, peer))
	}
	for i, p := range all {
		name := fmt.Sprintf("etcd%d", i+1)
		client, peer := fmt.Sprintf("http://127.0.0.1:%d", p.client), fmt.Sprintf("http://127.0.0.1:%d", p.peer)
		e, err := c.run(name, "etcd", "--name", name, "--data-dir", filepath.Join(c.dir, name), "--log-level", "warn",
			"--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
			"--initial-advertise-peer-urls", peer, "--initial-cluster", strings.Join(peers, ","), "--initial-cluster-state", "new",
			// The machine has other things to do: an election must not be called for that.
			"--heartbeat-interval", "250", "--election-timeout", "2500", "--enable-v2")
		if err != nil {
			return nil, err
		}
		c.etcd = append(c.etcd, e)
	}
	return clients, nil
}

// DSN is the connection string of a database: all servers, of which one takes writes.
func (c *Cluster) DSN(database string) string {
	var hosts, ports []string
	for _, m := range c.Members {
		hosts, ports = append(hosts, "127.0.0.1"), append(ports, fmt.Sprint(m.port))
	}
	return fmt.Sprintf("host=%s port=%s user=%s password=%s dbname=%s sslmode=disable target_session_attrs=read-write",
		strings.Join(hosts, ","), strings.Join(ports, ","), Superuser, c.password, database)
}

// Exec runs a statement at the primary, as the owner of everything.
func (c *Cluster) Exec(ctx context.Context, statement string) error {
	conn, err := pgx.Connect(ctx, c.DSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, statement)
	return err
}

// Create makes a database, and returns when all servers have it: who asks for one at a
// standby that has not heard of it yet is turned away for good.
func (c *Cluster) Create(ctx context.Context, database string) error {
	if err := c.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{database}.Sanitize()+" TEMPLATE template0"); err != nil {
		return err
	}
	for _, m := range c.Members {
		one := Cluster{Members: []*Member{m}, password: c.password}
		dsn := strings.Replace(one.DSN(database), "read-write", "any", 1)
		if err := wait(ctx, "database "+database+" at "+m.Name, func() bool {
			conn, err := pgx.Connect(ctx, dsn)
			return err == nil && conn.Close(ctx) == nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// wait asks until the answer is yes, ctx ends, or a process has ended that should run.
func wait(ctx context.Context, what string, ask func() bool) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !ask() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("patroni: waited for %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

// Primary waits until one member is the primary, by its own word and everybody's, and
// returns it.
func (c *Cluster) Primary(ctx context.Context) (found *Member, err error) {
	err = wait(ctx, "a primary", func() bool {
		for _, m := range c.Members {
			if m.get(ctx, "primary", nil) {
				found = m
				return true
			}
		}
		return false
	})
	return found, err
}

// Other is Primary, for one that is not the former one.
func (c *Cluster) Other(ctx context.Context, former *Member) (found *Member, err error) {
	err = wait(ctx, "a primary other than "+former.Name, func() bool {
		for _, m := range c.Members {
			if m != former && m.get(ctx, "primary", nil) {
				found = m
				return true
			}
		}
		return false
	})
	return found, err
}

// Settled waits until there is a primary that all others follow, and a standby that
// may take its place.
func (c *Cluster) Settled(ctx context.Context) error {
	var last view
	err := wait(ctx, "all members to follow one", func() bool {
		for _, m := range c.Members {
			var v view
			if m.get(ctx, "primary", nil) && m.get(ctx, "cluster", &v) {
				last = v
				return v.settled(!c.cfg.Asynchronous)
			}
		}
		return false
	})
	if err != nil {
		err = fmt.Errorf("%w: %+v", err, last)
	}
	return err
}

// A view is what a member tells of the cluster.
type view struct {
	Members []struct {
		Name, Role, State string
		Timeline          int
		Lag               any // a number, or "unknown"
	}
}

func (v *view) settled(synchronous bool) bool {
	roles := map[string]int{}
	for _, m := range v.Members {
		lag, known := m.Lag.(float64)
		if m.State != "running" && m.State != "streaming" || m.Timeline != v.Members[0].Timeline || m.Role != "leader" && (!known || lag > 16<<20) {
			return false
		}
		roles[m.Role]++
	}
	return len(v.Members) == members && roles["leader"] == 1 && (roles["sync_standby"] == 1 || !synchronous)
}

// get asks a member's API, and reports whether it says yes.
func (m *Member) get(ctx context.Context, path string, into any) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/%s", m.rest, path), nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK && (into == nil || json.NewDecoder(http.MaxBytesReader(nil, resp.Body, 1<<20)).Decode(into) == nil)
}

// Close ends all processes, and their folder is gone.
func (c *Cluster) Close() error {
	close(c.stop)
	var err error
	for _, m := range c.Members {
		err = errors.Join(err, m.Kill())
	}
	for _, e := range c.etcd {
		e.kill()
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}
