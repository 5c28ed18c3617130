// SPDX-License-Identifier: Apache-2.0

package enroll_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"valise/enroll/book"
	"valise/enroll/ca"
	"valise/enroll/enrolltest"
	"valise/identity"
	"valise/internal/store/authority"
	"valise/ledger"
	"valise/record"
	"valise/statement"
)

// These are attacks by somebody who writes the database at will, while the authority
// runs, and who has no officer's card and no token. Each stands beside what happens
// without it.

// plant appends a leaf as the authority does, tree and all.
func (b *bureau) plant(kind ledger.Kind, payload []byte) {
	b.t.Helper()
	s, err := authority.Open(b.t.Context(), b.path)
	if err != nil {
		b.t.Fatal(err)
	}
	defer s.Close()
	entry, err := ledger.NewEntry(kind, payload, b.clock.now())
	if err != nil {
		b.t.Fatal(err)
	}
	err = s.Append(b.t.Context(), func(tx *authority.Tx) error { _, err := tx.AppendLeaf(entry, payload); return err })
	if err != nil {
		b.t.Fatal(err)
	}
}

// certificates counts what was signed for devices.
func (b *bureau) certificates() (n int) {
	b.t.Helper()
	err := b.store.View(b.t.Context(), func(tx *authority.Tx) error {
		all, err := tx.Issuances()
		n = 0
		for _, i := range all {
			if i.Kind == "device" && i.Done() {
				n++
			}
		}
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

// nothing makes sure that an order is not issued, and that the audit stream says why.
func (b *bureau) nothing(p *petition, reason string) {
	b.t.Helper()
	before := b.certificates()
	_ = b.Resume(b.t.Context())
	if got := b.state(p); got == "valid" || b.certificates() != before {
		b.t.Errorf("issued: %s", got)
	}
	if reason != "" && !b.heard(`"`+reason+`"`) {
		b.t.Errorf("the audit stream does not say %s: %s", reason, b.audit.b.String())
	}
}

// An approval that nobody gave, put into the ledger beside a real one.
func TestPlantedApproval(t *testing.T) {
	for name, c := range map[string]struct {
		second func(b *bureau, p *petition) []byte
		reason string
	}{
		"control": {func(b *bureau, p *petition) []byte {
			return b.Oscar.Sign(t, b.clock.now(), b.template(p))
		}, ""},
		"forged": {func(b *bureau, p *petition) []byte {
			raw := b.Oscar.Sign(t, b.clock.now(), b.template(p))
			if raw[len(raw)-8]++; raw[len(raw)-8] != 'B' {
				raw[len(raw)-8] = 'A'
			}
			return raw
		}, "bad_signature"},
		"by an authority of their own": {func(b *bureau, p *petition) []byte {
			return enrolltest.NewMinistry(t, enrolltest.MinistryConfig{}).Oscar.Sign(t, b.clock.now(), b.template(p))
		}, "bad_chain"},
		"replayed": {func(b *bureau, p *petition) []byte { return b.leafOf(statement.KindApproval) }, "replayed"},
		"the same officer": {func(b *bureau, p *petition) []byte {
			return b.Olga.Sign(t, b.clock.now(), b.template(p))
		}, "same_officer_twice"},
		"the same officer with a second certificate": {func(b *bureau, p *petition) []byte {
			again := b.Ministry.Officer(t, "olga", identity.RoleOfficer, b.Olga.Key, b.clock.now().Add(-time.Minute), b.clock.now().Add(day))
			return again.Sign(t, b.clock.now(), b.template(p))
		}, "same_officer_twice"},
		"a key that was never appointed": {func(b *bureau, p *petition) []byte {
			again := b.Ministry.Officer(t, "oscar", identity.RoleOfficer, enrolltest.NewKey(t), b.clock.now().Add(-time.Minute), b.clock.now().Add(day))
			return again.Sign(t, b.clock.now(), b.template(p))
		}, "officer_not_in_standing"},
		"an expired officer": {func(b *bureau, p *petition) []byte {
			old := b.Ministry.Officer(t, "oscar", identity.RoleOfficer, b.Oscar.Key, b.clock.now().Add(-time.Hour), b.clock.now().Add(-time.Second))
			return old.Sign(t, b.clock.now(), b.template(p))
		}, "officer_expired"},
		"a suspended officer": {func(b *bureau, p *petition) []byte {
			raw := b.Oscar.Sign(t, b.clock.now(), b.template(p))
			b.ok(b.Anna, &statement.Suspension{Target: statement.Target{Kind: statement.TargetOfficer, Address: b.Oscar.Address}, Reason: "lost", Change: statement.NewID()})
			return raw
		}, "officer_not_in_standing"},
		"a dismissed officer": {func(b *bureau, p *petition) []byte {
			raw := b.Oscar.Sign(t, b.clock.now(), b.template(p))
			b.ok(b.Anna, &statement.Dismissal{Address: b.Oscar.Address, Reason: "left", Change: statement.NewID()})
			return raw
		}, "officer_not_in_standing"},
		"an administrator": {func(b *bureau, p *petition) []byte {
			return b.Anna.Sign(t, b.clock.now(), b.template(p))
		}, "wrong_role"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBureau(t)
			p := b.petition(b.account("alice"), b.card())
			b.approve(p, b.Olga)
			b.plant(ledger.KindStatement, c.second(b, p))
			if c.reason != "" {
				b.nothing(p, c.reason)
				return
			}
			b.resume()
			if err := b.book.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			b.resume()
			b.want(p, "valid")
		})
	}
}

// leafOf returns the newest statement of a kind from the database.
func (b *bureau) leafOf(kind statement.Kind) (raw []byte) {
	b.t.Helper()
	err := b.store.View(b.t.Context(), func(tx *authority.Tx) error {
		items, err := tx.Items(0, 1000)
		for _, i := range items {
			if st, err := statement.Parse(i.Payload); err == nil && st.Body.Kind() == kind {
				raw = i.Payload
			}
		}
		return err
	})
	if err != nil || raw == nil {
		b.t.Fatal(err, raw)
	}
	return raw
}

// An officer who also writes the database approves their own device.
func TestPlantedOwnApproval(t *testing.T) {
	for name, own := range map[string]bool{"own": true, "control": false} {
		t.Run(name, func(t *testing.T) {
			b := newBureau(t)
			line := b.line("oscar", nil)
			b.ok(b.Olga, line)
			b.ok(b.Otto, line)
			p := b.petition(b.account("oscar"), b.card())
			b.approve(p, b.Olga)
			if own {
				b.plant(ledger.KindStatement, b.Oscar.Sign(t, b.clock.now(), b.template(p)))
				b.nothing(p, "own_enrollment")
				return
			}
			b.approve(p, b.Otto)
			b.want(p, "valid")
		})
	}
}

// Rows are changed between the approvals and the token's signature.
func TestChangedRows(t *testing.T) {
	for name, c := range map[string]struct {
		attack func(b *bureau, p *petition)
		reason string // in the audit stream; "-": the order only waits
	}{
		"control": {func(*bureau, *petition) {}, ""},
		"another card's CSR, evidence and device": {func(b *bureau, p *petition) {
			thief := b.petition(b.account("alice"), b.card())
			b.forge(`UPDATE orders SET csr = (SELECT csr FROM orders WHERE id = ?), device = (SELECT device FROM orders WHERE id = ?),
				account = (SELECT account FROM orders WHERE id = ?) WHERE id = ?`, thief.id, thief.id, thief.id, p.id)
			b.forge("UPDATE authorizations SET order_id = 'gone' WHERE order_id = ?", p.id)
			b.forge("UPDATE authorizations SET order_id = ? WHERE order_id = ?", p.id, thief.id)
		}, "-"},
		"another key's CSR": {func(b *bureau, p *petition) {
			b.forge("UPDATE orders SET csr = ? WHERE id = ?", enrolltest.CSR(t, b.card().Key), p.id)
		}, "csr_key_mismatch"},
		"another card's evidence": {func(b *bureau, p *petition) {
			thief := b.petition(b.account("alice"), b.card())
			b.forge("UPDATE authorizations SET evidence = (SELECT evidence FROM authorizations WHERE order_id = ?) WHERE order_id = ?", thief.id, p.id)
		}, "key_mismatch"},
		"another address": {func(b *bureau, p *petition) {
			b.enlist("minister", enrolltest.Clearance(t, 1, 2, 3, 4, 5))
			b.forge("UPDATE accounts SET address = 'minister@interieur.example'")
		}, "not_invited"},
		"a closed account": {func(b *bureau, p *petition) {
			b.forge("UPDATE accounts SET status = 'deactivated'")
		}, "account_deactivated"},
		"another device": {func(b *bureau, p *petition) {
			id := b.card().ID(t)
			b.forge("UPDATE accounts SET device = ?", id[:])
		}, "order_changed"},
		"another profile": {func(b *bureau, p *petition) {
			b.forge("UPDATE orders SET profile = 'lenient' WHERE id = ?", p.id)
		}, "wrong_profile"},
		"an approval that reads otherwise": {func(b *bureau, p *petition) {
			b.forge("UPDATE leaves SET payload = ? WHERE id = (SELECT max(id) FROM leaves)", b.Oscar.Sign(t, b.clock.now(), &statement.Refusal{Request: "a", Reason: "b"}))
		}, "wrong_payload"},
		"an approval that was rewritten": {func(b *bureau, p *petition) {
			raw := b.Oscar.Sign(t, b.clock.now(), b.template(p))
			entry, err := ledger.NewEntry(ledger.KindStatement, raw, b.clock.now())
			if err != nil {
				t.Fatal(err)
			}
			b.forge("UPDATE leaves SET entry = ?, payload = ? WHERE id = (SELECT max(id) FROM leaves)", entry.Marshal(), raw)
		}, "rewritten_leaf"},
		"an approval that was taken out": {func(b *bureau, p *petition) {
			b.forge("DELETE FROM leaves WHERE id = (SELECT max(id) FROM leaves)")
		}, "truncated"},
		"the first approval taken out": {func(b *bureau, p *petition) {
			b.forge("DELETE FROM leaves WHERE id = (SELECT max(id) FROM leaves) - 1")
		}, "rewritten_leaf"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBureau(t)
			p := b.petition(b.account("alice"), b.card())
			b.record(p, b.Olga, b.Oscar)
			c.attack(b, p)
			switch c.reason {
			case "":
				b.resume()
				b.want(p, "valid")
			case "-":
				b.nothing(p, "")
			default:
				b.nothing(p, c.reason)
			}
		})
	}
}

// record puts approvals into the record and does not go on from there: the attack
// comes before the certificate is made.
func (b *bureau) record(p *petition, officers ...*enrolltest.Officer) {
	b.t.Helper()
	body := b.template(p)
	err := b.book.Update(b.t.Context(), func(_ *authority.Tx, _ *record.State, add book.Append) error {
		for _, o := range officers {
			if _, err := add(ledger.KindStatement, o.Sign(b.t, b.clock.now(), body)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// An approval counts for its own request only.
func TestApprovalOfAnotherRequest(t *testing.T) {
	b := newBureau(t)
	client, card := b.account("alice"), b.card()
	approved, other := b.petition(client, card), b.petition(client, card)
	b.record(approved, b.Olga, b.Oscar)
	if _, err := b.ca.IssueDevice(t.Context(), other.id); !errors.Is(err, ca.ErrApprovals) {
		t.Errorf("got %v", err)
	}
	if _, err := b.ca.IssueDevice(t.Context(), approved.id); err != nil {
		t.Errorf("control: %v", err)
	}
}

// Issuing, statements and readers at once: nothing waits for ever, nothing is issued
// twice, and memory and database stay one.
func TestAllAtOnce(t *testing.T) {
	b := newBureau(t)
	var petitions []*petition
	for range 4 {
		p := b.petition(b.account("alice"), b.card())
		b.record(p, b.Olga, b.Oscar)
		petitions = append(petitions, p)
	}
	var wg sync.WaitGroup
	for _, p := range petitions {
		for range 3 {
			wg.Go(func() {
				if _, err := b.ca.IssueDevice(t.Context(), p.id); err != nil {
					t.Error(err)
				}
			})
		}
	}
	for i := range byte(8) {
		raw := b.Otto.Sign(t, b.clock.now(), &statement.Suspension{
			Target: statement.Target{Kind: statement.TargetDevice, Device: identity.DeviceID{i + 1}}, Reason: "lost", Change: statement.NewID(),
		})
		wg.Go(func() {
			if _, err := b.Submit(t.Context(), raw); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, err := b.Standings(t.Context(), 10); err != nil {
				t.Error(err)
			}
			if err := b.book.Sync(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	again, err := book.Open(t.Context(), book.Config{Store: b.store, Root: b.Root})
	if err != nil {
		t.Fatal(err)
	}
	var kept, replayed ledger.Head
	b.book.View(func(s *record.State) { kept = s.Head() })
	again.View(func(s *record.State) { replayed = s.Head() })
	if findings := b.auditors(); kept != replayed || b.certificates() != len(petitions) || len(findings) != 0 {
		t.Errorf("%v and %v, %d certificates, auditors find %v", kept, replayed, b.certificates(), findings)
	}
}

// A request that nobody approved stays without a certificate, however few approvals
// its row asks for.
func TestFewerApprovalsInTheRow(t *testing.T) {
	b := newBureau(t)
	p := b.petition(b.account("alice"), b.card())
	b.approve(p, b.Olga)
	b.forge("UPDATE orders SET approvals = 0")
	b.nothing(p, "")
	b.approve(p, b.Oscar)
	b.want(p, "valid")
}

// A card that the policy refused does not become good by its row.
func TestChangedAppraisal(t *testing.T) {
	for name, c := range map[string]struct {
		firmware [3]byte
		reason   string
	}{"control": {[3]byte{5, 7, 1}, ""}, "old firmware": {[3]byte{5, 4, 3}, "firmware_too_old"}} {
		t.Run(name, func(t *testing.T) {
			b := newBureau(t)
			client, card := b.account("alice"), b.Vendor.Card(t, enrolltest.CardConfig{Firmware: c.firmware})
			o, _ := client.NewOrder(card.ID(t).String())
			client.Attest(o, card.Answer(t, client.KeyAuthorization(o)))
			if c.reason != "" {
				id := card.ID(t)
				b.forge("UPDATE authorizations SET status = 'valid', reason = ''")
				b.forge("UPDATE orders SET status = 'ready', reason = ''")
				b.forge("UPDATE accounts SET device = ?", id[:])
			}
			done, _ := client.Finish(o, enrolltest.CSR(t, card.Key))
			p := &petition{Order: done, client: client, card: card, id: o.URL[len(b.server.URL+"/acme/order/"):]}
			if c.reason != "" {
				b.nothing(p, c.reason)
				return
			}
			b.approve(p, b.Olga, b.Oscar)
			b.want(p, "valid")
		})
	}
}

// A clearance that is raised in the roster's row does not reach a certificate.
func TestRaisedClearanceInTheRow(t *testing.T) {
	b := newBureau(t)
	p := b.enrolled()
	more, err := enrolltest.Clearance(t, 1, 2, 3, 4, 5).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	b.forge("UPDATE people SET clearance = ?", more)
	b.clock.move(5 * day)
	again := b.renew(p)
	b.want(again, "valid")
	device := b.check(again.client.Fetch(again.Order), "alice")
	if device.Clearance.Covers(enrolltest.Clearance(t, 4)) || !device.Clearance.Covers(enrolltest.Clearance(t, 1, 2, 3)) {
		t.Errorf("cleared for %s", device.Clearance.Text())
	}
}

// An account that no officer invited is none.
func TestPlantedInvitation(t *testing.T) {
	b := newBureau(t)
	inv := identity.Invitation{URL: "https://enroll.interieur.example", KID: "planted", Key: make([]byte, 32), Address: address(t, "alice"), Expires: time.Now().Add(time.Hour)}
	b.forge("INSERT INTO invitations (kid, key, address, created, expires) VALUES (?, ?, ?, ?, ?)",
		inv.KID, inv.Key, inv.Address.String(), time.Now().Unix(), inv.Expires.Unix())
	b.expect(b.client().Register(inv), 403, "unauthorized", "invitation_unknown")
	b.account("alice") // control
}

// A suspension that is taken out of the database stays in force: in the memory of
// the running authority, and after a restart in the checkpoint.
func TestSuspensionTakenOut(t *testing.T) {
	for name, taken := range map[string]bool{"taken out": true, "control": false} {
		t.Run(name, func(t *testing.T) {
			b := newBureau(t)
			p := b.petition(b.account("alice"), b.card())
			b.away.Store(true)
			b.approve(p, b.Olga, b.Oscar)
			b.ok(b.Otto, &statement.Suspension{Target: statement.Target{Kind: statement.TargetDevice, Device: p.card.ID(t)}, Reason: "lost", Change: statement.NewID()})
			if err := b.book.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
			b.away.Store(false)
			if taken {
				b.forge("DELETE FROM leaves WHERE id = (SELECT max(id) FROM leaves)")
			}
			b.nothing(p, map[bool]string{true: "truncated", false: "device_suspended"}[taken])
			err := b.tryStart()
			if taken != errors.Is(err, book.ErrDamaged) {
				t.Errorf("after a restart: %v", err)
			}
		})
	}
}

// A record that was made up anew, checkpoint and all, is not what was signed.
func TestRewrittenRecordAfterRestart(t *testing.T) {
	for name, c := range map[string]struct {
		attack func(b *bureau)
		bad    bool
	}{
		"control": {func(*bureau) {}, false},
		"a leaf rewritten": {func(b *bureau) {
			raw := b.leafOf(statement.KindRoster)
			entry, err := ledger.NewEntry(ledger.KindStatement, raw, b.clock.now())
			if err != nil {
				t.Fatal(err)
			}
			b.forge("UPDATE leaves SET entry = ? WHERE id = 3", entry.Marshal())
		}, true},
		"a checkpoint of their own": {func(b *bureau) {
			b.forge("DELETE FROM leaves WHERE id = 3")
			b.forge("UPDATE checkpoints SET note = ?", []byte("interieur.example/valise\n3\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n— x y\n"))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBureau(t)
			if err := b.book.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
			c.attack(b)
			if err := b.tryStart(); c.bad != errors.Is(err, book.ErrDamaged) {
				t.Errorf("got %v", err)
			}
		})
	}
}
