// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"encoding/binary"
	"slices"
	"testing"

	"valise/gateway/mailbox"
	"valise/internal/store/relay/journal"
)

// copier seeds a fuzz test with batches.
type copier struct{ f *testing.F }

func (c copier) add(_ uint64, _ journal.Place, body []byte) error {
	c.f.Add(slices.Clone(body))
	return nil
}

// writer writes down again what is read.
type writer struct{ b []byte }

func (w *writer) arrival(a *arrivalItem) error {
	w.b = a.append(w.b)
	return nil
}

func (w *writer) submission(s *submissionItem) error {
	w.b = s.append(w.b)
	return nil
}

func (w *writer) step(s *stepItem) error {
	w.b = s.append(w.b)
	return nil
}

func (w *writer) message(m *messageItem) error {
	w.b = appendMessage(w.b, m.kind, m.urgent, m.group, m.epoch, len(m.to))
	for _, n := range m.to {
		w.b = binary.AppendUvarint(binary.AppendUvarint(w.b, uint64(n.device)), n.number)
	}
	w.b = appendBytes(w.b, m.payload)
	return nil
}

func (w *writer) keyPackage(kp *mailbox.KeyPackage) error {
	w.b = appendPackage(w.b, kp)
	return nil
}

func (w *writer) after(st *state) error {
	w.b = appendState(w.b, st)
	return nil
}

func (w *writer) hold(device int64, hold mailbox.Hold) error {
	w.b = appendHold(w.b, device, hold)
	return nil
}
