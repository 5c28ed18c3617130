// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"path/filepath"
	"testing"
	"time"

	"valise/internal/store/relay"
	"valise/wire"
)

// A gateway that was restored delivers what its backup had, then says so under a number
// that nobody has seen, takes nothing for the groups that it knew, still gives their
// members the files of them, and serves devices that are ahead of it.
func TestRestoredGateway(t *testing.T) {
	authority, dir := newAuthority(t, "interieur.example"), t.TempDir()
	gw := startGateway(t, gatewayOptions{dir: dir, authority: authority})
	alice, bob, ga, _ := pair(t, gw)
	carol := newDevice(t, gw, "carol").ready()
	data, id := randomFile(10_000)
	if code := alice.put(ga.ID(), id, data); code != wire.OK {
		t.Fatal(code)
	}
	bob.ack(1)
	bob.settled(1)
	_ = bob.link.conn.CloseWithError(0, "")
	alice.must(alice.sealed(ga, "kept"))
	_, commit := alice.commitOf(ga)
	gw.stop()
	since := time.Now()
	r, err := relay.Restored(t.Context(), relay.Config{Path: filepath.Join(dir, "relay.db")}, since, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	gw = startGateway(t, gatewayOptions{dir: dir, authority: authority})
	alice.gw, bob.gw, carol.gw = gw, gw, gw

	if w := bob.connect(false, 1); w.Acknowledged != 1 || w.Incarnation != bob.incarnation || w.KeyPackages != 0 {
		t.Errorf("%+v", w)
	}
	bob.listen(1)
	if m := bob.next(); m.Number != 2 || m.Kind != wire.DeliverContent {
		t.Errorf("%+v", m)
	}
	notice := bob.next()
	said, err := wire.ParseRestoredMail(notice.Payload)
	if err != nil || notice.Kind != wire.DeliverRestored || notice.Number != r.Floor || said.First != 3 || said.Since != uint64(since.UnixMilli()) {
		t.Errorf("%+v, %+v, %v", notice, said, err)
	}
	bob.connect(false, 1000) // it has seen mail that is forgotten
	bob.listen(1000)
	if m := bob.next(); m.Number != r.Floor {
		t.Errorf("%+v", m)
	}
	bob.ack(r.Floor)
	bob.settled(r.Floor)

	alice.connect(false, 0)
	for what, code := range map[string]wire.Code{
		"a message": alice.submit(alice.sealed(ga, "x")), "a commit": alice.submit(commit), "GetGroup": alice.code(&wire.GetGroup{Group: ga.ID()}),
		"an upload": alice.put(ga.ID(), id, data),
	} {
		if code != wire.UnknownGroup {
			t.Errorf("%s: %v", what, code)
		}
	}
	if got, code := bob.get(id, 0); code != wire.OK || !bytes.Equal(got, data) {
		t.Errorf("the file: %d bytes, %v", len(got), code)
	}
	carol.connect(false, 0)
	if _, code := carol.get(id, 0); code != wire.NotFound {
		t.Errorf("the file, for a stranger: %v", code)
	}
	dave := newDevice(t, gw, "dave")
	if w := dave.connect(true, 0); w.Acknowledged != r.Floor || !w.Behind(&wire.Hello{Begin: true}) {
		t.Errorf("a device that the backup does not know: %+v", w)
	}
}
