// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"valise/client/vault"
	"valise/identity"
	"valise/ledger"
	"valise/mls"
	"valise/wire"
)

// Unrecorded says that a device was not let in, because of the authority's record.
type Unrecorded struct {
	Address string
	Device  identity.DeviceID
	Reason  string // a reason code
}

func (u *Unrecorded) Error() string {
	return fmt.Sprintf("the device %s of %s is not let in: %s (%s)", u.Device.String()[:8], u.Address, RecordText(u.Reason), u.Reason)
}

// Hint says what to do.
func (u *Unrecorded) Hint() string {
	return "tell a security officer, with the words above; if the device was enrolled a moment ago, try again"
}

// RecordText says in words what is wrong with an authority's record, for the reasons in
// events of the kinds EventRecord and EventUnrecorded.
func RecordText(reason string) string {
	text := map[string]string{
		reasonNoRecord:          "the gateway does not show the authority's public record",
		reasonManifest:          "the gateway shows a list of the authority's keys that its root did not sign",
		reasonManifestRollback:  "the gateway shows an older list of the authority's keys than before",
		reasonManifestFork:      "the authority's root signed two lists of keys that exclude each other",
		reasonCheckpoint:        "the public record is not signed by the authority",
		reasonLedgerFork:        "the public record is not the one that was shown before: something in it was changed",
		reasonLedgerRollback:    "the gateway shows a shorter public record than before",
		reasonNotInLedger:       "its certificate is not in the authority's public record",
		reasonIssuerNotNamed:    "its certificate is of an issuer that the authority does not name",
		reasonBulletin:          "the gateway shows a list of standings that the authority did not sign",
		reasonBulletinRollback:  "the gateway shows an older list of standings than before",
		reasonBulletinFork:      "the authority signed two lists of standings that exclude each other",
		reasonProof:             "the gateway cannot prove that its certificate is in the public record",
		reasonRecordUnavailable: "the public record could not be asked",
	}[reason]
	if text == "" {
		text = "the public record does not allow it"
	}
	return text
}

// strangers returns those of the members whose certificates were not found in the record
// yet. There are none where no record is demanded.
func (e *Engine) strangers(list []mls.Member) []mls.Credential {
	if !e.demanded() {
		return nil
	}
	var out []mls.Credential
	for _, m := range list {
		if !e.vouched(m.Credential) {
			out = append(out, m.Credential)
		}
	}
	return out
}

// vouched says whether a certificate was found in the record before. A record only
// grows, so what was in it stays in it.
func (e *Engine) vouched(c mls.Credential) bool {
	if c.Type != mls.CredentialX509 || len(c.Certificates) == 0 {
		return false
	}
	name := sha256.Sum256(c.Certificates[0])
	if e.known.vouched[name] {
		return true
	}
	found := false
	err := e.cfg.Vault.View(context.Background(), func(tx *vault.Tx) (err error) {
		found, err = tx.Has(tableVouched, nil, name[:])
		return err
	})
	if err == nil && found {
		e.known.vouched[name] = true
	}
	return err == nil && found
}

// newcomers are the members that a commit brings in or gives another certificate.
func newcomers(ch *mls.Change) []mls.Member {
	list := append([]mls.Member{ch.Committer}, ch.Added...)
	return append(list, ch.Updated...)
}

// vouch looks certificates up in the record, and returns the first that is refused. A
// certificate so young that no checkpoint covers it is waited for, all of them together
// for recordPatience. e.mu is held, but not while the gateway is waited for: the caller
// looks again at what it wanted to do.
func (e *Engine) vouch(ctx context.Context, l *link, list []mls.Credential) (*Unrecorded, error) {
	if len(list) > 1 {
		if err := e.vouchTogether(ctx, l, list); err != nil {
			return nil, err
		}
	}
	deadline := time.Now().Add(e.patience)
	for _, c := range list {
		if e.vouched(c) {
			continue
		}
		d, err := deviceOf(e.cfg.Trust, c)
		if err != nil {
			return nil, err
		}
		name := sha256.Sum256(c.Certificates[0])
		if e.known.waited[name] {
			deadline = time.Time{} // once is enough: others wait for this device meanwhile
		}
		reason, err := e.vouchFor(ctx, l, d, deadline)
		if err != nil {
			return nil, err
		}
		if reason != "" {
			e.known.waited[name] = true
			e.cfg.Log.Warn("not let in", "address", d.Address.String(), "device", d.ID.String(), "reason", reason)
			return &Unrecorded{d.Address.String(), d.ID, reason}, nil
		}
	}
	return nil, nil
}

// vouchTogether asks for many certificates at once, as when a large group is joined: one
// after the other would take as many round trips. What is not found is asked for again
// by itself.
func (e *Engine) vouchTogether(ctx context.Context, l *link, list []mls.Credential) error {
	head := e.known.head
	if e.known.trouble != "" || e.known.manifest == nil || head.N == 0 {
		return nil
	}
	var leaves []*x509.Certificate
	for _, c := range list {
		d, err := deviceOf(e.cfg.Trust, c)
		if err != nil {
			return err
		}
		if e.issuerNamed(d.Leaf, d.Chain) {
			leaves = append(leaves, d.Leaf)
		}
	}
	proven := make([]bool, len(leaves))
	var asking errgroup.Group
	asking.SetLimit(recordAtOnce)
	e.mu.Unlock()
	for i, leaf := range leaves {
		asking.Go(func() error {
			subject := sha256.Sum256(leaf.RawTBSCertificate)
			answer, err := l.call(ctx, &wire.GetRecord{Part: wire.PartInclusion, Subject: subject, Size: uint64(head.N)})
			if a, ok := answer.(*wire.Record); err == nil && ok {
				proven[i] = proves(a.Data, head, subject)
			}
			return err
		})
	}
	err := asking.Wait()
	e.mu.Lock()
	if err != nil {
		return err
	}
	var found []*x509.Certificate
	for i, leaf := range leaves {
		if proven[i] {
			found = append(found, leaf)
		}
	}
	return e.remember(found...)
}

// proves says whether data is the proof that a certificate is in a tree.
func proves(data []byte, head ledger.Head, subject [sha256.Size]byte) bool {
	i, err := ledger.ParseInclusion(data)
	return err == nil && i.CheckIn(head, subject) == nil && i.Entry.Kind == ledger.KindIssuance
}

func (e *Engine) vouchFor(ctx context.Context, l *link, d *identity.Device, deadline time.Time) (string, error) {
	for looks := 1; ; looks++ {
		reason, again, err := e.vouchOnce(ctx, l, d)
		if err != nil || reason == "" || !again {
			return reason, err
		}
		if looks > 1 {
			if !time.Now().Before(deadline) {
				return reason, nil
			}
			if err := e.rest(ctx, l, recordPause); err != nil {
				return "", err
			}
		}
		if err := e.lookUp(ctx, l); err != nil { // at once, the first time: there may be news
			return "", err
		}
	}
}

// rest waits with e.mu released.
func (e *Engine) rest(ctx context.Context, l *link, pause time.Duration) error {
	e.mu.Unlock()
	defer e.mu.Lock()
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-l.dead:
		return l.cause()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// vouchOnce says why a certificate is refused, and whether that may pass by itself.
func (e *Engine) vouchOnce(ctx context.Context, l *link, d *identity.Device) (reason string, again bool, err error) {
	switch {
	case e.known.trouble != "":
		return e.known.trouble, true, nil
	case e.known.manifest == nil:
		return reasonNoRecord, true, nil
	case !e.issuerNamed(d.Leaf, d.Chain):
		return reasonIssuerNotNamed, true, nil
	case e.known.head.N == 0:
		return reasonNotInLedger, true, nil
	}
	head := e.known.head
	subject := sha256.Sum256(d.Leaf.RawTBSCertificate)
	data, code, err := e.ask(ctx, l, &wire.GetRecord{Part: wire.PartInclusion, Subject: subject, Size: uint64(head.N)})
	switch {
	case err != nil:
		return "", false, err
	case code == wire.NotFound || code == wire.NotCovered:
		return reasonNotInLedger, true, nil
	case code == wire.NoRecord:
		return reasonNoRecord, false, nil
	case code != wire.OK:
		return reasonRecordUnavailable, true, nil
	}
	if !proves(data, head, subject) {
		return reasonProof, false, nil
	}
	return "", false, e.remember(d.Leaf)
}

// remember keeps that certificates are in the record.
func (e *Engine) remember(leaves ...*x509.Certificate) error {
	if len(leaves) == 0 {
		return nil
	}
	err := e.update(func(c *change) error {
		for _, leaf := range leaves {
			name := sha256.Sum256(leaf.Raw)
			if err := c.Put(tableVouched, nil, name[:], nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return stopped(err)
	}
	for _, leaf := range leaves {
		e.known.vouched[sha256.Sum256(leaf.Raw)] = true
	}
	return nil
}

// noteUnrecorded tells that somebody was not let into a conversation.
func (e *Engine) noteUnrecorded(c *change, conv *conversation, u *Unrecorded) error {
	ev := Event{Kind: EventUnrecorded, Time: e.now(), From: u.Address, Device: u.Device, Reason: u.Reason}
	if conv == nil || conv.Unnamed {
		return c.log(&eventRecord{Event: ev})
	}
	return e.note(c, conv, ev)
}
