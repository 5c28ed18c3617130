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
//	struct { uint8 version = 1; opaque conversation[16]; opaque name<0..255>; } Conversation;
const extensionConversation mls.ExtensionType = 0xF0A1

// label is what the extension says.
type label struct {
	ID   ConversationID
	Name string
}

func (l label) extension() (mls.Extension, error) {
	if err := checkName(l.Name); err != nil {
		return mls.Extension{}, err
	}
	var b cryptobyte.Builder
	b.AddUint8(1)
	b.AddBytes(l.ID[:])
	b.AddUint8LengthPrefixed(func(c *cryptobyte.Builder) { c.AddBytes([]byte(l.Name)) })
	data, err := b.Bytes()
	return mls.Extension{Type: extensionConversation, Data: data}, err
}

func parseLabel(data []byte) (l label, err error) {
	s := cryptobyte.String(data)
	var version uint8
	var name cryptobyte.String
	if !s.ReadUint8(&version) || version != 1 || !s.CopyBytes(l.ID[:]) || !s.ReadUint8LengthPrefixed(&name) || !s.Empty() {
		return label{}, errors.New("malformed conversation extension")
	}
	l.Name = string(name)
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
