// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"valise/internal/stage"
	"valise/internal/testenv"
)

// A ministry is a world whose authority has officers.
type ministry struct {
	*world
	officers []*stage.Officer
}

// newMinistry founds one with two officers, and enrolls people whom both approve.
func newMinistry(t *testing.T, cfg stage.Config, names ...string) *ministry {
	t.Helper()
	w := emptyStage(t, cfg)
	m := &ministry{world: w}
	for _, name := range []string{"olga", "oskar"} {
		m.officers = append(m.officers, w.NewOfficer(name, name+"@"+domain, "officer", w.newReader(name, 1)[0]))
	}
	pem, err := w.RootPEM(w.ctx, w.root)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, name := range names {
		lines = append(lines, name+"@"+domain+","+name+",Unit,")
	}
	if w.authority, err = w.NewMinistry(w.ctx, "ministry", domain, lines, m.officers, pem); err != nil {
		t.Fatal(err)
	}
	if w.gateway, err = w.NewGateway(w.ctx, w.authority); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		w.enroll(w.newPerson(name, name, w.newReader(name, 1)[0]))
	}
	w.acquainted()
	return m
}

// device asks the desk which device a person has.
func (m *ministry) device(address string) string {
	m.t.Helper()
	out, err := m.officers[0].Desk(m.ctx, "show", address, "--json")
	if err != nil {
		m.t.Fatal(err)
	}
	var shown struct {
		Devices []struct{ ID string }
	}
	if err := json.Unmarshal([]byte(out), &shown); err != nil || len(shown.Devices) != 1 {
		m.t.Fatalf("%s: %v", out, err)
	}
	return shown.Devices[0].ID
}

// awaitAudit waits until the gateway has refused somebody for a reason since an
// offset in its audit stream.
func (m *ministry) awaitAudit(reason string, from int64) {
	m.t.Helper()
	_, err := stage.Poll(m.ctx, "the gateway to say "+reason, func() (struct{}, bool, error) {
		data, err := os.ReadFile(m.gateway.Audit)
		return struct{}{}, err == nil && bytes.Contains(data[min(from, int64(len(data))):], []byte(fmt.Sprintf("\"reason\":%q", reason))), err
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *ministry) auditSize() int64 {
	m.t.Helper()
	info, err := os.Stat(m.gateway.Audit)
	if err != nil {
		m.t.Fatal(err)
	}
	return info.Size()
}

// An officer's word is obeyed at once, also while the authority's HSM is dead and
// no bulletin can confirm it; when the HSM is back, everything goes on, and nothing
// was lost.
func TestSuspensionWithoutHSM(t *testing.T) {
	t.Parallel()
	m := newMinistry(t, stage.Config{TokenServers: true}, "alice", "bob")
	alice, bob := m.people[0], m.people[1]
	device := m.device(bob.Address)
	if _, err := alice.Run(m.ctx, "send", bob.Address, "before"); err != nil {
		t.Fatalf("control: %v", err)
	}

	m.authority.Token.Kill()
	from, begin := m.auditSize(), time.Now()
	if _, err := m.officers[0].Sign(m.ctx, "suspend", "--device", device, "--reason", "lost on a train"); err != nil {
		t.Fatal(err)
	}
	m.awaitAudit("device_suspended", from)
	t.Logf("from the officer's command to the gateway's obedience: %v", time.Since(begin))
	if out, err := alice.Run(m.ctx, "send", bob.Address, "to a lost card"); err == nil {
		t.Errorf("a text to a suspended card was taken: %s", out)
	}
	if err := m.authority.Token.Start(m.ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := m.officers[0].Sign(m.ctx, "resume", "--device", device, "--reason", "found"); err != nil {
		t.Fatal(err)
	}
	if out, err := alice.Run(m.ctx, "send", bob.Address, "one officer has said that it may come back"); err == nil {
		t.Errorf("one officer's word was enough: %s", out)
	}
	if err := m.officers[1].Agree(m.ctx); err != nil {
		t.Fatal(err)
	}
	_, err := stage.Poll(m.ctx, "the gateway to take texts again", func() (struct{}, bool, error) {
		_, err := alice.Run(m.ctx, "send", bob.Address, "after")
		return struct{}{}, err == nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	m.audited()
}

// audited checks the whole record from outside.
func (m *ministry) audited() {
	m.t.Helper()
	dir := testenv.ShortDir(m.t) + "/record"
	if _, err := m.officers[1].Desk(m.ctx, "audit", "--copy", dir); err != nil {
		m.t.Fatal(err)
	}
	out, err := m.people[0].Run(m.ctx, "audit", "verify", dir, "--root", m.authority.Root)
	if err != nil || !strings.HasSuffix(strings.TrimSpace(out), "0 findings") {
		m.t.Errorf("%s: %v", out, err)
	}
}
