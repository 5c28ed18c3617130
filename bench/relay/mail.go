// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"valise/bench/lean"
	"valise/mls"
	"valise/wire"
)

// textSize makes a message whose padded content has 1,024 bytes (package mls pads
// to multiples of 256); framing and header come on top.
const textSize = 920

// sealedPool is how many messages are sealed for each group. They are sent again
// and again, under new counters: no server can read them, and each does the same
// work for each.
const sealedPool = 16

// seal makes the messages of a group, under the label of the policy in force.
func seal(law *lean.Law, g *mls.Group) (sends []*wire.Send, err error) {
	text := make([]byte, textSize)
	for n := range sealedPool {
		_, _ = rand.Read(text) // never fails
		send, err := law.Seal(g, text, uint64(n+1))
		if err != nil {
			return nil, err
		}
		sends = append(sends, send)
	}
	return sends, nil
}

// A mail is what the other servers carry: PrivateMessages as the gateway gets them,
// byte for byte but for the first eight of each. They count the messages of a
// mailbox, so that receivers can tell what is missing or twice; the gateway's own
// numbers do that for ours.
type mail struct {
	pool [][]byte
	size int // of each
}

func newMail(dir string) (mail, error) {
	authority, err := lean.Load(dir, domain)
	if err != nil {
		return mail{}, err
	}
	a, err1 := authority.NewDevice("mail1")
	b, err2 := authority.NewDevice("mail2")
	if err := errors.Join(err1, err2); err != nil {
		return mail{}, err
	}
	offer, _, err := b.Offer()
	if err != nil {
		return mail{}, err
	}
	g, _, err := a.Group(offer)
	if err != nil {
		return mail{}, err
	}
	sends, err := seal(authority.Law(), g)
	if err != nil {
		return mail{}, err
	}
	m := mail{size: len(sends[0].Message)}
	for _, s := range sends {
		if len(s.Message) != m.size {
			return mail{}, fmt.Errorf("messages of %d and of %d bytes", m.size, len(s.Message))
		}
		m.pool = append(m.pool, s.Message)
	}
	return m, nil
}

// add appends the n-th message of a sender that serves so many boxes in turn.
func (m *mail) add(b []byte, n, boxes int) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(n/boxes))
	return append(b, m.pool[n%len(m.pool)][8:]...)
}

// An order checks that nothing of one mailbox is missing, twice or out of place.
type order struct {
	size int
	want uint64
}

func (o *order) take(payload []byte) error {
	if len(payload) != o.size {
		return fmt.Errorf("a message of %d bytes", len(payload))
	}
	if n := binary.BigEndian.Uint64(payload); n != o.want {
		return fmt.Errorf("message %d, want %d", n, o.want)
	}
	o.want++
	return nil
}
