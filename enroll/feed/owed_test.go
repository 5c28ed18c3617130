// SPDX-License-Identifier: Apache-2.0

package feed

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"valise/bulletin/stream"
	"valise/internal/store/authority"
	"valise/ledger"
	"valise/record"
)

func (o *office) head() (h ledger.Head) {
	o.book.View(func(s *record.State) { h = s.Head() })
	return h
}

func (o *office) readOnly() bool {
	return errors.Is(o.store.View(context.Background(), (*authority.Tx).Writable), authority.ErrRestored)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ask opens a stream as a gateway, hangs up when the first of it has come, and returns
// the answer's status.
func (o *office) ask(gateway, path string, events ...stream.Event) int {
	o.t.Helper()
	o.gateway = o.Gateway(gateway)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	w := &impatient{httptest.NewRecorder(), cancel}
	o.feed.Handler().ServeHTTP(w, o.asGateway(path, body(o.t, events...)).WithContext(ctx))
	return w.Code
}

// An impatient peer hangs up after what was sent at once.
type impatient struct {
	*httptest.ResponseRecorder
	hangUp func()
}

func (i *impatient) Flush() {
	i.ResponseRecorder.Flush()
	i.hangUp()
}

// While one gateway has proved that it knows more, no other one's word, and no
// restart, ends the read-only state: what the first knows comes in before.
func TestWhatIsOwed(t *testing.T) {
	full := newOffice(t)
	old := stream.Event{Kind: stream.KindCheckpoint, Body: full.Checkpoint(full.head())}
	full.add(ledger.KindStatement, full.olga.Sign(full.person("alice")))
	newer := stream.Event{Kind: stream.KindCheckpoint, Body: full.Checkpoint(full.head())}
	news := stream.Event{Kind: stream.KindBulletin, Body: full.SignBulletin(full.Bulletin(9))}
	leaf := full.items(2)[0]
	item := stream.Item{Index: 2, Entry: leaf.Entry.Marshal(), Payload: leaf.Payload}.Event()
	hello := func(size int64) stream.Event { return stream.Hello{Manifest: 1, Size: size}.Event() }
	for name, restored := range map[string]bool{"restored": true, "exchanged unseen": false} {
		t.Run(name, func(t *testing.T) {
			o := newOfficeOf(t, full)
			if !restored {
				must(t, o.store.Recover(t.Context(), func(tx *authority.Tx) error { return tx.ClearFlag(authority.FlagRestored) }))
			}
			o.ask("one.interieur.example", stream.PathStream, hello(3), newer, news)
			o.ask("two.interieur.example", stream.PathStream, hello(2), old)
			if !o.readOnly() {
				t.Fatal("the authority goes on without what a gateway knows")
			}
			o.reopen()
			o.ask("two.interieur.example", stream.PathStream, hello(2), old)
			if !o.readOnly() {
				t.Fatal("a restart made it forget what a gateway knows")
			}
			if code := o.ask("one.interieur.example", stream.PathRestore, newer, item); code != http.StatusNoContent {
				t.Fatalf("restore: %d", code)
			}
			o.ask("two.interieur.example", stream.PathStream, hello(2), old)
			if !o.readOnly() {
				t.Fatal("the authority goes on and uses a bulletin's number again")
			}
			if code := o.ask("one.interieur.example", stream.PathRestore, newer, item, news); code != http.StatusNoContent {
				t.Fatalf("restore: %d", code)
			}
			o.ask("two.interieur.example", stream.PathStream, hello(2), old)
			if o.readOnly() {
				t.Error("read-only although it has everything")
			}
		})
	}
}

// A checkpoint by our own key over another record ends all issuing here, and no other
// gateway and no restart takes that back.
func TestForkStops(t *testing.T) {
	full := newOffice(t)
	same := stream.Event{Kind: stream.KindCheckpoint, Body: full.Checkpoint(full.head())}
	other := *full
	restored := newOfficeOf(t, full)
	must(t, restored.store.Recover(t.Context(), func(tx *authority.Tx) error { return tx.ClearFlag(authority.FlagRestored) }))
	other.add(ledger.KindStatement, other.olga.Sign(other.person("alice")))
	theirs := stream.Event{Kind: stream.KindCheckpoint, Body: other.Checkpoint(other.head())}
	restored.add(ledger.KindStatement, restored.olga.Sign(restored.person("bob")))
	hello := stream.Hello{Manifest: 1, Size: 2}.Event()
	if code := restored.ask("two.interieur.example", stream.PathStream, hello, same); code != http.StatusOK || restored.readOnly() {
		t.Fatalf("honest control: %d", code)
	}
	if code := restored.ask("one.interieur.example", stream.PathStream, hello, theirs); code != http.StatusConflict {
		t.Errorf("a contradiction: %d", code)
	}
	if !restored.readOnly() {
		t.Fatal("the authority goes on with a record that a gateway contradicts")
	}
	restored.reopen()
	restored.ask("two.interieur.example", stream.PathStream, hello, same)
	if !restored.readOnly() || restored.feed.Check(t.Context()) == nil {
		t.Error("another gateway, or a restart, made it forget the contradiction")
	}
}
