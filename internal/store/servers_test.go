// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"valise/internal/testenv"
)

// hosts is a connection string that names several servers.
func hosts(database string, servers ...*testenv.Cluster) string {
	var dirs, ports []string
	for _, s := range servers {
		dirs, ports = append(dirs, s.Socket), append(ports, "5432")
	}
	return fmt.Sprintf("host=%s port=%s user=valise dbname=%s sslmode=disable", strings.Join(dirs, ","), strings.Join(ports, ","), database)
}

// When a server stands still and a standby has taken its place, whoever waits there for an
// answer is told that there is none, and the next transaction is done by the other. The first
// one comes back and would take writes: nobody goes back to it who knows of the other.
func TestAnotherServerTakesOver(t *testing.T) {
	ctx := t.Context()
	old := testenv.PostgresServer(t)
	database := old.Database(t)
	next := old.Standby(t, "next")
	db := testOpen(t, hosts(database.Name, old, next))
	old.Set(t, "synchronous_standby_names", "next")
	add := func(id int) error { return db.Update(ctx, exec(ctx, addParent, id, true, []byte("x"))) }
	if err := add(1); err != nil {
		t.Fatal(err)
	}
	old.Freeze(t)
	done := make(chan error, 1)
	go func() { done <- add(2) }()
	next.Set(t, "synchronous_standby_names", "")
	next.Promote(t)
	select {
	case <-done: // it may have been done meanwhile, by the other server
	case <-time.After(patience):
		t.Fatal("what waited for the server that stands still still waits")
	}
	until(t, "the next server to be used", func() bool { return add(3) == nil })
	if n := countOf(t, db); n < 2 {
		t.Errorf("%d rows are left", n)
	}
	old.Thaw(t)
	old.Set(t, "synchronous_standby_names", "")
	control := testOpen(t, hosts(database.Name, old)) // takes it: it knows of no other
	if n := countOf(t, control); n == 0 {
		t.Error("the control sees nothing")
	}
	if err := control.servers.note(&link{server: "next"}, 2); err != nil {
		t.Fatal(err)
	}
	if err := control.Update(ctx, exec(ctx, addParent, 4, true, []byte("x"))); !errors.Is(err, ErrLeftBehind) {
		t.Errorf("the server that was left behind: %v", err)
	}
}

// The server that took writes last is tried first, by whatever name it stands there.
func TestOrderOfServers(t *testing.T) {
	config, err := parsePostgreSQL("host=/run/a,127.0.0.1,localhost port=1,2,3 user=u dbname=d sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	s := &servers{links: map[*link]struct{}{}}
	for want, c := range map[string]*connecting{
		"/run/a": {servers: s}, "127.0.0.1": {servers: s, names: map[string]string{"127.0.0.1": "127.0.0.1"}},
		"localhost": {servers: s, names: map[string]string{"127.0.0.1": "localhost"}},
	} {
		address := map[string]string{"/run/a": "/run/a/.s.PGSQL.1", "127.0.0.1": "127.0.0.1:2", "localhost": "127.0.0.1:3"}[want]
		network := map[bool]string{true: "unix", false: "tcp"}[want == "/run/a"]
		if err := s.note(&link{server: c.server(network, address)}, 1); err != nil {
			t.Fatal(err)
		}
		next := config.Copy()
		s.order(&next.Config)
		if next.Host != want || len(next.Fallbacks) != 2 {
			t.Errorf("%s is tried first, want %s", next.Host, want)
		}
	}
	if !several(config) {
		t.Error("three servers count as one")
	}
}
