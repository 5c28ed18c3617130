// SPDX-License-Identifier: Apache-2.0

//go:build upgrade

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"valise/enroll/enrolltest"
	"valise/internal/oldversion"
	"valise/internal/store/authority"
	"valise/internal/testenv"
)

// Schemas that do not exist yet: one that the version before survives, and one that it
// does not.
const (
	addsSchema = `-- oldest: 7

-- +goose Up
CREATE TABLE next (id BIGINT PRIMARY KEY) STRICT;
ALTER TABLE accounts ADD COLUMN next BIGINT NOT NULL DEFAULT 0;
ALTER TABLE orders ADD COLUMN next TEXT NOT NULL DEFAULT '';
`
	breaksSchema = `-- +goose Up
ALTER TABLE orders DROP COLUMN next;
`
)

func program(t *testing.T, cfg oldversion.Config) string {
	t.Helper()
	cfg.Programs, cfg.Log = []string{"./cmd/valise-enrolld"}, t.Output()
	dir, err := oldversion.Build(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Commit == "" {
		t.Cleanup(func() { os.RemoveAll(dir) })
	}
	return filepath.Join(dir, "valise-enrolld")
}

// beside is another daemon of the same authority, with another program.
func (b *bureau) beside(program string) *bureau {
	b.t.Helper()
	n := *b
	address := free(b.t)
	n.program, n.admin, n.url, n.daemon = program, free(b.t), "https://"+address, nil
	n.config = filepath.Join(b.dir, "beside-"+filepath.Base(filepath.Dir(program))+".toml")
	text, err := os.ReadFile(b.config)
	if err != nil {
		b.t.Fatal(err)
	}
	changed := strings.NewReplacer(strings.TrimPrefix(b.url, "https://"), address, b.admin, n.admin).Replace(string(text))
	if err := os.WriteFile(n.config, []byte(changed), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return &n
}

// The last version's authority and the next one's serve one PostgreSQL database; the next
// one changes the schema while devices enroll at both. What an old program does not survive
// waits until none runs.
func TestUpgradeOfTheAuthority(t *testing.T) {
	steps := map[string][]byte{"internal/store/authority/migrations/00998_adds.sql": []byte(addsSchema)}
	last, adds := program(t, oldversion.Config{Commit: oldversion.Last}), program(t, oldversion.Config{Overlay: steps})
	steps["internal/store/authority/migrations/00999_breaks.sql"] = []byte(breaksSchema)
	breaks := program(t, oldversion.Config{Overlay: steps})

	k := testenv.SoftHSM(t)
	b := newBureau(t, k, k.PINFile)
	db := testenv.Postgres(t)
	b.amend(`data = "data"`, fmt.Sprintf("data = \"data\"\ndatabase = %q", db.DSN))
	people := "address,name,unit,clearance\n"
	for i := range 400 {
		people += fmt.Sprintf("p%d@%s,Person,,\n", i, domain)
	}
	b.write("people.csv", people)
	b.program = last
	b.must("init")
	b.must("roster", "import", "people.csv")
	b.start()
	root := b.root()

	var next, done atomic.Int64
	enroll := func(at *bureau) {
		name := fmt.Sprintf("p%d", next.Add(1)-1)
		issuedTo(t, root, at.client(root).Enroll(at.invite(name), b.vendor.Card(t, enrolltest.CardConfig{})), name+"@"+domain)
		done.Add(1)
	}
	work := func(at *bureau, stop <-chan struct{}) (wait func()) {
		var w sync.WaitGroup
		for range 2 {
			w.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						enroll(at)
					}
				}
			})
		}
		return w.Wait
	}
	more := func(n int64) {
		from := done.Load()
		until(t, "enrollments", func() bool { return t.Failed() || done.Load() >= from+n })
	}

	stopOld, stopNew := make(chan struct{}), make(chan struct{})
	oldDone := work(b, stopOld)
	more(4)
	n := b.beside(adds)
	n.start() // changes the schema under the old one
	newDone := work(n, stopNew)
	more(8)
	if _, err := b.beside(breaks).run("list"); err == nil || !strings.Contains(err.Error(), "an older version use this database") {
		t.Errorf("a schema that the old program does not survive: %v", err)
	}
	more(4)
	close(stopOld)
	oldDone()
	if err := b.stop(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	b.start() // the old program again, on the new schema
	enroll(b)
	close(stopNew)
	newDone()
	for _, daemon := range []*bureau{b, n} {
		if err := daemon.stop(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	}
	x := b.beside(breaks)
	listed := strings.Count(x.must("list"), "@"+domain)
	if _, err := b.run("list"); err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("the old program on a schema that it cannot use: %v", err)
	}
	if int64(listed) != done.Load() {
		t.Errorf("%d devices have certificates, and the authority lists %d", done.Load(), listed)
	}
	store, err := authority.OpenExisting(t.Context(), db.DSN)
	if err == nil { // the present program knows neither schema
		defer store.Close()
		t.Error("opened by a program that is too old")
	}
	fmt.Printf("upgrade: ok: authority of version %.12s and the next one on one database: %d devices enrolled, 0 lost\n", oldversion.Last, listed)
}
