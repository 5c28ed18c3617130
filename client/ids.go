// SPDX-License-Identifier: Apache-2.0

package client

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
)

// A MessageID names a message for ever, also when it is sent again.
type MessageID [16]byte

// A ConversationID names a conversation through all of its groups.
type ConversationID [16]byte

// NewMessageID draws an id.
func NewMessageID() (id MessageID) { rand.Read(id[:]); return id }

func (id MessageID) String() string               { return hex.EncodeToString(id[:]) }
func (id MessageID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads 32 hexadecimal digits.
func (id *MessageID) UnmarshalText(text []byte) error { return unhex(id[:], text, "message") }

func (id ConversationID) String() string               { return hex.EncodeToString(id[:]) }
func (id ConversationID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads 32 hexadecimal digits.
func (id *ConversationID) UnmarshalText(text []byte) error { return unhex(id[:], text, "conversation") }

func unhex(to, text []byte, what string) error {
	raw, err := hex.DecodeString(string(text))
	if err != nil || len(raw) != len(to) {
		return fmt.Errorf("%s id %.40q: want %d hexadecimal digits", what, text, 2*len(to))
	}
	copy(to, raw)
	return nil
}
