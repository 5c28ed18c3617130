// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"valise/attest"
	"valise/enroll/ca"
	"valise/enroll/desk"
	"valise/enroll/desk/call"
	"valise/identity"
	"valise/internal/store/authority"
	"valise/statement"
)

// AskForGateway keeps a request for a gateway's certificate until officers have seen
// it, and returns the id of its key. Asked again for the same, it keeps the decision
// that is under way; anything else is a new one.
func AskForGateway(ctx context.Context, store *authority.Store, c *ca.CA, r ca.GatewayRequest, now time.Time) (id identity.DeviceID, err error) {
	fresh, err := keepable(r, now)
	if err != nil {
		return id, err
	}
	var all []authority.GatewayRequest
	err = store.View(ctx, func(tx *authority.Tx) (err error) {
		all, err = tx.GatewayRequests()
		return err
	})
	if err != nil {
		return id, err
	}
	for _, old := range all {
		if old.Key != fresh.Key || old.Names != fresh.Names || string(old.Evidence) != string(fresh.Evidence) {
			continue
		}
		if p, err := c.ProposeGateway(r, old.Change); err == nil && !p.Decided {
			fresh.Change = old.Change
		}
	}
	if _, err := c.ProposeGateway(r, fresh.Change); err != nil {
		return id, err
	}
	return fresh.Key, store.Update(ctx, func(tx *authority.Tx) error { return tx.PutGatewayRequest(fresh) })
}

// GatewayIsIssued takes a request away whose certificate was issued.
func GatewayIsIssued(ctx context.Context, store *authority.Store, csr []byte) error {
	r, err := keepable(ca.GatewayRequest{CSR: csr}, time.Time{})
	if err != nil {
		return err
	}
	return store.Update(ctx, func(tx *authority.Tx) error { return tx.DropGatewayRequest(r.Key) })
}

func keepable(r ca.GatewayRequest, now time.Time) (authority.GatewayRequest, error) {
	out := authority.GatewayRequest{Change: statement.NewID(), Names: strings.Join(r.Names, " "), CSR: r.CSR, Created: now}
	csr, err := ca.CheckCSR(r.CSR)
	if err != nil {
		return out, err
	}
	if out.Key, err = identity.DeviceIDOf(csr.PublicKey); err != nil {
		return out, err
	}
	if r.Evidence != nil {
		out.Evidence, err = json.Marshal(r.Evidence)
	}
	return out, err
}

// proposeGateway makes of a row what officers would sign: the names from the row, all
// else from CSR and evidence.
func (a *Authority) proposeGateway(r authority.GatewayRequest) (*ca.GatewayProposal, error) {
	request := ca.GatewayRequest{CSR: r.CSR, Names: strings.Fields(r.Names)}
	if len(r.Evidence) > 0 {
		request.Evidence = new(attest.Evidence)
		if err := json.Unmarshal(r.Evidence, request.Evidence); err != nil {
			return nil, fmt.Errorf("a gateway's evidence in the database: %w", err)
		}
	}
	return a.cfg.CA.ProposeGateway(request, r.Change)
}

func (a *Authority) gatewayRequests(ctx context.Context) (all []authority.GatewayRequest, err error) {
	err = a.cfg.Store.View(ctx, func(tx *authority.Tx) (err error) {
		all, err = tx.GatewayRequests()
		return err
	})
	return all, err
}

// Gateways implements desk.Backend.
func (a *Authority) Gateways(ctx context.Context) ([]call.Gateway, error) {
	all := []call.Gateway{}
	if !a.officers() {
		return all, nil
	}
	rows, err := a.gatewayRequests(ctx)
	for _, r := range rows {
		one := call.Gateway{Key: r.Key, Names: strings.Fields(r.Names), State: call.StateWaiting, Created: r.Created, Approvals: []call.Signed{}}
		if err := a.describeGateway(r, &one); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, err
}

func (a *Authority) describeGateway(r authority.GatewayRequest, one *call.Gateway) error {
	p, err := a.proposeGateway(r)
	if err != nil {
		reason, known := reasonOf(err)
		if !known {
			reason = err.Error()
		}
		one.State, one.Refusal = call.StateRefused, reason
		return nil
	}
	one.Tier, one.Approvals, one.Needs = p.Body.Tier, signed(p.Signatures), statement.Needs(statement.KindGateway, false)
	if p.Result != nil {
		one.Evidence = evidenceOf(p.Claims, p.Result)
	}
	if p.Missing == nil {
		one.State = call.StateReady
		return nil
	}
	if p.Decided { // and ran out since: gateway-cert begins another one
		one.State = call.StateExpired
		return nil
	}
	sign, err := call.NewSignable(&p.Body)
	one.Change = &sign
	return err
}

// checkGateway lets officers sign nothing but what would be issued for a request.
func (a *Authority) checkGateway(ctx context.Context, b *statement.Gateway) error {
	rows, err := a.gatewayRequests(ctx)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if r.Key != b.Key() {
			continue
		}
		p, err := a.proposeGateway(r)
		if err != nil {
			return a.impossible(err)
		}
		if statement.BodyDigest(&p.Body) != statement.BodyDigest(b) {
			break
		}
		return nil
	}
	return desk.Refuse(call.ReasonConflict, "this is not what would be issued for a gateway that waits: look at it again")
}
