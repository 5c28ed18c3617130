// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"io/fs"
	"path/filepath"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/store"
)

// step is a submission of device 0 that founds a group, or moves it on.
func step(counter uint64, group string, from uint64, joined, left []mailbox.Device) *mailbox.Submission {
	s := &mailbox.Step{Group: []byte(group), Create: from == 0, From: from, To: from + 1, Info: []byte("info"), Joined: joined, Left: left}
	return &mailbox.Submission{Device: device(0), Incarnation: incarnation, Counter: counter, Hash: [32]byte{byte(counter)}, Time: time.Now(), Step: s}
}

// groupsOf lists all groups of a device, two at a time.
func groupsOf(t *testing.T, s mailbox.Store, d int) (all []string) {
	t.Helper()
	return paged(t, func(after int64) ([][]byte, int64, error) { return s.GroupsOf(t.Context(), device(d), after, 2) })
}

func unlisted(t *testing.T, s mailbox.Store) (all []string) {
	t.Helper()
	return paged(t, func(after int64) ([][]byte, int64, error) { return s.Unlisted(t.Context(), after, 2) })
}

func paged(t *testing.T, page func(int64) ([][]byte, int64, error)) (all []string) {
	t.Helper()
	for after := int64(0); ; {
		ids, last, err := page(after)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range ids {
			all = append(all, string(id))
		}
		if len(ids) < 2 {
			if more, next, err := page(last); len(more) != 0 || next != last || err != nil {
				t.Errorf("after the last one: %q, %d, %v", more, next, err)
			}
			return all
		}
		after = last
	}
}

// tablesOf reaches the database behind a store.
func tablesOf(t testing.TB, s mailbox.Store) tables {
	t.Helper()
	switch s := s.(type) {
	case *Store:
		return s.tables
	case *Journaled:
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		return s.db.tables
	case *Node:
		return s.tables
	case *Shared:
		return s.tables
	}
	t.Fatalf("a store of type %T", s)
	return tables{}
}

func execAll(t *testing.T, db *store.DB, queries ...string) {
	t.Helper()
	err := db.Update(t.Context(), func(tx *store.Tx) error {
		for _, q := range queries {
			if _, err := tx.ExecContext(t.Context(), q); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The groups of a device are those in whose trees it stands: kept with the steps that
// change it, in their transactions, through a restart.
func TestGroupsOfDevice(t *testing.T) { onEachForm(t, testGroupsOfDevice) }

func testGroupsOfDevice(t *testing.T, p place) {
	s := p.open(t, mailbox.Quota{})
	populate(t, s, 4)
	devices := func(list ...int) (out []mailbox.Device) {
		for _, d := range list {
			out = append(out, device(d))
		}
		return out
	}
	for i, id := range []string{"f", "e", "d"} {
		if o := apply(t, s, step(uint64(i)+2, id, 0, devices(0), nil)); o.Verdict != mailbox.Done {
			t.Fatalf("found %s: %+v", id, o)
		}
	}
	apply(t, s, step(5, "f", 1, devices(1, 2), nil))
	apply(t, s, step(6, "e", 1, devices(1), nil))
	apply(t, s, step(7, "d", 1, devices(1, 3), nil))
	apply(t, s, step(8, "f", 2, devices(3), devices(1)))
	if o := apply(t, s, step(9, "f", 1, devices(1), nil)); o.Verdict != mailbox.StaleEpoch {
		t.Fatalf("a step from an epoch that is over: %+v", o)
	}
	want := map[int][]string{0: {"f", "e", "d"}, 1: {"e", "d"}, 2: {"f"}, 3: {"f", "d"}, 9: nil}
	check := func(what string) {
		t.Helper()
		for d, groups := range want {
			if got := groupsOf(t, s, d); !slices.Equal(got, groups) {
				t.Errorf("%s: groups of device %d: %q, want %q", what, d, got, groups)
			}
		}
	}
	check("at once")
	if got := unlisted(t, s); len(got) != 0 {
		t.Errorf("unlisted: %q", got)
	}
	s = p.reopen(t, s, mailbox.Quota{})
	check("after a restart")

	// A store from before: the rows are not there, until each group is listed.
	execAll(t, tablesOf(t, s).db, `DELETE FROM group_members`, `UPDATE groups SET listed = 0`)
	if got, all := unlisted(t, s), []string{"g", "f", "e", "d"}; !slices.Equal(got, all) {
		t.Errorf("unlisted: %q, want %q", got, all)
	}
	for id, l := range map[string]struct {
		epoch   uint64
		members []mailbox.Device
	}{"f": {3, devices(0, 2, 3)}, "e": {2, devices(0, 1)}, "d": {1, devices(0)}} {
		if err := s.List(t.Context(), []byte(id), l.epoch, l.members); err != nil {
			t.Fatal(err)
		}
	}
	if got, left := unlisted(t, s), []string{"g", "d"}; !slices.Equal(got, left) {
		t.Errorf("unlisted although listed, or listed as of another epoch: %q, want %q", got, left)
	}
	apply(t, s, step(9, "d", 2, devices(2), nil)) // before it is listed
	if err := s.List(t.Context(), []byte("d"), 3, devices(0, 1, 2, 3)); err != nil {
		t.Fatal(err)
	}
	if err := s.List(t.Context(), []byte("f"), 3, devices(1)); err != nil {
		t.Fatal(err) // it is listed, and stays as it is
	}
	want[2] = []string{"f", "d"}
	check("listed")
	lost := tablesOf(t, s)
	if _, err := lost.restored(t.Context(), time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
	s = p.reopen(t, s, mailbox.Quota{})
	if got := append(groupsOf(t, s, 1), unlisted(t, s)...); len(got) != 0 {
		t.Errorf("groups that do not go on are listed: %q", got)
	}
}

// A database of the version before has all of its groups unlisted; new ones are listed.
func TestMigratedGroupsAreUnlisted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "relay.db")
	before := fstest.MapFS{}
	err := fs.WalkDir(migrations, "migrations", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Base(name) >= "00015_" {
			return err
		}
		data, err := fs.ReadFile(migrations, name)
		before[filepath.Base(name)] = &fstest.MapFile{Data: data}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(context.Background(), store.Config{Path: path, Migrations: before, ApplicationID: ApplicationID})
	if err != nil {
		t.Fatal(err)
	}
	execAll(t, db, `INSERT INTO groups (group_id, epoch, info) VALUES (x'6f6c64', 4, x'00')`)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s := open(t, path, mailbox.Quota{})
	populate(t, s, 1)
	if got := unlisted(t, s); !slices.Equal(got, []string{"old"}) {
		t.Errorf("unlisted: %q", got)
	}
}

// A step in a journal from before says nothing of who joined: its group is unlisted,
// whether it founds it or moves it on.
func TestStepFromAnOldJournal(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "relay.db"), mailbox.Quota{})
	populate(t, s, 2)
	apply(t, s, step(2, "listed", 0, []mailbox.Device{device(0)}, nil))
	for _, form := range []struct {
		lists bool
		row   int64
		group string
		want  []string
	}{{true, 2, "listed", nil}, {false, 2, "listed", []string{"listed"}}, {true, 7, "new", []string{"listed"}}, {false, 8, "old", []string{"listed", "old"}}} {
		item := &stepItem{row: form.row, lists: form.lists, step: mailbox.Step{Group: []byte(form.group), To: 2, Info: []byte{}}}
		if form.lists {
			item.step.Joined = []mailbox.Device{device(1)}
		}
		if _, err := parseBack(item); err != nil {
			t.Fatal(err)
		}
		err := s.db.Update(t.Context(), func(tx *store.Tx) error { return stepWork(item).do(s.newBatch(t.Context(), tx)) })
		if err != nil {
			t.Fatal(err)
		}
		if got := unlisted(t, s); !slices.Equal(got, form.want) {
			t.Errorf("after a step of %s, lists %v: unlisted %q, want %q", form.group, form.lists, got, form.want)
		}
	}
	if got := groupsOf(t, s, 1); !slices.Equal(got, []string{"listed", "new"}) {
		t.Errorf("groups of device 1: %q", got)
	}
}

// parseBack reads a step as the journal has it.
func parseBack(item *stepItem) (*writer, error) {
	head := (&submissionItem{device: 1, counter: 1}).append([]byte{recordVersion})
	data := item.append(head)
	w := &writer{b: []byte{recordVersion}}
	if err := parseRecord(data, w); err != nil {
		return nil, err
	}
	if !slices.Equal(w.b, data) {
		return nil, errRecord
	}
	return w, nil
}
