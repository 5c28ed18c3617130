// SPDX-License-Identifier: Apache-2.0

package mls

import "fmt"

// A WireFormat is a number of RFC 9420, Section 17.2.
type WireFormat uint16

const (
	WirePublicMessage  WireFormat = 1
	WirePrivateMessage WireFormat = 2
	WireWelcome        WireFormat = 3
	WireGroupInfo      WireFormat = 4
	WireKeyPackage     WireFormat = 5
)

// An mlsMessage is MLSMessage of RFC 9420, Section 6. One field is set.
type mlsMessage struct {
	wire       WireFormat
	public     *publicMessage
	private    *privateMessage
	welcome    *welcome
	groupInfo  *groupInfo
	keyPackage *KeyPackage
}

func readMessage(r *reader) *mlsMessage {
	if r.u16() != versionMLS10 {
		r.fail()
	}
	m := &mlsMessage{wire: WireFormat(r.u16())}
	switch m.wire {
	case WirePublicMessage:
		m.public = readPublicMessage(r)
	case WirePrivateMessage:
		m.private = readPrivateMessage(r)
	case WireWelcome:
		m.welcome = readWelcome(r)
	case WireGroupInfo:
		m.groupInfo = readGroupInfo(r)
	case WireKeyPackage:
		// The package's version must be the message's, RFC 9420, Section 10.
		if m.keyPackage = readKeyPackage(r); m.keyPackage.Version != versionMLS10 {
			r.fail()
		}
	default:
		r.fail()
	}
	return m
}

func parseMessage(data []byte) (*mlsMessage, error) {
	m, err := decode(data, readMessage)
	if err != nil {
		return nil, fmt.Errorf("%w: message", err)
	}
	return m, nil
}

func (m *mlsMessage) marshal() []byte {
	b := appendU16(appendU16(nil, versionMLS10), uint16(m.wire))
	switch m.wire {
	case WirePublicMessage:
		return m.public.append(b)
	case WirePrivateMessage:
		return m.private.append(b)
	case WireWelcome:
		return m.welcome.append(b)
	case WireGroupInfo:
		return m.groupInfo.append(b)
	}
	return m.keyPackage.append(b)
}

// MessageInfo is what anybody can read in a PublicMessage or PrivateMessage,
// unverified.
type MessageInfo struct {
	Wire              WireFormat
	GroupID           []byte
	Epoch             uint64
	Content           ContentType
	AuthenticatedData []byte
}

// ParseMessageInfo reads the clear fields of an MLSMessage.
func ParseMessageInfo(message []byte) (*MessageInfo, error) {
	m, err := parseMessage(message)
	if err != nil {
		return nil, err
	}
	switch {
	case m.private != nil:
		p := m.private
		return &MessageInfo{m.wire, p.groupID, p.epoch, p.typ, p.authData}, nil
	case m.public != nil:
		c := &m.public.content
		return &MessageInfo{m.wire, c.groupID, c.epoch, c.typ, c.authData}, nil
	}
	return nil, fmt.Errorf("%w: message belongs to no group", ErrMalformed)
}

// ParsePrivateMessageInfo is ParseMessageInfo that refuses all but a
// PrivateMessage, and copies nothing: what it returns refers to message.
func ParsePrivateMessageInfo(message []byte) (*MessageInfo, error) {
	r := reader{b: message, shared: true}
	if version, wire := r.u16(), WireFormat(r.u16()); version != versionMLS10 || wire != WirePrivateMessage {
		return nil, fmt.Errorf("%w: not a private message", ErrMalformed)
	}
	m := readPrivateMessage(&r)
	if !r.ok() {
		return nil, fmt.Errorf("%w: message", ErrMalformed)
	}
	return &MessageInfo{WirePrivateMessage, m.groupID, m.epoch, m.typ, m.authData}, nil
}
