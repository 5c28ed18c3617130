// SPDX-License-Identifier: Apache-2.0

package mls

// A groupContext is what all members agree on, RFC 9420, Section 8.1:
//
//	struct {
//	    ProtocolVersion version = mls10;
//	    CipherSuite cipher_suite;
//	    opaque group_id<V>;
//	    uint64 epoch;
//	    opaque tree_hash<V>;
//	    opaque confirmed_transcript_hash<V>;
//	    Extension extensions<V>;
//	} GroupContext;
type groupContext struct {
	suite      Suite
	groupID    []byte
	epoch      uint64
	treeHash   []byte
	confirmed  []byte
	extensions []Extension
}

func readGroupContext(r *reader) groupContext {
	if r.u16() != versionMLS10 {
		r.fail()
	}
	return groupContext{Suite(r.u16()), r.opaque(), r.u64(), r.opaque(), r.opaque(), readExtensions(r)}
}

func (c *groupContext) append(b []byte) []byte {
	b = appendU16(appendU16(b, versionMLS10), uint16(c.suite))
	b = appendU64(appendOpaque(b, c.groupID), c.epoch)
	b = appendOpaque(appendOpaque(b, c.treeHash), c.confirmed)
	return appendExtensions(b, c.extensions)
}

func (c *groupContext) marshal() []byte { return c.append(nil) }

// confirmedHash and interimHash are the transcript hashes of RFC 9420, Section
// 8.2.
func (s *suiteParams) confirmedHash(interim []byte, ac *authContent) []byte {
	b := ac.content.append(appendU16(nil, uint16(ac.wire)))
	return s.sum(interim, appendOpaque(b, ac.signature))
}

func (s *suiteParams) interimHash(confirmed, confirmationTag []byte) []byte {
	return s.sum(confirmed, appendOpaque(nil, confirmationTag))
}
