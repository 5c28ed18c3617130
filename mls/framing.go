// SPDX-License-Identifier: Apache-2.0

package mls

import "fmt"

// A ContentType says what a message carries, RFC 9420, Section 6.
type ContentType uint8

const (
	ContentApplication ContentType = 1
	ContentProposal    ContentType = 2
	ContentCommit      ContentType = 3
)

// A senderType is SenderType of RFC 9420, Section 6.
type senderType uint8

const (
	senderMember            senderType = 1
	senderExternal          senderType = 2
	senderNewMemberProposal senderType = 3
	senderNewMemberCommit   senderType = 4
)

// A sender is Sender of RFC 9420, Section 6.
type sender struct {
	typ   senderType
	index uint32 // leaf index, or place in external_senders
}

func readSender(r *reader) sender {
	s := sender{typ: senderType(r.u8())}
	switch s.typ {
	case senderMember, senderExternal:
		s.index = r.u32()
	case senderNewMemberProposal, senderNewMemberCommit:
	default:
		r.fail()
	}
	return s
}

func (s sender) append(b []byte) []byte {
	b = append(b, byte(s.typ))
	if s.typ == senderMember || s.typ == senderExternal {
		b = appendU32(b, s.index)
	}
	return b
}

// A framedContent is FramedContent of RFC 9420, Section 6:
//
//	struct {
//	    opaque group_id<V>;
//	    uint64 epoch;
//	    Sender sender;
//	    opaque authenticated_data<V>;
//	    ContentType content_type;
//	    select (FramedContent.content_type) {
//	        case application: opaque application_data<V>;
//	        case proposal:    Proposal proposal;
//	        case commit:      Commit commit;
//	    };
//	} FramedContent;
type framedContent struct {
	groupID  []byte
	epoch    uint64
	sender   sender
	authData []byte
	body
}

// A body is what the content type selects.
type body struct {
	typ         ContentType
	application []byte
	proposal    *Proposal
	commit      *commit
}

func readBody(r *reader, t ContentType) body {
	b := body{typ: t}
	switch t {
	case ContentApplication:
		b.application = r.opaque()
	case ContentProposal:
		b.proposal = readProposal(r)
	case ContentCommit:
		b.commit = readCommit(r)
	default:
		r.fail()
	}
	return b
}

func (c *body) appendBody(b []byte) []byte {
	switch c.typ {
	case ContentProposal:
		return c.proposal.append(b)
	case ContentCommit:
		return c.commit.append(b)
	}
	return appendOpaque(b, c.application)
}

func readFramedContent(r *reader) framedContent {
	c := framedContent{groupID: r.opaque(), epoch: r.u64(), sender: readSender(r), authData: r.opaque()}
	c.body = readBody(r, ContentType(r.u8()))
	return c
}

func (c *framedContent) append(b []byte) []byte {
	b = appendU64(appendOpaque(b, c.groupID), c.epoch)
	b = appendOpaque(c.sender.append(b), c.authData)
	return c.appendBody(append(b, byte(c.typ)))
}

// An authContent is AuthenticatedContent of RFC 9420, Section 6: content with
// the wire format it travels in and FramedContentAuthData (Section 6.1).
type authContent struct {
	wire            WireFormat
	content         framedContent
	signature       []byte
	confirmationTag []byte // commits
}

func readAuthContent(r *reader) *authContent {
	ac := &authContent{wire: WireFormat(r.u16()), content: readFramedContent(r)}
	ac.readAuth(r)
	return ac
}

func (ac *authContent) readAuth(r *reader) {
	ac.signature = r.opaque()
	if ac.content.typ == ContentCommit {
		ac.confirmationTag = r.opaque()
	}
}

func (ac *authContent) appendAuth(b []byte) []byte {
	b = appendOpaque(b, ac.signature)
	if ac.content.typ == ContentCommit {
		b = appendOpaque(b, ac.confirmationTag)
	}
	return b
}

func (ac *authContent) marshal() []byte {
	return ac.appendAuth(ac.content.append(appendU16(nil, uint16(ac.wire))))
}

// tbs is FramedContentTBS of RFC 9420, Section 6.1. context is the encoded
// GroupContext, which signatures of members and joiners cover.
func (ac *authContent) tbs(context []byte) []byte {
	b := appendU16(appendU16(nil, versionMLS10), uint16(ac.wire))
	b = ac.content.append(b)
	if t := ac.content.sender.typ; t == senderMember || t == senderNewMemberCommit {
		b = append(b, context...)
	}
	return b
}

func (ac *authContent) sign(s *suiteParams, id Identity, context []byte) (err error) {
	if len(ac.content.authData) > maxPlaintext {
		return fmt.Errorf("mls: authenticated data of %d bytes; at most %d fit", len(ac.content.authData), maxPlaintext)
	}
	ac.signature, err = s.signWithLabel(id.Signer, "FramedContentTBS", ac.tbs(context))
	return err
}

func (ac *authContent) verify(s *suiteParams, key, context []byte) error {
	return s.verifyWithLabel(key, "FramedContentTBS", ac.tbs(context), ac.signature)
}

// proposalRef is MakeProposalRef of RFC 9420, Section 5.2.
func (ac *authContent) proposalRef(s *suiteParams) []byte {
	return s.refHash("MLS 1.0 Proposal Reference", ac.marshal())
}

// checkSender refuses content that its sender may not send, RFC 9420, Section
// 6.1.
func (c *framedContent) checkSender() error {
	ok := false
	switch c.sender.typ {
	case senderMember:
		ok = true
	case senderExternal:
		ok = c.typ == ContentProposal && c.proposal.allowedExternally()
	case senderNewMemberProposal:
		ok = c.typ == ContentProposal && c.proposal.Type == ProposalAdd
	case senderNewMemberCommit:
		ok = c.typ == ContentCommit && c.commit.path != nil
	}
	if !ok {
		return fmt.Errorf("%w: this sender may not send such content", ErrMalformed)
	}
	return nil
}

// allowedExternally: RFC 9420, Section 12.1.8.
func (p *Proposal) allowedExternally() bool {
	return p.Type != ProposalUpdate && p.Type != ProposalExternalInit
}
