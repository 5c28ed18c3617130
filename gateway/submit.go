// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"strings"
	"time"

	"valise/gateway/group"
	"valise/gateway/mailbox"
	"valise/identity"
	"valise/mls"
	"valise/wire"
)

// submit does a submission exactly once. See spec/wire.md, Section 5.
//
// Messages are handed to the store one after another without waiting; all other
// kinds, and every counter that is not simply the next one, wait until what was
// handed over before has its outcome. So whatever is decided here is decided
// with the device's true mark in hand, and the store decides again, in the
// transaction.
func (r *requester) submit(req wire.Submission, body []byte) {
	s, id, counter := r.s, req.RequestID(), req.SubmissionCounter()
	done := func(code wire.Code) { r.answer(wire.NewResult(id, code)) }
	if !s.current {
		s.refuse(eventRefusedRequest, wire.OldIncarnation.String())
		done(wire.OldIncarnation)
		return
	}
	hash := wire.DigestBody(req.Type(), body)
	send, isSend := req.(*wire.Send)
	if !isSend || !s.seq.next(counter) {
		switch mark := s.seq.settle(); {
		case counter <= mark:
			done(s.repeated(counter, hash))
			return
		case counter > mark+1:
			s.g.metrics.refused(eventRefusedRequest, wire.CounterGap.String())
			done(wire.CounterGap)
			return
		}
	}
	m := &sending{r: r, id: id, sub: mailbox.Submission{
		Device: s.device.ID, Incarnation: s.standing.Incarnation, Counter: counter, Hash: hash, Time: s.g.now(), Turn: s.standing.Turn,
	}}
	if isSend {
		m.send(send)
		return
	}
	s.seq.launch(counter)
	outcome, err := s.effect(s.conn.Context(), &m.sub, req)
	s.seq.land(counter, err == nil && outcome.OK())
	r.answer(s.answerTo(id, kindOf(req), outcome, err))
}

// repeated answers a counter that is not above the mark: the same bytes are
// acknowledged again, others come from a copy of an older state. It looks into the store,
// so it is not for nothing; whoever asks too often may ask the same again.
func (s *session) repeated(counter uint64, hash [32]byte) wire.Code {
	if !s.allowance.ask(s.g.now(), 1) {
		s.refuse(eventRefusedRequest, "rate_limited", slog.Uint64("counter", counter))
		return wire.Unavailable
	}
	kept, err := s.g.cfg.Store.Recall(s.conn.Context(), s.device.ID, counter)
	switch {
	case err == nil && kept == hash:
		return wire.OK
	case err == nil || errors.Is(err, mailbox.ErrNotFound):
		s.refuse(eventRefusedRequest, wire.StateConflict.String(), slog.Uint64("counter", counter))
		return wire.StateConflict
	}
	return s.refusedBy(err)
}

// effect does a submission other than a message and waits for the store.
func (s *session) effect(ctx context.Context, sub *mailbox.Submission, req wire.Submission) (mailbox.Outcome, error) {
	if r := s.admitAsk(costOf(req)); r != nil {
		return mailbox.Outcome{}, &group.Refusal{Code: r.code, Reason: r.reason}
	}
	switch r := req.(type) {
	case *wire.PutKeyPackages:
		if err := s.checkKeyPackages(sub, r); err != nil {
			return mailbox.Outcome{}, err
		}
		return s.g.box.Do(ctx, sub)
	case *wire.CreateGroup:
		return s.g.groups.Create(ctx, sub, r)
	case *wire.Commit:
		if !s.g.attempts.allow(s.device.ID, r.Group, sub.Time) {
			return mailbox.Outcome{}, &group.Refusal{Code: wire.RateLimited, Reason: "commit_attempts"}
		}
		return s.g.groups.Commit(ctx, sub, r)
	}
	return mailbox.Outcome{}, &group.Refusal{Code: wire.Malformed, Reason: "unknown_submission"}
}

// costUnit is how many bytes of a commit count as one request.
const costUnit = 16 << 10

// costOf is what a submission takes out of the device's allowance: checking
// signatures and trees costs the gateway more than carrying a message.
func costOf(req wire.Submission) int {
	switch r := req.(type) {
	case *wire.PutKeyPackages:
		return len(r.Packages)
	case *wire.Commit:
		return 1 + (len(r.Commit)+len(r.Welcome))/costUnit
	}
	return 1
}

// A sending is a message on its way to the store, all that belongs to it in one
// piece of memory.
type sending struct {
	r        *requester
	id       uint32
	sub      mailbox.Submission
	require  mailbox.Epoch
	messages [1]mailbox.Message
}

// send admits a message and hands it to the store; the answer comes when it is
// on disk.
func (m *sending) send(req *wire.Send) {
	s := m.r.s
	view, r := s.admitSend(&m.sub, req)
	if r != nil {
		s.refuseSend(req, r)
		m.r.answer(r.answer(m.id))
		return
	}
	m.require = mailbox.Epoch{Group: view.ID, Epoch: req.Epoch}
	m.messages[0] = mailbox.Message{
		Kind: mailbox.Content, Group: view.ID, Epoch: req.Epoch, Payload: req.Message, To: view.Others(s.device.ID),
	}
	m.sub.Require, m.sub.Messages = &m.require, m.messages[:]
	s.seq.launch(m.sub.Counter)
	if err := s.g.box.Put(s.conn.Context(), &m.sub, m); err != nil {
		s.seq.land(m.sub.Counter, false)
		m.r.answer(wire.NewResult(m.id, wire.Unavailable))
	}
}

// Report implements mailbox.Reporter.
func (m *sending) Report(o mailbox.Outcome, err error) {
	s := m.r.s
	s.seq.land(m.sub.Counter, err == nil && o.OK())
	s.g.groups.Heed(m.require.Group, o)
	m.r.put(s.answerTo(m.id, kindMessage, o, err))
}

// Flush implements mailbox.Reporter: the answers to a batch leave together.
func (m *sending) Flush() { m.r.out.flush() }

// admitSend gathers the snapshot and asks for the decision. It takes the request out of
// the allowance first: what is refused costs the gateway as much as what is not.
func (s *session) admitSend(sub *mailbox.Submission, req *wire.Send) (*group.View, *refusal) {
	began := time.Now()
	defer func() { s.g.metrics.admission.Observe(time.Since(began).Seconds()) }()
	if !s.allowance.ask(sub.Time, 1) {
		return nil, &refusal{code: wire.RateLimited, reason: "rate_limited"}
	}
	info, err := mls.ParsePrivateMessageInfo(req.Message)
	if err != nil {
		return nil, &refusal{code: wire.Malformed, reason: "malformed_message"}
	}
	view, err := s.g.groups.ViewAt(s.conn.Context(), req.Group, req.Epoch)
	if err != nil && !isUnknown(err) {
		return nil, &refusal{code: s.refusedBy(err), reason: "unavailable"}
	}
	state, set := s.g.rules.Load(), s.g.Standings()
	m := &message{group: req.Group, epoch: req.Epoch, size: len(req.Message), info: info}
	r := admit(&snapshot{
		rules: state, circles: &s.g.circles,
		now: sub.Time, device: s.device, denied: s.g.deniedNow(), set: set, domain: s.g.cfg.Domain, group: view, allowance: s.allowance,
		age: s.g.age(), tightening: s.g.cfg.Tightening,
	}, m)
	sub.Precedence = uint8(m.precedence)
	return view, r
}

// answer is what the device learns of a refusal.
func (r *refusal) answer(id uint32) wire.Answer {
	switch r.code {
	case wire.StaleEpoch:
		return wire.Stale(id, r.epoch)
	case wire.RemovalDue, wire.NotCleared, wire.RecipientRefused:
		return wire.ResultAbout(id, r.code, r.about)
	}
	return wire.NewResult(id, r.code)
}

func isUnknown(err error) bool {
	var r *group.Refusal
	return errors.As(err, &r) && r.Code == wire.UnknownGroup
}

func (s *session) refuseSend(req *wire.Send, r *refusal) {
	attrs := []slog.Attr{slog.String("group", hexOf(req.Group)), slog.Uint64("epoch", req.Epoch)}
	if !r.about.IsZero() {
		attrs = append(attrs, slog.String("recipient", r.about.String()))
	}
	for _, a := range []slog.Attr{slog.String("label", r.label), slog.String("whose", r.whose), slog.String("detail", r.detail)} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	s.refuse(eventRefusedRequest, r.reason, attrs...)
}

// verdictCodes are the answers to what the store decided.
var verdictCodes = map[mailbox.Verdict]wire.Code{
	mailbox.Done: wire.OK, mailbox.Repeated: wire.OK,
	mailbox.StateConflict: wire.StateConflict, mailbox.CounterGap: wire.CounterGap,
	mailbox.OldIncarnation: wire.OldIncarnation, mailbox.UnknownGroup: wire.UnknownGroup,
	mailbox.GroupExists: wire.GroupExists, mailbox.StaleEpoch: wire.StaleEpoch,
	mailbox.MailboxFull: wire.MailboxFull, mailbox.UnknownRecipient: wire.RecipientRefused,
	mailbox.TooManyPackages: wire.TooLarge, mailbox.Barred: wire.NotAllowed,
	mailbox.Moved: wire.Unavailable,
}

// answerTo turns an outcome into the answer, and counts it. It may run on the
// committer.
func (s *session) answerTo(id uint32, kind string, o mailbox.Outcome, err error) wire.Answer {
	if err != nil {
		code := s.refusedBy(err)
		var r *group.Refusal
		switch {
		case code == wire.StaleEpoch && errors.As(err, &r):
			return wire.Stale(id, r.Epoch)
		case errors.As(err, &r) && !r.About.IsZero():
			return wire.ResultAbout(id, code, r.About)
		}
		return wire.NewResult(id, code)
	}
	code, ok := verdictCodes[o.Verdict]
	if !ok {
		code = wire.Unavailable
	}
	switch code {
	case wire.OK:
		s.g.metrics.submitted(kind)
	case wire.CounterGap: // follows from an earlier refusal that was recorded
		s.g.metrics.refused(eventRefusedRequest, code.String())
	case wire.Unavailable:
		if o.Verdict == mailbox.Moved { // the newer connection has the device's word
			go s.close(wire.CloseReplaced, "")
			break
		}
		s.refuse(eventRefusedRequest, code.String())
	case wire.StaleEpoch:
		s.refuse(eventRefusedRequest, code.String())
		return wire.Stale(id, o.Epoch)
	case wire.MailboxFull, wire.RecipientRefused:
		s.refuse(eventRefusedRequest, code.String(), slog.String("recipient", identity.DeviceID(o.Device).String()))
		return wire.ResultAbout(id, code, o.Device)
	default:
		s.refuse(eventRefusedRequest, code.String())
	}
	return wire.NewResult(id, code)
}

func kindOf(req wire.Submission) string {
	switch req.(type) {
	case *wire.PutKeyPackages:
		return "key_packages"
	case *wire.CreateGroup:
		return "group"
	case *wire.Commit:
		return "commit"
	}
	return kindMessage
}

const kindMessage = "message"

func hexOf(group []byte) string { return hex.EncodeToString(group) }

// reasonCode keeps a device's word for a reason within the form of one, so that
// it cannot pretend to be something else in the audit stream.
func reasonCode(s string) string {
	plain := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return -1
	}, s)
	if plain != s || plain == "" {
		return "unspecified"
	}
	return plain
}
