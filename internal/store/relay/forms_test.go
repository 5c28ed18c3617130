// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"path/filepath"
	"testing"

	"valise/gateway/mailbox"
	"valise/internal/testenv"
)

// A place is where one store lies. open may be called again after a Close.
type place struct {
	open func(testing.TB, mailbox.Quota) mailbox.Store
}

// reopen closes the store and opens it again, from the disk.
func (p place) reopen(t testing.TB, s mailbox.Store, q mailbox.Quota) mailbox.Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return p.open(t, q)
}

// forms are the stores that have to pass the suite. Each function makes an
// empty place.
var forms = []struct {
	name string
	make func(testing.TB) place
}{
	{"sqlite", sqlitePlace},
	{"journal", func(t testing.TB) place { return journalPlace(t, 0) }},
	{"small journal", func(t testing.TB) place { return journalPlace(t, 64<<10) }},
	{"postgresql node", nodePlace},
	{"postgresql alone", alonePlace},
}

// onEachForm runs a test on every form of the store.
func onEachForm(t *testing.T, test func(*testing.T, place)) {
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) { test(t, form.make(t)) })
	}
}

func sqlitePlace(t testing.TB) place {
	path := filepath.Join(t.TempDir(), "relay.db")
	return place{open: func(t testing.TB, q mailbox.Quota) mailbox.Store { return open(t, path, q) }}
}

// journalPlace is for a store with a journal. Small files make the mover work.
func journalPlace(t testing.TB, segment int64) place {
	path := filepath.Join(t.TempDir(), "relay.db")
	return place{open: func(t testing.TB, q mailbox.Quota) mailbox.Store {
		return openJournaled(t, Config{Path: path, Quota: q, Segment: segment})
	}}
}

func openJournaled(t testing.TB, cfg Config) *Journaled {
	t.Helper()
	j, err := OpenJournaled(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

// alonePlace is for the store of a gateway that has a PostgreSQL database to itself.
func alonePlace(t testing.TB) place {
	database := testenv.Postgres(t).DSN
	return place{open: func(t testing.TB, q mailbox.Quota) mailbox.Store {
		return openConfigured(t, SharedConfig{Database: database, Quota: q, Alone: true})
	}}
}

// nodePlace is for that of one of several.
func nodePlace(t testing.TB) place {
	database := testenv.Postgres(t).DSN
	return place{open: func(t testing.TB, q mailbox.Quota) mailbox.Store { return openNode(t, database, "one", q) }}
}

func openNode(t testing.TB, database, name string, q mailbox.Quota) *Node {
	t.Helper()
	n, err := OpenNode(t.Context(), SharedConfig{Database: database, Node: name, Quota: q})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

func openShared(t testing.TB, database string, q mailbox.Quota) *Shared {
	t.Helper()
	return openConfigured(t, SharedConfig{Database: database, Quota: q})
}

func openConfigured(t testing.TB, cfg SharedConfig) *Shared {
	t.Helper()
	s, err := OpenShared(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func open(t testing.TB, path string, q mailbox.Quota) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Path: path, Quota: q})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}
