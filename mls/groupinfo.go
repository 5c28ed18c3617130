// SPDX-License-Identifier: Apache-2.0

package mls

import "fmt"

// A groupInfo is GroupInfo of RFC 9420, Section 12.4.3:
//
//	struct {
//	    GroupContext group_context;
//	    Extension extensions<V>;
//	    MAC confirmation_tag;
//	    uint32 signer;
//	    opaque signature<V>;
//	} GroupInfo;
type groupInfo struct {
	context         groupContext
	extensions      []Extension
	confirmationTag []byte
	signer          LeafIndex
	signature       []byte
}

func readGroupInfo(r *reader) *groupInfo {
	return &groupInfo{readGroupContext(r), readExtensions(r), r.opaque(), LeafIndex(r.u32()), r.opaque()}
}

func (g *groupInfo) appendBody(b []byte) []byte {
	b = appendExtensions(g.context.append(b), g.extensions)
	return appendU32(appendOpaque(b, g.confirmationTag), uint32(g.signer))
}

func (g *groupInfo) append(b []byte) []byte { return appendOpaque(g.appendBody(b), g.signature) }

func (g *groupInfo) message() []byte {
	return (&mlsMessage{wire: WireGroupInfo, groupInfo: g}).marshal()
}

// verify checks the signature with the key of the signer's leaf.
func (g *groupInfo) verify(s *suiteParams, t *tree) error {
	leaf := t.leaf(g.signer)
	if leaf == nil {
		return fmt.Errorf("%w: group info is signed by no member", ErrInvalidTree)
	}
	return g.verifyWith(s, leaf.SignatureKey)
}

func (g *groupInfo) verifyWith(s *suiteParams, key []byte) error {
	return s.verifyWithLabel(key, "GroupInfoTBS", g.appendBody(nil), g.signature)
}

func parseGroupInfo(message []byte) (*groupInfo, error) {
	m, err := parseMessage(message)
	if err != nil {
		return nil, err
	}
	if m.groupInfo == nil {
		return nil, fmt.Errorf("%w: message is not a group info", ErrMalformed)
	}
	return m.groupInfo, nil
}

// externalPub returns the key of the external_pub extension, RFC 9420, Section
// 12.4.3.2.
func (g *groupInfo) externalPub() ([]byte, error) {
	data, ok := findExtension(g.extensions, ExtensionExternalPub)
	if !ok {
		return nil, fmt.Errorf("%w: group info lacks external_pub", ErrMalformed)
	}
	return decode(data, (*reader).opaque)
}

// tree finds the ratchet tree, in the extension or given by the caller, and
// compares its hash, RFC 9420, Section 12.4.3.3.
func (g *groupInfo) tree(s *suiteParams, given []byte) (*tree, error) {
	data, ok := findExtension(g.extensions, ExtensionRatchetTree)
	if !ok {
		data = given
	}
	if data == nil {
		return nil, ErrNeedTree
	}
	t, err := parseTree(s, data)
	if err != nil {
		return nil, err
	}
	if !equalMAC(t.rootHash(), g.context.treeHash) {
		return nil, fmt.Errorf("%w: tree hash differs from the group's", ErrInvalidTree)
	}
	return t, nil
}
