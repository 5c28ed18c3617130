// SPDX-License-Identifier: Apache-2.0

//go:build upgrade

package gateway

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"valise/internal/oldversion"
	"valise/internal/testenv"
)

// A schema that does not exist yet: what it adds, the version before survives.
const nextSchema = `-- SPDX-License-Identifier: Apache-2.0
-- oldest: 16

-- +goose Up
CREATE TABLE next (id BIGINT PRIMARY KEY) STRICT;
ALTER TABLE devices ADD COLUMN next BIGINT NOT NULL DEFAULT 0;
ALTER TABLE key_packages ADD COLUMN next TEXT NOT NULL DEFAULT '';
ALTER TABLE group_records ADD COLUMN next BLOB NOT NULL DEFAULT x'';
ALTER TABLE states ADD COLUMN next BIGINT NOT NULL DEFAULT 0;
ALTER TABLE mailbox ADD COLUMN next BIGINT NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN next BIGINT NOT NULL DEFAULT 0;
ALTER TABLE recent ADD COLUMN next BIGINT NOT NULL DEFAULT 0;
`

// versions are the daemon of the last version, and that of the next one.
func versions(t *testing.T) (last, next string) {
	t.Helper()
	dir, err := oldversion.Build(t.Context(), oldversion.Config{Commit: oldversion.Last, Programs: []string{"./cmd/valise-gatewayd"}, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	last = filepath.Join(dir, "valise-gatewayd")
	dir, err = oldversion.Build(t.Context(), oldversion.Config{
		Overlay:  map[string][]byte{"internal/store/relay/migrations/00999_next.sql": []byte(nextSchema)},
		Programs: []string{"./cmd/valise-gatewayd"}, Log: t.Output(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return last, filepath.Join(dir, "valise-gatewayd")
}

// The gateway is the last version's program, then the next one's, which changes the schema,
// then the last one's again, back and forth in mid-traffic: every message arrives once.
func TestUpgradeAndBack(t *testing.T) {
	last, next := versions(t)
	for name, database := range map[string]func() string{
		"SQLite":     func() string { return "" },
		"PostgreSQL": func() string { return fmt.Sprintf("database = %q\n", testenv.Postgres(t).DSN) },
	} {
		t.Run(name, func(t *testing.T) {
			p, gw := newProcess(t)
			text, err := os.ReadFile(p.config)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p.config, append([]byte(database()), text...), 0o600); err != nil {
				t.Fatal(err)
			}
			p.binary = last
			j := newJourney(t, p, gw)
			turns := 0
			j.through(kills, func() {
				p.kill()
				p.binary = []string{next, last}[turns%2]
				turns++
				p.start()
			})
			j.judge()
			if strings.Contains(p.log.String(), "newer version") {
				t.Error(tail(p.log.String()))
			}
			fmt.Printf("upgrade: ok: gateway on %s, version %.12s and the next one in turns, %d times: %d messages and %d commits, 0 lost\n",
				name, oldversion.Last, turns, j.sender.sent, j.sender.commits)
		})
	}
}
