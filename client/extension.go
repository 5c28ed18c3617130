// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"

	"valise/mls"
)

// extensionConversation is the group context extension that says which
// conversation a group belongs to, under a private-use number (RFC 9420, Section
// 17.3). Every member's capabilities list it.
//
//	struct {
//		uint8 version; // 1: a conversation's first group, 2: a successor
//		opaque conversation[16];
//		opaque name<0..255>;
//		select (version) { case 2: opaque predecessor<1..255>; };
//	} Conversation;
//
// See spec/message.md, Section 7.
const extensionConversation mls.ExtensionType = 0xF0A1

// label is what the extension says.
type label struct {
	ID   ConversationID
	Name string

	Predecessor string // group id of the group that this one succeeds; empty for the first
}

func (l label) extension() (mls.Extension, error) {
	if err := checkName(l.Name); err != nil {
		return mls.Extension{}, err
	}
	var b cryptobyte.Builder
	version := uint8(1)
	if l.Predecessor != "" {
		version = 2
	}
	b.AddUint8(version)
	b.AddBytes(l.ID[:])
	b.AddUint8LengthPrefixed(func(c *cryptobyte.Builder) { c.AddBytes([]byte(l.Name)) })
	if version == 2 {
		b.AddUint8LengthPrefixed(func(c *cryptobyte.Builder) { c.AddBytes([]byte(l.Predecessor)) })
	}
	data, err := b.Bytes()
	return mls.Extension{Type: extensionConversation, Data: data}, err
}

func parseLabel(data []byte) (l label, err error) {
	s := cryptobyte.String(data)
	var version uint8
	var name, former cryptobyte.String
	if !s.ReadUint8(&version) || version < 1 || version > 2 || !s.CopyBytes(l.ID[:]) || !s.ReadUint8LengthPrefixed(&name) ||
		version == 2 && (!s.ReadUint8LengthPrefixed(&former) || former.Empty()) || !s.Empty() {
		return label{}, errors.New("malformed conversation extension")
	}
	l.Name, l.Predecessor = string(name), string(former)
	return l, checkName(l.Name)
}

// labelOf finds what a group says about its conversation.
func labelOf(extensions []mls.Extension) (label, error) {
	for _, x := range extensions {
		if x.Type == extensionConversation {
			return parseLabel(x.Data)
		}
	}
	return label{}, errors.New("the group does not say which conversation it belongs to")
}

func checkName(name string) error {
	if len(name) > MaxName || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return fmt.Errorf("a conversation's name takes up to %d bytes of text without control characters", MaxName)
	}
	return nil
}

// capabilities are those of every leaf of ours.
func capabilities() *mls.Capabilities {
	c := mls.DefaultCapabilities()
	c.Extensions = append(c.Extensions, extensionConversation)
	return &c
}
