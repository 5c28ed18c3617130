// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"bytes"
	"fmt"
)

// A privateMessage is PrivateMessage of RFC 9420, Section 6.3:
//
//	struct {
//	    opaque group_id<V>;
//	    uint64 epoch;
//	    ContentType content_type;
//	    opaque authenticated_data<V>;
//	    opaque encrypted_sender_data<V>;
//	    opaque ciphertext<V>;
//	} PrivateMessage;
type privateMessage struct {
	groupID    []byte
	epoch      uint64
	typ        ContentType
	authData   []byte
	senderData []byte
	ciphertext []byte
}

func readPrivateMessage(r *reader) *privateMessage {
	m := &privateMessage{r.opaque(), r.u64(), ContentType(r.u8()), r.opaque(), r.opaque(), r.opaque()}
	if m.typ < ContentApplication || m.typ > ContentCommit {
		r.fail()
	}
	return m
}

// senderAAD is SenderDataAAD of RFC 9420, Section 6.3.2.
func (m *privateMessage) senderAAD(b []byte) []byte {
	return append(appendU64(appendOpaque(b, m.groupID), m.epoch), byte(m.typ))
}

// contentAAD is PrivateContentAAD of RFC 9420, Section 6.3.1.
func (m *privateMessage) contentAAD(b []byte) []byte {
	return appendOpaque(m.senderAAD(b), m.authData)
}

func (m *privateMessage) append(b []byte) []byte {
	return appendOpaque(appendOpaque(m.contentAAD(b), m.senderData), m.ciphertext)
}

// senderDataKey derives from a sample of the ciphertext, RFC 9420, Section
// 6.3.2.
func (s *suiteParams) senderDataKey(secret, ciphertext []byte) messageKey {
	sample := ciphertext[:min(len(ciphertext), s.nh())]
	return messageKey{
		s.expandWithLabel(secret, "key", sample, s.nk),
		s.expandWithLabel(secret, "nonce", sample, nonceSize),
	}
}

// senderDataBody is SenderData of RFC 9420, Section 6.3.2:
//
//	struct { uint32 leaf_index; uint32 generation; opaque reuse_guard[4]; } SenderData;
type senderDataBody struct {
	leaf       LeafIndex
	generation uint32
	guard      [4]byte
}

func readSenderData(r *reader) (d senderDataBody) {
	d.leaf, d.generation = LeafIndex(r.u32()), r.u32()
	copy(d.guard[:], r.take(4))
	return d
}

// guarded is the nonce with the reuse guard mixed in, RFC 9420, Section 6.3.1.
func (k messageKey) guarded(guard [4]byte) []byte {
	n := bytes.Clone(k.nonce)
	for i, g := range guard {
		n[i] ^= g
	}
	return n
}

// protectPrivate encrypts signed content of a member with one key of its
// ratchet, RFC 9420, Section 6.3. size is the least size of the plaintext
// without the tag.
func protectPrivate(s *suiteParams, ac *authContent, senderDataSecret []byte, u *use, size int) []byte {
	c := &ac.content
	m := &privateMessage{groupID: c.groupID, epoch: c.epoch, typ: c.typ, authData: c.authData}
	plain := ac.appendAuth(c.appendBody(nil))
	if pad := size - len(plain); pad > 0 {
		plain = append(plain, make([]byte, pad)...)
	}
	var guard [4]byte
	copy(guard[:], random(4))
	m.ciphertext = s.gcm(u.key).Seal(nil, u.guarded(guard), plain, m.contentAAD(nil))
	k := s.senderDataKey(senderDataSecret, m.ciphertext)
	data := append(appendU32(appendU32(nil, c.sender.index), u.generation), guard[:]...)
	m.senderData = s.gcm(k.key).Seal(nil, k.nonce, data, m.senderAAD(nil))
	return (&mlsMessage{wire: WirePrivateMessage, private: m}).marshal()
}

// openSenderData finds out who sent a message, and with which key.
func (m *privateMessage) openSenderData(s *suiteParams, secret []byte) (senderDataBody, error) {
	k := s.senderDataKey(secret, m.ciphertext)
	plain, err := s.gcm(k.key).Open(nil, k.nonce, m.senderData, m.senderAAD(nil))
	if err != nil {
		return senderDataBody{}, fmt.Errorf("%w: sender data", ErrDecrypt)
	}
	return decode(plain, readSenderData)
}

// open decrypts a message with the key that its sender data names, RFC 9420,
// Section 6.3.1. The key is spent only when the caller consumes it.
func (m *privateMessage) open(s *suiteParams, d senderDataBody, keys *secretTree) (*authContent, *use, error) {
	u, err := keys.take(ratchetFor(d.leaf, m.typ), d.generation)
	if err != nil {
		return nil, nil, err
	}
	plain, err := s.gcm(u.key).Open(nil, u.guarded(d.guard), m.ciphertext, m.contentAAD(nil))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: content", ErrDecrypt)
	}
	ac := &authContent{wire: WirePrivateMessage, content: framedContent{
		groupID: m.groupID, epoch: m.epoch, sender: sender{senderMember, uint32(d.leaf)}, authData: m.authData,
	}}
	r := reader{b: plain}
	ac.content.body = readBody(&r, m.typ)
	ac.readAuth(&r)
	if r.bad || len(bytes.Trim(r.b, "\x00")) != 0 {
		return nil, nil, fmt.Errorf("%w: content of a private message", ErrMalformed)
	}
	return ac, u, nil
}
