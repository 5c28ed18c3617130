// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"testing"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/store"
	"valise/internal/testenv"
)

// patience is how long tests wait for what will come.
const patience = 2 * time.Minute

// An ear follows a node's news for a test.
type ear struct {
	heard chan mailbox.News
	stop  func()
}

// listenTo follows a node until the test ends, and returns when it hears.
func listenTo(t testing.TB, n *Node) *ear {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	e, done := &ear{heard: make(chan mailbox.News, 1000)}, make(chan struct{})
	go func() {
		defer close(done)
		if err := n.Follow(ctx, func(n mailbox.News) { e.heard <- n }); err != nil {
			t.Error(err)
		}
	}()
	e.stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(e.stop)
	e.until(t, func(n mailbox.News) bool { return n.All })
	return e
}

// until waits for news of a kind, and returns them.
func (e *ear) until(t testing.TB, is func(mailbox.News) bool) mailbox.News {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case n := <-e.heard:
			if is(n) {
				return n
			}
		case <-timeout:
			t.Fatal("it is not heard")
		}
	}
}

// What one node tells, the others hear, as it was told; itself it does not. An arrival is told by
// the store.
func TestNodesHear(t *testing.T) {
	database := testenv.Postgres(t).DSN
	one, two := openNode(t, database, "one", mailbox.Quota{}), openNode(t, database, "two", mailbox.Quota{})
	if one.Deaf() == nil {
		t.Error("who has not listened is not deaf")
	}
	first, second := listenTo(t, one), listenTo(t, two)
	st := arrive(t, one, device(3), incarnation, true)
	if n := second.until(t, func(n mailbox.News) bool { return len(n.Arrived) > 0 }); n.Arrived[0] != (mailbox.Seat{Device: device(3), Turn: st.Turn}) {
		t.Errorf("%+v after %+v", n, st)
	}
	again := arrive(t, two, device(3), incarnation, false)
	moved, err := one.Moved(t.Context(), []mailbox.Seat{{Device: device(3), Turn: st.Turn}})
	if err != nil || len(moved) != 1 || again.Turn <= st.Turn {
		t.Errorf("%v, %v, turn %d after %d", moved, err, again.Turn, st.Turn)
	}
	if moved, err := two.Moved(t.Context(), []mailbox.Seat{{Device: device(3), Turn: again.Turn}}); err != nil || len(moved) != 0 {
		t.Errorf("control: %v, %v", moved, err)
	}
	first.until(t, func(n mailbox.News) bool { return len(n.Arrived) > 0 })
	one.Tell(muchNews())
	letters := 0
	second.until(t, func(n mailbox.News) bool {
		letters += len(n.Mail)
		return letters == len(muchNews().Mail)
	})
	two.Tell(mailbox.News{Law: 1})
	if n := first.until(t, func(n mailbox.News) bool { return n.Law > 0 || len(n.Mail) > 0 }); n.Law != 1 {
		t.Errorf("a node hears itself: %d letters", len(n.Mail))
	}
	if one.Deaf() != nil || two.Deaf() != nil {
		t.Error(one.Deaf(), two.Deaf())
	}
}

// hangUp has the server end the connection on which a node listens.
func hangUp(t testing.TB, s *Shared, name string) {
	t.Helper()
	err := s.db.Update(t.Context(), func(tx *store.Tx) error {
		_, err := tx.ExecContext(t.Context(), `SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN nodes n ON CAST(l.objid AS BIGINT) = n.id
			WHERE l.locktype = 'advisory' AND CAST(l.classid AS BIGINT) = $1 AND n.name = $2
			AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())`, int64(nodeLocks>>32), name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A node that has lost its connection listens again by itself, and the first that it hears is
// that it may have missed something.
func TestNodeListensAgain(t *testing.T) {
	database := testenv.Postgres(t).DSN
	one, two := openNode(t, database, "one", mailbox.Quota{}), openNode(t, database, "two", mailbox.Quota{})
	e := listenTo(t, one)
	for range 2 {
		hangUp(t, two.Shared, "one")
		if n := e.until(t, func(mailbox.News) bool { return true }); !n.All {
			t.Errorf("heard %+v", n)
		}
	}
	two.Tell(mailbox.News{Law: 5})
	e.until(t, func(n mailbox.News) bool { return n.Law == 5 })
	// What nobody can read may be anything.
	if err := two.db.Write(t.Context(), func(s store.Statements) error {
		_, err := s.ExecContext(t.Context(), "SELECT pg_notify($1, $2)", one.node.channel, "of a later version")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	e.until(t, func(n mailbox.News) bool { return n.All })
}

// Nodes have different names, and none is on a database that a gateway has to itself, or the
// other way round. A list of them says who lives.
func TestNodesAreListed(t *testing.T) {
	database := testenv.Postgres(t).DSN
	one := openNode(t, database, "one", mailbox.Quota{})
	if _, err := OpenNode(t.Context(), SharedConfig{Database: database, Node: "one"}); !errors.Is(err, ErrNameInUse) {
		t.Errorf("a second one of the same name: %v", err)
	}
	if _, err := OpenShared(t.Context(), SharedConfig{Database: database, Alone: true}); !errors.Is(err, ErrInUse) {
		t.Errorf("alone beside a node: %v", err)
	}
	for _, name := range []string{"", "One", "a b", "-", "a'", string(make([]byte, 65))} {
		if _, err := OpenNode(t.Context(), SharedConfig{Database: database, Node: name}); err == nil {
			t.Errorf("%q is taken for a name", name)
		}
	}
	two := openNode(t, database, "two.x-1", mailbox.Quota{})
	alive := func() (names []string) {
		t.Helper()
		list, err := two.Nodes(t.Context())
		if err != nil || len(list) != 2 || list[0].Name != "one" || list[0].Started.IsZero() || list[0].Seen.Before(list[0].Started) {
			t.Fatalf("%+v, %v", list, err)
		}
		for _, n := range list {
			if n.Alive {
				names = append(names, n.Name)
			}
		}
		return names
	}
	if got := alive(); len(got) != 2 {
		t.Errorf("alive: %q", got)
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(patience); len(alive()) != 1; { // the server hears of it soon
		if time.Now().After(until) {
			t.Fatalf("alive: %q", alive())
		}
	}
	if err := two.Close(); err != nil {
		t.Fatal(err)
	}
	alone := openAlone(t, database)
	if _, err := OpenNode(t.Context(), SharedConfig{Database: database, Node: "one"}); !errors.Is(err, ErrAlone) {
		t.Errorf("a node beside one that is alone: %v", err)
	}
	if err := alone.Close(); err != nil {
		t.Fatal(err)
	}
	openNode(t, database, "one", mailbox.Quota{})
}

// A node whose locks have gone writes nothing while a gateway has the database to itself:
// what that one has in memory would not be true.
func TestNodeBesideAlone(t *testing.T) {
	database := testenv.Postgres(t).DSN
	node := openNode(t, database, "one", mailbox.Quota{})
	populate(t, node, 2)
	hangUp(t, node.Shared, "one")
	if o := apply(t, node, content(0, 2, "two", 1)); o.Verdict != mailbox.Done {
		t.Errorf("control, nobody else is there: %+v", o)
	}
	alone := openAlone(t, database)
	if _, err := node.Apply(t.Context(), []*mailbox.Submission{content(0, 3, "three", 1)}, nil); !errors.Is(err, ErrAlone) {
		t.Errorf("a node without its locks: %v", err)
	}
	if o := apply(t, alone, content(0, 3, "three", 1)); o.Verdict != mailbox.Done || o.Placed[0].Number != 2 {
		t.Errorf("%+v", o)
	}
}

// Holds follow the newest bulletin that any node has, and one that a node has laid by a
// statement ahead of its bulletin is not lifted by a node with the same bulletin.
func TestNodesGovern(t *testing.T) {
	database := testenv.Postgres(t).DSN
	one, two := openNode(t, database, "one", mailbox.Quota{}), openNode(t, database, "two", mailbox.Quota{})
	populate(t, one, 2)
	do := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	ctx, d := t.Context(), device(1)
	do("lay without a law", one.Quarantine(ctx, d, true), nil)
	do("lift without a law", two.Quarantine(ctx, d, false), nil)
	do("govern", one.Govern(ctx, 5), nil)
	do("govern by the same", two.Govern(ctx, 5), nil)
	do("lay", one.Quarantine(ctx, d, true), nil)
	do("lay what is laid", two.Quarantine(ctx, d, true), nil)
	do("lift under the same bulletin", two.Quarantine(ctx, d, false), mailbox.ErrOlderLaw)
	do("govern by the next", two.Govern(ctx, 6), nil)
	do("lift under the next", two.Quarantine(ctx, d, false), nil)
	do("lay under the one before", one.Quarantine(ctx, d, true), mailbox.ErrOlderLaw)
	do("purge under the one before", one.Purge(ctx, d), mailbox.ErrOlderLaw)
	do("govern by the one before", one.Govern(ctx, 5), mailbox.ErrOlderLaw)
	if holds, err := one.Holds(ctx); err != nil || len(holds) != 0 {
		t.Errorf("%v, %v", holds, err)
	}
	do("govern by the next too", one.Govern(ctx, 6), nil)
	do("purge", one.Purge(ctx, d), nil)
	if holds, err := two.Holds(ctx); err != nil || holds[d] != mailbox.Purged {
		t.Errorf("%v, %v", holds, err)
	}
}

// Housekeeping of a kind is one node's at a time, and is free again when that ends.
func TestNodesTakeTurns(t *testing.T) {
	database := testenv.Postgres(t).DSN
	one, two := openNode(t, database, "one", mailbox.Quota{}), openNode(t, database, "two", mailbox.Quota{})
	done, err := one.Turn(t.Context(), "sweep")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := two.Turn(t.Context(), "sweep"); !errors.Is(err, mailbox.ErrOthersTurn) {
		t.Errorf("two at once: %v", err)
	}
	if _, err := one.Turn(t.Context(), "sweep"); !errors.Is(err, mailbox.ErrOthersTurn) {
		t.Errorf("the same node twice: %v", err)
	}
	other, err := two.Turn(t.Context(), "expire")
	if err != nil {
		t.Fatalf("control, another kind: %v", err)
	}
	if losses, err := one.Expire(t.Context(), time.Now(), 10); err != nil || losses != nil {
		t.Errorf("mail expires at two nodes at once: %v, %v", losses, err)
	}
	other()
	done()
	if done, err = two.Turn(t.Context(), "sweep"); err != nil {
		t.Fatal(err)
	}
	done()
}

// The first node makes the transport keys, all others have the same, and exchanging them
// makes others for all.
func TestTransportKeysAreShared(t *testing.T) {
	database := testenv.Postgres(t).DSN
	one, two := openNode(t, database, "one", mailbox.Quota{}), openNode(t, database, "two", mailbox.Quota{})
	keys := func(f func(context.Context) (mailbox.TransportKeys, error)) mailbox.TransportKeys {
		t.Helper()
		k, err := f(t.Context())
		if err != nil || k.Token == k.Reset || k.Token == [32]byte{} || k.Reset == [32]byte{} {
			t.Fatalf("%+v, %v", k, err)
		}
		return k
	}
	made := make(chan mailbox.TransportKeys, 1)
	go func() {
		k, err := two.TransportKeys(t.Context())
		if err != nil {
			t.Error(err)
		}
		made <- k
	}()
	first := keys(one.TransportKeys)
	if k := <-made; k != first || first.Version != 1 {
		t.Errorf("%+v and %+v", k, first)
	}
	next := keys(one.RotateTransportKeys)
	if next.Token == first.Token || next.Reset == first.Reset || next.Version != 2 {
		t.Errorf("%+v after %+v", next, first)
	}
	if k := keys(two.TransportKeys); k != next {
		t.Errorf("%+v, want %+v", k, next)
	}
	execAll(t, one.db, `UPDATE transport_keys SET token = 'short'`)
	if k, err := two.TransportKeys(t.Context()); err == nil {
		t.Errorf("a damaged row: %+v", k)
	}
}
