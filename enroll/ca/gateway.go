// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"valise/attest"
	"valise/identity"
	"valise/internal/store/authority"
	"valise/record"
	"valise/statement"
)

// A GatewayRequest is what a gateway's certificate is asked for with.
type GatewayRequest struct {
	CSR      []byte   // DER
	Names    []string // from whoever asks; those in the CSR do not count
	Evidence *attest.Evidence
}

// IssueGateway issues a gateway's certificate from its CSR, without evidence: the
// certificate says tier "witnessed".
//
// If a crash left the same request unsigned, that one is finished.
func (c *CA) IssueGateway(ctx context.Context, csrDER []byte, names []string) (authority.Issuance, error) {
	return c.IssueGatewayOn(ctx, csrDER, names, nil)
}

// IssueGatewayOn is IssueGateway with the HSM's evidence for the key, if it is not
// nil: the appraisal must accept it, and the certificate's tier is "hardware". Where
// officers decide, two of them must have approved exactly this; else the error is
// ErrApprovals.
func (c *CA) IssueGatewayOn(ctx context.Context, csrDER []byte, names []string, evidence *attest.Evidence) (authority.Issuance, error) {
	none := authority.Issuance{}
	j, err := c.judgeGateway(GatewayRequest{csrDER, names, evidence})
	if err != nil {
		return none, err
	}
	j.profile.Serial = newSerial()
	j.profile.NotBefore, j.profile.NotAfter = c.validity(c.cfg.Gateway.Validity)
	template, err := j.profile.Template()
	if err != nil {
		return none, err
	}
	var confirm func(*authority.Tx, *record.State) error
	if c.led {
		c.cfg.Book.View(func(s *record.State) { _, _, err = c.gatewayCarriers(s, j) })
		if err != nil {
			return none, err
		}
		confirm = func(tx *authority.Tx, s *record.State) error { return c.confirmGateway(tx, s, j) }
	}
	return c.issueDirect(ctx, "gateway", names, digest(csrDER), template, confirm)
}

// A gatewayJudgement is what a gateway's certificate says, all but serial number and
// dates, and what officers sign about it, all but the change's id.
type gatewayJudgement struct {
	profile identity.GatewayProfile
	body    statement.Gateway
	claims  *attest.Claims
	result  *attest.Result // nil without evidence
}

func (c *CA) judgeGateway(r GatewayRequest) (*gatewayJudgement, error) {
	csr, err := CheckCSR(r.CSR)
	if err != nil {
		return nil, err
	}
	if len(r.Names) == 0 {
		return nil, errors.New("ca: a gateway's certificate needs at least one name")
	}
	spki, err := x509.MarshalPKIXPublicKey(csr.PublicKey)
	if err != nil {
		return nil, err
	}
	j := &gatewayJudgement{profile: identity.GatewayProfile{Name: r.Names[0], More: r.Names[1:], PublicKey: csr.PublicKey, Tier: identity.TierWitnessed}}
	if r.Evidence != nil {
		if err := c.appraiseGateway(j, r.Evidence); err != nil {
			return nil, err
		}
	}
	j.body = statement.Gateway{
		Names: r.Names, CSRKey: spki, Tier: j.profile.Tier, Evidence: j.profile.EvidenceHash, Appraisal: j.profile.PolicyHash,
		Validity: c.cfg.Gateway.Validity,
	}
	return j, nil
}

func (c *CA) appraiseGateway(j *gatewayJudgement, evidence *attest.Evidence) error {
	all := c.Appraisers()
	j.claims, j.result = all[0].examineGateway(*evidence, j.profile.PublicKey, c.cfg.Now())
	for _, other := range all[1:] {
		if again := other.AppraiseGateway(*evidence, j.profile.PublicKey, c.cfg.Now()); j.result.Accepted() && !again.Accepted() {
			j.result = again
		}
	}
	if !j.result.Accepted() {
		return &RefusedError{string(j.result.Reason())}
	}
	j.profile.Tier, j.profile.EvidenceHash, j.profile.PolicyHash = identity.Tier(j.result.Tier), j.result.EvidenceHash, j.result.PolicyHash
	return nil
}

// gatewayCarriers returns the decision that a certificate stands on.
func (c *CA) gatewayCarriers(s *record.State, j *gatewayJudgement) ([32]byte, []record.Signature, error) {
	if j.claims != nil {
		serial := ""
		if k := &j.claims.Key; k.Serial.Said {
			serial = identity.SerialHash(j.claims.Format, k.Serial.Value)
		}
		if err := s.Hardware(serial, j.claims.Key.Root()); err != nil {
			return [32]byte{}, nil, err
		}
	}
	sum, all, err := s.GatewayCarriers(j.body, c.cfg.Now())
	if _, missing := errors.AsType[*record.MissingError](err); missing {
		err = fmt.Errorf("%w: %w", ErrApprovals, err)
	}
	return sum, all, err
}

// confirmGateway looks once more, within a transaction: officers have approved this,
// nothing stopped it since, and the statements' stored bytes are what was recorded.
func (c *CA) confirmGateway(tx *authority.Tx, s *record.State, j *gatewayJudgement) error {
	sum, all, err := c.gatewayCarriers(s, j)
	if err != nil {
		return err
	}
	for _, sig := range all {
		items, err := tx.Items(sig.Leaf, 1)
		if err != nil || len(items) == 0 {
			return errors.Join(&record.Finding{Index: sig.Leaf, Reason: record.Rewritten, Detail: "the approval is not in the database any more"}, err)
		}
		if err := s.RecheckGateway(sum, sig, items[0]); err != nil {
			return err
		}
	}
	return nil
}

// A GatewayProposal is what the CA would issue for a gateway's request: what officers
// are shown, and what they have to sign.
type GatewayProposal struct {
	Body       statement.Gateway
	Claims     *attest.Claims // nil without evidence
	Result     *attest.Result // nil without evidence
	Signatures []record.Signature
	Missing    *record.MissingError // nil: it can be issued
	Decided    bool                 // this very change was: it is not signed again
}

// ProposeGateway judges a request as IssueGatewayOn does, and issues nothing. change
// is the decision's id.
func (c *CA) ProposeGateway(r GatewayRequest, change string) (*GatewayProposal, error) {
	j, err := c.judgeGateway(r)
	if err != nil {
		return nil, err
	}
	p := &GatewayProposal{Body: j.body, Claims: j.claims, Result: j.result}
	p.Body.Change = change
	if _, err := statement.MarshalBody(&p.Body); err != nil {
		return nil, err
	}
	c.cfg.Book.View(func(s *record.State) {
		_, _, err = c.gatewayCarriers(s, j)
		b, _ := s.Ballot(statement.BodyDigest(&p.Body))
		p.Signatures, p.Decided = b.Signatures, len(b.Signatures) > 0 && b.Decided >= 0
	})
	if errors.As(err, &p.Missing) {
		err = nil
	}
	return p, err
}
