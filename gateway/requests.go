// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"
	"log/slog"

	"valise/gateway/group"
	"valise/gateway/mailbox"
	"valise/identity"
	"valise/wire"
)

// requests reads and serves requests until the stream or the connection ends.
// One goroutine serves a device's requests, in their order; only the store's
// work on messages goes on behind its back.
func (s *session) requests(in *frames, out *outbox) {
	r := &requester{s: s, out: out, pending: make(chan struct{}, wire.MaxPending)}
	for out.room() {
		frame, body, err := in.raw()
		if err != nil {
			s.broken(err)
			return
		}
		request, ok := frame.(wire.Request)
		if !ok {
			s.close(wire.CloseProtocol, "unexpected_frame")
			return
		}
		select {
		case r.pending <- struct{}{}:
		case <-s.conn.Context().Done():
			return
		}
		if submission, ok := request.(wire.Submission); ok {
			r.submit(submission, body)
		} else if a := s.ask(s.conn.Context(), request); a != nil {
			r.answer(a)
		} else {
			return
		}
	}
}

// A requester serves the requests of one control stream.
type requester struct {
	s       *session
	out     *outbox
	pending chan struct{} // one element for each request without an answer
}

// answer ends a request.
func (r *requester) answer(a wire.Answer) {
	r.put(a)
	r.out.flush()
}

// put ends a request; the answer leaves with the next flush.
func (r *requester) put(a wire.Answer) {
	if err := r.out.put(a); err != nil {
		r.s.g.log.Error("an answer cannot be encoded", "error", err)
		_ = r.out.put(wire.NewResult(a.AnswerTo(), wire.TooLarge))
	}
	<-r.pending
}

// ask serves a request that changes nothing. It returns nil after closing the
// connection.
func (s *session) ask(ctx context.Context, request wire.Request) wire.Answer {
	id := request.RequestID()
	if _, ok := request.(*wire.Ping); ok {
		return wire.NewResult(id, wire.OK)
	}
	if r := s.admitAsk(1); r != nil {
		s.refuse(eventRefusedRequest, r.reason)
		return wire.NewResult(id, r.code)
	}
	var answer wire.Answer
	var err error
	switch r := request.(type) {
	case *wire.GetKeyPackages:
		answer, err = s.getKeyPackages(ctx, r)
	case *wire.GetGroup:
		answer, err = s.getGroup(ctx, r)
	case *wire.GetDirectory:
		answer, err = s.getDirectory(ctx, r)
	case *wire.GetRecord:
		answer, err = s.getRecord(ctx, r)
	case *wire.GetBundle:
		answer = s.getBundle(r)
	case *wire.GetStandings:
		answer, err = s.getStandings(ctx, r)
	case *wire.BlobDone:
		answer, err = s.blobDone(ctx, r)
	case *wire.GetBlob:
		answer, err = s.getBlob(ctx, r)
	case *wire.Report:
		s.report(r)
		answer = wire.NewResult(id, wire.OK)
	default: // a frame that only the gateway sends
		s.close(wire.CloseProtocol, "unexpected_frame")
		return nil
	}
	if err != nil {
		return wire.NewResult(id, s.refusedBy(err))
	}
	return answer
}

// admitAsk is the part of admission that every request passes. cost is how many
// requests it counts for; the dearest one still passes with a full allowance.
func (s *session) admitAsk(cost int) *refusal {
	now := s.g.now()
	if r := admitDevice(&snapshot{now: now, device: s.device, denied: s.g.deniedNow(), set: s.g.Standings()}); r != nil {
		return r
	}
	if s.allowance.isHeld(now) {
		return &refusal{code: wire.NotAllowed, reason: "held"}
	}
	if !s.allowance.ask(now, cost) {
		return &refusal{code: wire.RateLimited, reason: "rate_limited"}
	}
	return nil
}

// refusedBy turns an error into a code for the device, and a line in the audit
// stream or, where the gateway is at fault, in the log.
func (s *session) refusedBy(err error) wire.Code {
	var r *group.Refusal
	switch {
	case errors.As(err, &r):
		attrs := []slog.Attr{}
		if r.Err != nil {
			attrs = append(attrs, slog.String("cause", r.Err.Error()))
		}
		if !r.About.IsZero() {
			attrs = append(attrs, slog.String("recipient", r.About.String()))
		}
		s.refuse(eventRefusedRequest, r.Reason, attrs...)
		return r.Code
	case errors.Is(err, context.Canceled):
		return wire.Unavailable
	}
	s.g.metrics.refused(eventRefusedRequest, "unavailable")
	s.g.log.Error("a request could not be served", "device", s.device.ID.String(), "error", err)
	return wire.Unavailable
}

// getKeyPackages hands out one KeyPackage of each device asked for, but the
// asker's own.
func (s *session) getKeyPackages(ctx context.Context, r *wire.GetKeyPackages) (wire.Answer, error) {
	devices, err := s.g.cfg.Store.Devices(ctx, r.Address)
	if err != nil {
		return nil, err
	}
	address, _ := identity.ParseAddress(r.Address) // one that is none has no devices
	wanted := devices[:0]
	for _, d := range devices {
		if d != s.device.ID && !s.g.barred(d, address) && (len(r.Devices) == 0 || contains(r.Devices, d)) && len(wanted) < wire.MaxDevices {
			wanted = append(wanted, d)
		}
	}
	if len(wanted) == 0 {
		return wire.NewResult(r.ID, wire.NotFound), nil
	}
	taken, left, err := s.g.cfg.Store.TakeKeyPackages(ctx, r.Suite, wanted, s.g.now())
	if err != nil {
		return nil, err
	}
	for d, n := range left {
		if n < mailbox.LowPackages {
			s.g.notify(d, wire.NoticeKeyPackagesLow)
		}
	}
	if len(taken) == 0 {
		return wire.NewResult(r.ID, wire.NotFound), nil
	}
	answer := new(wire.KeyPackages)
	answer.ID = r.ID
	for _, kp := range taken {
		answer.Entries = append(answer.Entries, wire.KeyPackageEntry{Device: kp.Device, LastResort: kp.LastResort, Package: kp.Package})
	}
	return answer, nil
}

func contains[T comparable](list []T, d T) bool {
	for _, x := range list {
		if x == d {
			return true
		}
	}
	return false
}

// notify sends a notice to a device if it is connected and listening, here or elsewhere.
func (g *Gateway) notify(d identity.DeviceID, code wire.NoticeCode) {
	if !g.notifyHere(d, code) {
		g.others.tell(mailbox.News{Notices: []mailbox.Notice{{Device: d, Code: uint8(code)}}})
	}
}

// notifyHere is notify for a device that is connected here; false if it is not.
func (g *Gateway) notifyHere(d identity.DeviceID, code wire.NoticeCode) bool {
	s := g.session(d)
	if s == nil {
		return false
	}
	select {
	case s.notices <- code:
	default: // one is waiting already
	}
	s.tell()
	return true
}

func (s *session) getGroup(ctx context.Context, r *wire.GetGroup) (wire.Answer, error) {
	answer, err := s.g.groups.Info(ctx, r.Group, s.device.ID)
	if err != nil {
		return nil, err
	}
	answer.ID = r.ID
	return answer, nil
}

// getDirectory lists devices that can be written to. Those on the deny list or
// out of good standing are left out; the asker judges the chains for itself.
func (s *session) getDirectory(ctx context.Context, r *wire.GetDirectory) (wire.Answer, error) {
	list, err := s.g.cfg.Store.Directory(ctx, r.Prefix, wire.MaxDirectory)
	if err != nil {
		return nil, err
	}
	answer := new(wire.Directory)
	answer.ID = r.ID
	for _, l := range list {
		if !s.g.barredListing(l) && len(l.Chain) > 0 && len(l.Chain) <= wire.MaxChain {
			answer.Chains = append(answer.Chains, l.Chain)
		}
	}
	return answer, nil
}

// report puts a recipient's complaint into the audit stream.
func (s *session) report(r *wire.Report) {
	s.g.metrics.refused(eventRejected, "reported") // not the device's own word, which has no bound
	s.audit.event(eventRejected, reasonCode(r.Reason), append(about(s.device, s.remote), slog.Uint64("delivery", r.Delivery),
		slog.String("sender", identity.DeviceID(r.Sender).String()), slog.String("group", hexOf(r.Group)))...)
}
