// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"strconv"

	"valise/attest"
	"valise/hsm"
	"valise/identity"
	"valise/internal/stage"
)

// A mallory has an honest card, a card under another attestation root, and
// everything that an insider of the network could have.
type mallory struct {
	authority *stage.Authority
	olga      *stage.Officer
	address   string
	card      hsm.Token   // made under the root that the authority accepts
	rogue     hsm.Token   // made under another one
	place     *stage.Card // where the honest card is
	slot      int         // the next retired slot to use
	lenient   bool        // DEMO_SABOTAGE=admit: use what an intruder must not have
}

// device enrolls a new key of the honest card with an authority.
func (m *mallory) device(ctx context.Context, authority *stage.Authority) (device, error) {
	at := *m
	at.authority = authority
	a, err := at.fresh(ctx)
	m.slot = at.slot
	if err != nil {
		return device{}, err
	}
	chain, err := at.enroll(ctx, a)
	return device{chain, a.key}, err
}

// enroll has an applicant enroll, and two officers approve what comes to them.
func (m *mallory) enroll(ctx context.Context, a *applicant) ([][]byte, error) {
	if len(m.authority.Officers) == 0 {
		return a.enroll(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	approved := make(chan error, 1)
	go func() { approved <- m.authority.Approve(ctx, m.address) }()
	chain, err := a.enroll(ctx)
	if err != nil {
		cancel() // there is nothing to approve any more
	}
	if officers := <-approved; err == nil && officers != nil {
		return nil, officers
	}
	return chain, err
}

// fresh makes a new key in the honest card and an applicant with it, with an
// invitation of its own.
func (m *mallory) fresh(ctx context.Context) (*applicant, error) {
	return m.with(ctx, m.card)
}

func (m *mallory) with(ctx context.Context, card hsm.Token) (*applicant, error) {
	m.slot++
	key, evidence, err := cardKey(ctx, card, strconv.FormatInt(int64(0x82+m.slot-1), 16))
	if err != nil {
		return nil, unprepared(err)
	}
	invitation, err := m.invite(ctx)
	return &applicant{invitation: invitation, key: key, evidence: evidence}, err
}

func (m *mallory) invite(ctx context.Context) (identity.Invitation, error) {
	code, err := m.authority.Invite(ctx, m.address)
	if err != nil {
		return identity.Invitation{}, unprepared(err)
	}
	invitation, err := identity.ParseInvitation(code)
	return invitation, unprepared(err)
}

// honest enrolls a new key of the honest card.
func (m *mallory) honest(ctx context.Context) error {
	a, err := m.fresh(ctx)
	if err != nil {
		return err
	}
	_, err = m.enroll(ctx, a)
	return err
}

// enrollTrials are the intruders that the authority must refuse.
func (m *mallory) enrollTrials() []*trial {
	trials := []*trial{
		{name: "a key that is not in hardware", reason: string(attest.ReasonNoEvidence), attack: m.softwareKey},
		{name: "a card under an unknown attestation root", reason: string(attest.ReasonUnknownRoot), attack: m.unknownRoot},
		{name: "evidence for another key", reason: string(attest.ReasonKeyMismatch), attack: m.otherKey},
		{name: "an answer recorded from another challenge", reason: string(attest.ReasonChallengeMismatch), attack: m.replay},
		{name: "an invitation used twice", reason: "invitation_used", attack: m.invitationTwice},
		{name: "one officer who approves for two", reason: "same_officer_twice", attack: m.oneOfficer},
	}
	for _, t := range trials {
		t.audit, t.control = m.authority.Audit, m.honest
	}
	return trials
}

// softwareKey: everything is as it should be, but the key lies in a file, and
// so nothing in hardware speaks for it.
func (m *mallory) softwareKey(ctx context.Context) error {
	invitation, err := m.invite(ctx)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return unprepared(err)
	}
	a := &applicant{invitation: invitation, key: key, replay: noAttestation}
	_, err = m.enroll(ctx, a)
	return err
}

// noAttestation is what a platform without attestation answers with (WebAuthn
// Level 2, Section 8.7), in CBOR: {"fmt": "none", "attStmt": {}}.
var noAttestation = []byte("\xa2\x63fmt\x64none\x67attStmt\xa0")

func (m *mallory) unknownRoot(ctx context.Context) error {
	card := m.rogue
	if m.lenient {
		card = m.card
	}
	a, err := m.with(ctx, card)
	if err != nil {
		return err
	}
	_, err = m.enroll(ctx, a)
	return err
}

// otherKey: the evidence and the challenge's signature are of one good key, the
// certificate is asked for another.
func (m *mallory) otherKey(ctx context.Context) error {
	a, err := m.fresh(ctx)
	if err != nil {
		return err
	}
	software, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return unprepared(err)
	}
	a.answers, a.key = a.key, software
	_, err = m.enroll(ctx, a)
	return err
}

// replay: the same key, the same evidence, but the answer was recorded when
// another challenge was answered.
func (m *mallory) replay(ctx context.Context) error {
	a, err := m.fresh(ctx)
	if err != nil {
		return err
	}
	if _, err := m.enroll(ctx, a); err != nil {
		return unprepared(fmt.Errorf("the enrollment to record: %w", err))
	}
	a.replay = a.sent
	if a.invitation, err = m.invite(ctx); err != nil {
		return err
	}
	_, err = m.enroll(ctx, a)
	return err
}

// oneOfficer: Olga approves alone, twice.
func (m *mallory) oneOfficer(ctx context.Context) error {
	a, err := m.fresh(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		_, err := a.enroll(ctx)
		done <- err
	}()
	defer func() {
		cancel()
		<-done
	}()
	r, err := m.olga.Waiting(ctx, m.address)
	if err != nil {
		return unprepared(err)
	}
	if _, err := m.olga.Sign(ctx, "approve", r.ID); err != nil {
		return unprepared(err)
	}
	_, refused := m.olga.Sign(ctx, "approve", r.ID)
	if _, err := m.olga.Sign(ctx, "refuse", r.ID, "--reason", "nobody knows this device"); err != nil {
		return unprepared(err)
	}
	return refused
}

func (m *mallory) invitationTwice(ctx context.Context) error {
	first, err := m.fresh(ctx)
	if err != nil {
		return err
	}
	if _, err := m.enroll(ctx, first); err != nil {
		return unprepared(fmt.Errorf("the first use: %w", err))
	}
	second, err := m.fresh(ctx)
	if err != nil {
		return err
	}
	second.invitation = first.invitation
	_, err = m.enroll(ctx, second)
	return err
}
