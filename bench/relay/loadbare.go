// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/quic-go/quic-go"

	"valise/bench/lean"
)

// bareLoad speaks to the bare relay, with the same certificates, handshakes and
// settings of QUIC as our own devices.
type bareLoad struct {
	address   string
	authority *lean.Authority
	mail      mail

	mu     sync.Mutex
	idlers map[int]*lean.Device // guarded by mu
}

func newBareLoad(l *load) (*bareLoad, error) {
	authority, err := lean.Load(l.Dir, domain)
	if err != nil {
		return nil, err
	}
	mail, err := newMail(l.Dir)
	return &bareLoad{address: l.Address, authority: authority, mail: mail, idlers: make(map[int]*lean.Device)}, err
}

type bareConn struct {
	conn   *quic.Conn
	stream *quic.Stream
	in     *bufio.Reader
	out    []byte
	body   []byte
}

func (v *bareLoad) dial(name string, box int) (*bareConn, error) {
	device, err := v.authority.NewDevice(name)
	if err != nil {
		return nil, err
	}
	return v.dialAs(device, box)
}

// dialAs connects and waits until the relay has answered.
func (v *bareLoad) dialAs(device *lean.Device, box int) (*bareConn, error) {
	ctx, cancel := within()
	defer cancel()
	c := new(bareConn)
	var err error
	if c.conn, err = device.Dial(ctx, v.address, bareProtocol); err != nil {
		return nil, err
	}
	if c.stream, err = c.conn.OpenStreamSync(ctx); err != nil {
		return nil, err
	}
	c.in = bufio.NewReaderSize(c.stream, 64<<10)
	if err := c.write(binary.BigEndian.AppendUint32(appendBare(nil, bareHello, 4), uint32(box))); err != nil {
		return nil, err
	}
	if kind, err := readBare(c.in, &c.body); err != nil || kind != bareDone {
		return nil, fmt.Errorf("no answer: frame %d, %w", kind, err)
	}
	return c, nil
}

func (c *bareConn) write(b []byte) error {
	_, err := c.stream.Write(b)
	return err
}

func (c *bareConn) Close() error { return c.conn.CloseWithError(0, "") }

func (v *bareLoad) mailbox(int) error { return nil }

type bareSender struct {
	*bareConn
	boxes []int
	mail  mail
}

// noBox is the box of somebody who has none.
const noBox = 1 << 30

func (v *bareLoad) sender(id int, boxes []int) (sender, error) {
	c, err := v.dial(fmt.Sprintf("sender%d", id), noBox)
	return &bareSender{bareConn: c, boxes: boxes, mail: v.mail}, err
}

func (s *bareSender) add(b []byte, n int) []byte {
	b = appendBare(b, bareSend, 4+s.mail.size)
	b = binary.BigEndian.AppendUint32(b, uint32(s.boxes[n%len(s.boxes)]))
	return s.mail.add(b, n, len(s.boxes))
}

func (s *bareSender) acked() (int, error) {
	for n := 0; ; {
		kind, err := readBare(s.in, &s.body)
		if err != nil {
			return n, err
		}
		if kind != bareDone || len(s.body) != 4 {
			return n, fmt.Errorf("frame %d", kind)
		}
		if n += int(binary.BigEndian.Uint32(s.body)); s.in.Buffered() < bareHead {
			return n, nil
		}
	}
}

type bareReceiver struct {
	*bareConn
	order
}

func (v *bareLoad) receiver(box int) (receiver, error) {
	c, err := v.dial(fmt.Sprintf("owner%d", box), box)
	return &bareReceiver{bareConn: c, order: order{size: v.mail.size}}, err
}

func (r *bareReceiver) open() error { return r.write(appendBare(nil, bareOpen, 0)) }

func (r *bareReceiver) received() (int, error) {
	for n := 0; ; {
		kind, err := readBare(r.in, &r.body)
		if err != nil {
			return n, err
		}
		if kind != bareMail || len(r.body) < 8 {
			return n, fmt.Errorf("frame %d", kind)
		}
		number := binary.BigEndian.Uint64(r.body)
		if err := r.take(r.body[8:]); err != nil {
			return n, err
		}
		if n++; r.in.Buffered() < bareHead+8+r.size {
			r.out = binary.BigEndian.AppendUint64(appendBare(r.out[:0], bareSeen, 8), number)
			return n, r.write(r.out)
		}
	}
}

func (v *bareLoad) enroll(id int) error {
	device, err := v.authority.NewDevice(fmt.Sprintf("idle%d", id))
	v.mu.Lock()
	defer v.mu.Unlock()
	v.idlers[id] = device
	return err
}

func (v *bareLoad) idle(id int) (io.Closer, error) {
	v.mu.Lock()
	device := v.idlers[id]
	v.mu.Unlock()
	c, err := v.dialAs(device, id)
	if err != nil {
		return nil, err
	}
	return c, c.write(appendBare(nil, bareOpen, 0))
}
