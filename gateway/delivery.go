// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"valise/gateway/mailbox"
	"valise/transport"
	"valise/wire"
)

// delivery runs a device's delivery stream: deliveries down, acknowledgements
// up. What is sent and not acknowledged stays within wire.DeliveryWindow.
type delivery struct {
	s      *session
	stream transport.Stream
	mail   *mailbox.Subscription
	moved  chan struct{} // acknowledgements arrived
	before uint64        // the last number that was stored before Resume
	second second        // run's
	ahead  *ahead        // run's; nil: the device does not know of it
	last   wire.Last     // run's; the last delivery written
	kept   bool          // run's; what was to be withheld was there no more

	mu     sync.Mutex
	runs   bool   // guarded by mu; run does its work
	over   bool   // guarded by mu; and never does again
	sent   uint64 // guarded by mu; the last number sent
	acked  uint64 // guarded by mu; the last number acknowledged
	sizes  []sent // guarded by mu; deliveries above acked up to sent, in order
	flight int    // guarded by mu; the sum of their payloads

	turn    func() // guarded by mu; gives back the turn of stored mail; nil: there is none
	turnEnd uint64 // guarded by mu; the last number of that turn

	drained bool // guarded by mu; the device knows that it has what was stored before Resume
}

// sent is a delivery on its way. Numbers may have gaps: see mailbox.Expired.
type sent struct {
	number uint64
	size   int
}

// serveDelivery reads Resume and delivers until the connection ends. Mail goes
// to the current incarnation only: acknowledgements of an older copy of the
// device's state would delete what the present one has not seen.
func (s *session) serveDelivery(stream transport.Stream) {
	in := s.framesOf(stream)
	frame, err := in.small()
	if err != nil {
		s.broken(err)
		return
	}
	resume, ok := frame.(*wire.Resume)
	switch {
	case !ok:
		s.close(wire.CloseProtocol, "no_resume")
		return
	case !s.current:
		s.refuse(eventRefusedRequest, wire.OldIncarnation.String())
		cancelStream(stream)
		return
	}
	mail, last, err := s.g.box.Subscribe(s.conn.Context(), s.device.ID)
	if err != nil {
		s.unavailable("a mailbox could not be read", err)
		return
	}
	if resume.Cursor > last {
		mail.Close()
		s.close(wire.CloseProtocol, "cursor_ahead")
		return
	}
	d := &delivery{s: s, stream: stream, moved: make(chan struct{}, 1), before: last, mail: mail}
	if !s.down.CompareAndSwap(nil, d) {
		mail.Close()
		s.close(wire.CloseProtocol, "second_delivery_stream")
		return
	}
	// What the device has persisted is as good as acknowledged.
	start := max(resume.Cursor, s.standing.Acknowledged)
	d.sent, d.acked = start, start
	d.ahead = newAhead(resume)
	s.g.box.AckSeat(s.seat(), start)
	s.streams.Go(func() { // with a stack of its own, as that of requests
		d.readAcks(in)
		d.end()
	})
	mail.OnWake(d.start)
	d.start()
	s.g.duties.nudge() // somebody may be waited for
}

// seat names the connection among those that the device has had.
func (s *session) seat() mailbox.Seat {
	return mailbox.Seat{Device: s.device.ID, Turn: s.standing.Turn}
}

// start has somebody look for what is to be sent, unless somebody does already or the
// connection has ended. Whoever has put something where run looks calls it then, so
// that an idle connection has no goroutine that waits.
func (d *delivery) start() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.runs || d.over {
		return
	}
	d.runs = true
	d.s.streams.Go(func() { // whoever reads acknowledgements runs until over is set
		if d.run() {
			return // rest has ended it, and another one may run already
		}
		d.mu.Lock()
		d.runs, d.over = false, true
		d.mu.Unlock()
		d.endTurn()
	})
}

// tell has somebody write to the device what waits for it, if it listens.
func (s *session) tell() {
	if d := s.down.Load(); d != nil {
		d.start()
	}
}

// end is for a connection that has ended.
func (d *delivery) end() {
	d.mu.Lock()
	d.over = true
	d.mu.Unlock()
	d.mail.Close()
	d.endTurn()
}

// rest ends run, unless something has come that would have to wait then.
func (d *delivery) rest() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.mail.Wake())+len(d.moved)+len(d.s.notices)+len(d.s.changed)+len(d.s.leases) > 0 {
		return false
	}
	d.runs = false
	return true
}

// run sends what the mailbox holds, and for as long as there is traffic what arrives.
// It returns false when the stream or the connection is of no use any more.
func (d *delivery) run() bool {
	ended := d.s.conn.Context().Done()
	idle := time.NewTimer(0)
	defer idle.Stop()
	busy := false // since idle was set
	for {
		n, err := d.push()
		if err != nil {
			return false
		}
		if n > 0 {
			busy = true
			continue
		}
		if d.mu.Lock(); !d.drained && d.sent >= d.before {
			d.drained = true
			d.mu.Unlock()
			if wire.Write(d.stream, &wire.Notice{Code: wire.NoticeDrained}) != nil {
				return false
			}
			continue
		}
		d.mu.Unlock()
		select {
		case <-d.mail.Wake():
		case <-d.moved:
		case code := <-d.s.notices:
			if wire.Write(d.stream, &wire.Notice{Code: code}) != nil {
				return false
			}
		case <-d.s.changed:
			if wire.Write(d.stream, &wire.Notice{Code: wire.NoticeBundle}) != nil {
				return false
			}
		case lease := <-d.s.leases:
			if wire.Write(d.stream, lease) != nil {
				return false
			}
		case <-idle.C:
			switch {
			case busy:
				busy = false
				idle.Reset(lingering)
			case d.rest():
				return true
			default:
				idle.Reset(0)
			}
		case <-ended:
			return false
		}
	}
}

// push sends as much as the window allows and returns how many deliveries were dealt
// with.
func (d *delivery) push() (int, error) {
	after, count, bytes := d.window()
	if count == 0 {
		return 0, d.onlyAhead(after)
	}
	if err := d.s.stillAdmitted(); err != nil {
		return 0, err
	}
	entries, stored := d.mail.Recent(after, count, bytes)
	if stored {
		ctx := d.s.conn.Context()
		if !d.takeTurn(ctx) {
			return 0, ctx.Err()
		}
		into := drainBuffers.Get().(*[]byte)
		defer drainBuffers.Put(into)
		var err error
		if entries, err = d.mail.Next(ctx, after, count, bytes, *into); err != nil {
			d.s.unavailable("a mailbox could not be read", err)
			return 0, err
		}
	}
	if why := d.forbidden(entries, stored); why != nil {
		return d.withhold(why)
	}
	if len(entries) == 0 {
		d.second = second{} // an idle connection must stay small
	}
	if err := d.write(entries); err != nil {
		return 0, err
	}
	if len(entries) > 0 {
		d.s.g.metrics.delivered(entries, d.s.g.now())
	}
	if stored {
		d.keepTurn()
	}
	return len(entries), nil
}

// drainBuffers are for stored mail on its way into a delivery buffer.
var drainBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, drainBuffer)
	return &b
}}

// takeTurn waits for a turn to bring stored mail into memory.
func (d *delivery) takeTurn(ctx context.Context) bool {
	d.endTurn()
	giveBack, ok := d.s.g.turns.take(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turn, d.turnEnd = giveBack, math.MaxUint64
	return ok
}

// keepTurn keeps the turn until the device has what was sent: QUIC holds it so long.
func (d *delivery) keepTurn() {
	d.mu.Lock()
	d.turnEnd = d.sent
	over := d.acked >= d.turnEnd
	d.mu.Unlock()
	if over {
		d.endTurn()
	}
}

// endTurn gives the turn back, if there is one.
func (d *delivery) endTurn() {
	d.mu.Lock()
	giveBack := d.turn
	d.turn = nil
	d.mu.Unlock()
	if giveBack != nil {
		giveBack()
	}
}

// deliveryBuffers are for deliveries on their way into the stream, which copies
// them: between writes a connection holds none.
var deliveryBuffers = sync.Pool{New: func() any { return new([]byte) }}

// write sends deliveries, many in one call.
func (d *delivery) write(entries []mailbox.Entry) error {
	kept := deliveryBuffers.Get().(*[]byte)
	buffer := (*kept)[:0]
	defer func() {
		if cap(buffer) <= 2*coalesce {
			*kept = buffer
			deliveryBuffers.Put(kept)
		}
	}()
	var deliver wire.Deliver
	for i := range entries {
		e := &entries[i]
		var err error
		if len(buffer) == 0 {
			if buffer, err = d.goAhead(buffer, endOfWrite(entries[i:])); err != nil {
				return err
			}
		}
		deliver = delivered(e, wire.DeliveryKind(e.Kind))
		at := len(buffer)
		if buffer, err = wire.Append(buffer, &deliver); err != nil {
			d.s.unavailable("a stored message cannot be delivered", err)
			return err
		}
		buffer = d.last.Shorten(buffer, at)
		d.note(e.Number, len(e.Payload))
		if len(buffer) >= coalesce || i == len(entries)-1 {
			if _, err := d.stream.Write(buffer); err != nil {
				return err
			}
			buffer = buffer[:0]
		}
	}
	return nil
}

func delivered(e *mailbox.Entry, kind wire.DeliveryKind) wire.Deliver {
	return wire.Deliver{
		Number: e.Number, Kind: kind, Group: e.Group, Epoch: e.Epoch,
		Sender: e.Sender, Time: uint64(e.Time), Payload: e.Payload,
	}
}

// window says from where and how much may be sent now. One delivery always
// may when nothing is in flight, however large it is.
func (d *delivery) window() (after uint64, count, bytes int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	count = wire.DeliveryWindow - len(d.sizes)
	bytes = min(wire.DeliveryWindowBytes-d.flight, readBytes)
	if bytes <= 0 {
		count = 0
	}
	return d.sent, min(count, readCount), bytes
}

func (d *delivery) note(number uint64, size int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sent = number
	d.sizes = append(d.sizes, sent{number, size})
	d.flight += size
}

// readAcks takes acknowledgements, which are cumulative.
func (d *delivery) readAcks(in *frames) {
	for {
		frame, err := in.small()
		if err != nil {
			d.s.broken(err)
			return
		}
		ack, ok := frame.(*wire.Ack)
		if !ok {
			d.s.close(wire.CloseProtocol, "unexpected_frame")
			return
		}
		if !d.acknowledge(ack.Number) {
			d.s.close(wire.CloseProtocol, "ack_of_undelivered")
			return
		}
		if d.turnOver() {
			d.endTurn()
		}
		d.s.g.box.AckSeat(d.s.seat(), ack.Number)
		select {
		case d.moved <- struct{}{}:
		default:
		}
		d.start()
	}
}

func (d *delivery) turnOver() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.turn != nil && d.acked >= d.turnEnd
}

// acknowledge moves the window; false if the number was never sent.
func (d *delivery) acknowledge(number uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if number > d.sent {
		return false
	}
	d.acked = max(d.acked, number)
	n := 0
	for n < len(d.sizes) && d.sizes[n].number <= d.acked {
		d.flight -= d.sizes[n].size
		n++
	}
	d.sizes = slices.Delete(d.sizes, 0, n)
	return true
}
