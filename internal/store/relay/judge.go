// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"errors"
	"slices"

	"valise/gateway/mailbox"
)

// ground is what a submission is judged on: the rows of a transaction, or what
// is in memory before a journal. Both forms of the store decide by the same
// code.
type ground interface {
	// state returns a device's state, or nil for a device that never arrived.
	state(mailbox.Device) (*state, error)
	// group returns a group's row, or nil if there is none.
	group(id []byte) (*groupRow, error)
	// recall returns the hash of a submission that was done, or ErrNotFound.
	recall(from *state, counter uint64) ([32]byte, error)
	// stock counts a device's unexpired one-time KeyPackages.
	stock(of *state, suite uint16, now int64) (int, error)
}

// judge decides about one submission after the other.
type judge struct {
	quota mailbox.Quota
	round uint64 // tells one submission's loads from another's
}

// decide checks everything that a submission depends on. It changes nothing: a
// submission that is refused leaves no trace. A nil refusal means that it is to
// be done for from.
func (j *judge) decide(on ground, sub *mailbox.Submission) (from *state, refusal *mailbox.Outcome, err error) {
	if from, err = on.state(sub.Device); err != nil {
		return nil, nil, err
	}
	if refusal, err = checkMark(on, sub, from); refusal == nil && err == nil {
		refusal, err = checkEpoch(on, sub)
	}
	if refusal == nil && err == nil {
		refusal, err = j.checkRoom(on, sub)
	}
	if refusal == nil && err == nil {
		refusal, err = j.checkStock(on, sub, from)
	}
	return from, refusal, err
}

func refuse(v mailbox.Verdict) *mailbox.Outcome { return &mailbox.Outcome{Verdict: v} }

// checkMark finds out whether a submission is the device's next one, one that
// was done before, or neither. See spec/wire.md, Section 5.
func checkMark(on ground, sub *mailbox.Submission, from *state) (*mailbox.Outcome, error) {
	switch {
	case from == nil || from.incarnation == [16]byte{} || from.incarnation != sub.Incarnation:
		return refuse(mailbox.OldIncarnation), nil
	case sub.Counter > from.counter+1:
		return refuse(mailbox.CounterGap), nil
	case sub.Counter == from.counter+1 && from.hold != mailbox.Free:
		return refuse(mailbox.Barred), nil
	case sub.Counter == from.counter+1:
		return nil, nil
	}
	hash, err := on.recall(from, sub.Counter)
	switch {
	case errors.Is(err, mailbox.ErrNotFound):
		return refuse(mailbox.StateConflict), nil
	case err != nil:
		return nil, err
	case hash != sub.Hash:
		return refuse(mailbox.StateConflict), nil
	}
	return refuse(mailbox.Repeated), nil
}

// checkEpoch is the compare of compare-and-set: what a submission was made for
// must still be so in this transaction.
func checkEpoch(on ground, sub *mailbox.Submission) (*mailbox.Outcome, error) {
	var id []byte
	var want uint64
	switch {
	case sub.Step != nil:
		id, want = sub.Step.Group, sub.Step.From
	case sub.Require != nil:
		id, want = sub.Require.Group, sub.Require.Epoch
	default:
		return nil, nil
	}
	g, err := on.group(id)
	if err != nil {
		return nil, err
	}
	create := sub.Step != nil && sub.Step.Create
	switch {
	case create && g != nil:
		return refuse(mailbox.GroupExists), nil
	case create:
		return nil, nil
	case g == nil || g.epoch == mailbox.LostEpoch:
		return refuse(mailbox.UnknownGroup), nil
	case g.epoch != want:
		return &mailbox.Outcome{Verdict: mailbox.StaleEpoch, Epoch: g.epoch}, nil
	}
	return nil, nil
}

// load is what one submission would add to a mailbox.
type load struct {
	round       uint64
	held, bytes int64
}

// checkRoom refuses what would overfill a mailbox.
func (j *judge) checkRoom(on ground, sub *mailbox.Submission) (*mailbox.Outcome, error) {
	j.round++
	for i := range sub.Messages {
		m := &sub.Messages[i]
		factor := int64(1)
		if m.Kind != mailbox.Content {
			factor = 2 // a group must be able to go on past a full mailbox
		}
		for _, d := range m.To {
			st, err := on.state(d)
			if err != nil {
				return nil, err
			}
			if st == nil {
				return &mailbox.Outcome{Verdict: mailbox.UnknownRecipient, Device: d}, nil
			}
			if st.hold == mailbox.Purged {
				continue
			}
			if st.load.round != j.round {
				st.load = load{round: j.round}
			}
			st.load.held++
			st.load.bytes += int64(len(m.Payload))
			if st.held+st.load.held > factor*int64(j.quota.Messages) || st.bytes+st.load.bytes > factor*j.quota.Bytes {
				return &mailbox.Outcome{Verdict: mailbox.MailboxFull, Device: d}, nil
			}
		}
	}
	return nil, nil
}

// keptFor leaves out the devices for which nothing is kept any more: a commit that
// removes one goes to it like to the others. All of them were judged before.
func keptFor(on ground, to []mailbox.Device) ([]mailbox.Device, error) {
	for i, d := range to {
		st, err := on.state(d)
		if err != nil {
			return nil, err
		}
		if st.hold != mailbox.Purged {
			continue
		}
		rest, err := keptFor(on, to[i+1:])
		return append(slices.Clone(to[:i]), rest...), err
	}
	return to, nil
}

// checkStock refuses what would overfill a device's stock of KeyPackages.
func (j *judge) checkStock(on ground, sub *mailbox.Submission, from *state) (*mailbox.Outcome, error) {
	if len(sub.KeyPackages) == 0 {
		return nil, nil
	}
	adding := make(map[uint16]int)
	for _, kp := range sub.KeyPackages {
		if !kp.LastResort {
			adding[kp.Suite]++
		}
	}
	for suite, n := range adding {
		stock, err := on.stock(from, suite, sub.Time.Unix())
		if err != nil {
			return nil, err
		}
		if stock+n > j.quota.Packages {
			return refuse(mailbox.TooManyPackages), nil
		}
	}
	return nil, nil
}
