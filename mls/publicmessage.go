// SPDX-License-Identifier: Apache-2.0

package mls

import "fmt"

// A publicMessage is PublicMessage of RFC 9420, Section 6.2:
//
//	struct {
//	    FramedContent content;
//	    FramedContentAuthData auth;
//	    select (PublicMessage.content.sender.sender_type) {
//	        case member: MAC membership_tag;
//	    };
//	} PublicMessage;
type publicMessage struct {
	authContent
	membershipTag []byte
}

func readPublicMessage(r *reader) *publicMessage {
	m := &publicMessage{authContent: authContent{wire: WirePublicMessage, content: readFramedContent(r)}}
	m.readAuth(r)
	if m.content.sender.typ == senderMember {
		m.membershipTag = r.opaque()
	}
	return m
}

func (m *publicMessage) append(b []byte) []byte {
	b = m.appendAuth(m.content.append(b))
	if m.content.sender.typ == senderMember {
		b = appendOpaque(b, m.membershipTag)
	}
	return b
}

// membershipMAC is the tag over AuthenticatedContentTBM, RFC 9420, Section 6.2.
func (ac *authContent) membershipMAC(s *suiteParams, key, context []byte) []byte {
	return s.mac(key, ac.appendAuth(ac.tbs(context)))
}

// protectPublic encodes signed content as a PublicMessage.
func protectPublic(s *suiteParams, ac *authContent, membershipKey, context []byte) []byte {
	m := &publicMessage{authContent: *ac}
	if ac.content.sender.typ == senderMember {
		m.membershipTag = ac.membershipMAC(s, membershipKey, context)
	}
	return (&mlsMessage{wire: WirePublicMessage, public: m}).marshal()
}

// checkMembership verifies the membership tag of a member's message.
func (m *publicMessage) checkMembership(s *suiteParams, key, context []byte) error {
	if m.content.sender.typ != senderMember {
		return nil
	}
	if !equalMAC(m.membershipTag, m.membershipMAC(s, key, context)) {
		return fmt.Errorf("%w: membership tag", ErrSignature)
	}
	return nil
}
