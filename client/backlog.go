// SPDX-License-Identifier: Apache-2.0

package client

import (
	"cmp"
	"context"
	"slices"

	"valise/client/vault"
)

// A backlog knows which intents wait, by conversation: so that the oldest of each is
// found without reading the others, and a conversation that is stuck with a long queue
// hides nobody else's.
type backlog struct {
	numbers  map[ConversationID][]uint64 // ascending
	of       map[uint64]ConversationID
	removals map[uint64]bool // those that take somebody out
	services map[uint64]bool // those that devices say to each other, and what is sent again
}

func newBacklog() backlog {
	return backlog{numbers: map[ConversationID][]uint64{}, of: map[uint64]ConversationID{}, removals: map[uint64]bool{}, services: map[uint64]bool{}}
}

func (b *backlog) add(in *intent) {
	number, conv := in.Number, in.Conversation
	if _, known := b.of[number]; known {
		return
	}
	b.of[number] = conv
	if in.Kind == intentRemove {
		b.removals[number] = true
	}
	if in.Service || in.Resend {
		b.services[number] = true
	}
	list := b.numbers[conv]
	at, _ := slices.BinarySearch(list, number)
	b.numbers[conv] = slices.Insert(list, at, number)
}

func (b *backlog) remove(number uint64) {
	conv, known := b.of[number]
	if !known {
		return
	}
	delete(b.of, number)
	delete(b.removals, number)
	delete(b.services, number)
	list := b.numbers[conv]
	if at, found := slices.BinarySearch(list, number); found {
		list = slices.Delete(list, at, at+1)
	}
	if b.numbers[conv] = list; len(list) == 0 {
		delete(b.numbers, conv)
	}
}

// removal is the first of a conversation's intents that takes somebody out, 0 for none.
func (b *backlog) removal(conv ConversationID) uint64 {
	if len(b.removals) == 0 {
		return 0
	}
	for _, number := range b.numbers[conv] {
		if b.removals[number] {
			return number
		}
	}
	return 0
}

// passing is the first of a conversation's intents that need not wait for a person's
// message, 0 for none.
func (b *backlog) passing(conv ConversationID) uint64 {
	if len(b.removals)+len(b.services) == 0 {
		return 0
	}
	for _, number := range b.numbers[conv] {
		if b.removals[number] || b.services[number] {
			return number
		}
	}
	return 0
}

// waiting are the intents of a conversation, oldest first.
func (b *backlog) waiting(conv ConversationID) []uint64 { return slices.Clone(b.numbers[conv]) }

// A head is the oldest intent of a conversation.
type head struct {
	number uint64
	conv   ConversationID
}

// heads are the oldest intents of all conversations, oldest first.
func (b *backlog) heads() []head {
	out := make([]head, 0, len(b.numbers))
	for conv, list := range b.numbers {
		out = append(out, head{list[0], conv})
	}
	slices.SortFunc(out, func(x, y head) int { return cmp.Compare(x.number, y.number) })
	return out
}

// loadBacklog reads what waits in the vault, some of it at a time.
func (e *Engine) loadBacklog(tx *vault.Tx) error {
	e.backlog = newBacklog()
	for after := uint64(0); ; {
		cells, err := tx.Range(tableIntent, nil, after, queueRead)
		if err != nil {
			return err
		}
		for _, c := range cells {
			in, err := decode[intent](tableIntent, c.Value)
			if err != nil {
				return err
			}
			after = vault.Number(c.Row)
			e.backlog.add(in)
		}
		if len(cells) < queueRead {
			return nil
		}
	}
}

// queueRead is how many intents are read at a time.
const queueRead = 32

// intent reads one that waits; nil if it is gone.
func (e *Engine) intent(number uint64) (in *intent, err error) {
	err = e.cfg.Vault.View(context.Background(), func(tx *vault.Tx) (err error) {
		in, err = getJSON[intent](tx, tableIntent, nil, vault.Numbered(number))
		return err
	})
	return in, err
}
