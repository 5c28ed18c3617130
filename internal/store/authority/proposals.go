// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"fmt"
	"time"

	"valise/identity"
)

// A Proposal is a decision that one officer has signed and that asks for a second
// one. It grants nothing: whoever takes it into the ledger verifies the statements.
type Proposal struct {
	Digest     [32]byte // of kind and body: the same for all who sign the same
	Kind       string
	Subject    string // what it is about: an order, an address; may be empty
	Body       []byte
	Created    time.Time
	Expires    time.Time
	Statements [][]byte // oldest first
}

// AddProposal stores a proposal without statements, unless it is there already; then
// the stored one stays as it is.
func (tx *Tx) AddProposal(p Proposal) error {
	return tx.exec(`INSERT INTO proposals (digest, kind, subject, body, created, expires) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (digest) DO NOTHING`, p.Digest[:], p.Kind, p.Subject, p.Body, unix(p.Created), unix(p.Expires))
}

// AddProposalStatement adds an officer's statement to a proposal. The same officer's
// second one returns ErrExists.
func (tx *Tx) AddProposalStatement(digest [32]byte, officer identity.DeviceID, statement []byte, now time.Time) error {
	return tx.exec("INSERT INTO proposal_statements (digest, officer, statement, created) VALUES ($1, $2, $3, $4)",
		digest[:], officer[:], statement, unix(now))
}

const proposalColumns = "SELECT digest, kind, subject, body, created, expires FROM proposals "

// Proposal finds a proposal with its statements.
func (tx *Tx) Proposal(digest [32]byte) (Proposal, error) {
	p, err := scanProposal(tx.row(proposalColumns+"WHERE digest = $1", digest[:]))
	if err == nil {
		err = tx.readStatements(&p)
	}
	return p, err
}

// Proposals returns the proposals that have not expired, oldest first, at most limit
// of them, with their statements.
func (tx *Tx) Proposals(now time.Time, limit int) ([]Proposal, error) {
	var all []Proposal
	err := tx.each(func(scan func(...any) error) error {
		p, err := scanProposal(scan)
		all = append(all, p)
		return err
	}, proposalColumns+"WHERE expires > $1 ORDER BY created, digest LIMIT $2", unix(now), limit)
	for i := range all {
		if err == nil {
			err = tx.readStatements(&all[i])
		}
	}
	return all, err
}

// RemoveProposal removes a proposal that was decided or withdrawn.
func (tx *Tx) RemoveProposal(digest [32]byte) error {
	if err := tx.exec("DELETE FROM proposal_statements WHERE digest = $1", digest[:]); err != nil {
		return err
	}
	return tx.change("DELETE FROM proposals WHERE digest = $1", digest[:])
}

func (tx *Tx) readStatements(p *Proposal) error {
	return tx.each(func(scan func(...any) error) error {
		var statement []byte
		if err := scan(&statement); err != nil {
			return wrap(err)
		}
		p.Statements = append(p.Statements, statement)
		return nil
	}, "SELECT statement FROM proposal_statements WHERE digest = $1 ORDER BY created, officer", p.Digest[:])
}

func scanProposal(scan func(...any) error) (Proposal, error) {
	var p Proposal
	var digest []byte
	var created, expires int64
	err := scan(&digest, &p.Kind, &p.Subject, &p.Body, &created, &expires)
	if err != nil {
		return p, wrapScan(err)
	}
	if copy(p.Digest[:], digest) != len(p.Digest) {
		return p, fmt.Errorf("authority: proposal %x is damaged", digest)
	}
	p.Created, p.Expires = fromUnix(created), fromUnix(expires)
	return p, nil
}
