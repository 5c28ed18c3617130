// SPDX-License-Identifier: Apache-2.0

package mls

import "fmt"

// An Outside names an epoch of a group to propose to, for senders that are not
// in it. Both come from a GroupInfo or a PublicGroup.
type Outside struct {
	Suite   Suite
	GroupID []byte
	Epoch   uint64
}

// ProposeExternally makes a proposal of an external sender, RFC 9420, Section
// 12.1.8, as a PublicMessage. index is the sender's place in the group's
// external_senders. It signs once.
func ProposeExternally(id Identity, to Outside, index uint32, p Proposal) ([]byte, error) {
	if !p.complete() || !p.allowedExternally() {
		return nil, fmt.Errorf("%w: proposal type %d is not for external senders", ErrMalformed, p.Type)
	}
	return to.propose(id, sender{senderExternal, index}, p)
}

// ProposeOwnAdd makes a proposal of a device to be added itself, RFC 9420,
// Section 12.1.8, as a PublicMessage. It signs once.
func ProposeOwnAdd(id Identity, to Outside, kp *KeyPackage) ([]byte, error) {
	return to.propose(id, sender{typ: senderNewMemberProposal}, AddProposal(kp))
}

func (to Outside) propose(id Identity, from sender, p Proposal) ([]byte, error) {
	s, err := to.Suite.params()
	if err != nil {
		return nil, err
	}
	if _, err := id.key(s); err != nil {
		return nil, err
	}
	ac := &authContent{wire: WirePublicMessage, content: framedContent{
		to.GroupID, to.Epoch, from, nil,
		body{typ: ContentProposal, proposal: &p},
	}}
	if err := ac.sign(s, id, nil); err != nil {
		return nil, err
	}
	return protectPublic(s, ac, nil, nil), nil
}
