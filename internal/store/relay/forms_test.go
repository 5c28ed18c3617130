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
	{"postgresql", func(t testing.TB) place { return sharedPlace(t, false) }},
	{"postgresql alone", func(t testing.TB) place { return sharedPlace(t, true) }},
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

// sharedPlace is for a store on PostgreSQL, that of a gateway if it is to be alone.
func sharedPlace(t testing.TB, alone bool) place {
	database := testenv.Postgres(t).DSN
	return place{open: func(t testing.TB, q mailbox.Quota) mailbox.Store {
		return openConfigured(t, SharedConfig{Database: database, Quota: q, Alone: alone})
	}}
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
