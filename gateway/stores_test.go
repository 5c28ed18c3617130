// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"valise/gateway/mailbox"
	"valise/internal/store/relay"
	"valise/internal/testenv"
)

// onPostgreSQL is the test below which gateways keep their mail in a PostgreSQL server.
const onPostgreSQL = "TestOnPostgreSQL/"

// What the store decides and keeps, seen through the whole gateway, on the other
// database: the very tests that run on the first one.
func TestOnPostgreSQL(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"adding and removing": TestAddAndRemove, "one commit wins": TestOneCommitWins, "resync": TestResync,
		"groups over a restart": TestGroupsSurviveRestart, "deliveries": TestDeliveryKeepsUntilAcknowledged, "full mailbox": TestFullMailboxRefuses,
		"KeyPackages": TestKeyPackages, "files expire": TestFilesExpire, "repetition": TestRepetitionOutlivesEverything,
		"pipelining": TestPipelining, "incarnations": TestIncarnations, "older state": TestOlderStateIsSeen,
		"expiry": TestMailExpires, "the sweep": TestSweepReadsTheirGroupsOnly, "quarantine": TestQuarantineRefusesWhatWasAdmitted,
	} {
		t.Run(name, test)
	}
}

// databases are those of the test's gateways, by their folders.
var databases struct {
	sync.Mutex
	dsn map[string]string // guarded by the mutex
}

// openStore opens the store of a gateway under test; a second time what the first one
// has left.
func openStore(t testing.TB, o gatewayOptions) mailbox.Store {
	t.Helper()
	if o.node != "" {
		s, err := relay.OpenNode(context.Background(), relay.SharedConfig{Database: o.database, Quota: o.quota, Node: o.node})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if strings.HasPrefix(t.Name(), onPostgreSQL) {
		databases.Lock()
		defer databases.Unlock()
		if databases.dsn == nil {
			databases.dsn = make(map[string]string)
		}
		if databases.dsn[o.dir] == "" {
			databases.dsn[o.dir] = testenv.Postgres(t).DSN
		}
		s, err := relay.OpenShared(context.Background(), relay.SharedConfig{Database: databases.dsn[o.dir], Quota: o.quota, Alone: true})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s, err := relay.OpenJournaled(context.Background(), relay.Config{Path: filepath.Join(o.dir, "relay.db"), Quota: o.quota})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
