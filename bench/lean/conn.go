// SPDX-License-Identifier: Apache-2.0

package lean

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/quic-go/quic-go"

	"valise/wire"
)

// A Conn is a connection that the gateway has welcomed.
type Conn struct {
	device  *Device
	conn    *quic.Conn
	control *quic.Stream
	answers *bufio.Reader
	down    *quic.Stream
	mail    *bufio.Reader
	ack     []byte
	said    wire.Last         // the last message written
	kind    wire.DeliveryKind // of the last delivery
}

// Connect dials, says Hello and waits for Welcome.
func (d *Device) Connect(ctx context.Context, address string) (*Conn, error) {
	conn, err := d.Dial(ctx, address, wire.Protocol)
	if err != nil {
		return nil, err
	}
	c := &Conn{device: d, conn: conn}
	if c.control, err = c.open(ctx, wire.StreamControl, &wire.Hello{
		Version: wire.Version, Incarnation: d.incarnation, Begin: !d.known, Counter: d.counter, Cursor: d.cursor, Agent: "bench",
	}); err != nil {
		c.Close()
		return nil, err
	}
	c.answers = bufio.NewReaderSize(c.control, 16<<10)
	frame, err := wire.Read(c.answers)
	if _, ok := frame.(*wire.Welcome); err != nil || !ok {
		c.Close()
		return nil, fmt.Errorf("no welcome: %T, %w", frame, err)
	}
	d.known = true
	return c, nil
}

func (c *Conn) open(ctx context.Context, kind wire.StreamKind, first wire.Frame) (*quic.Stream, error) {
	stream, err := c.conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	frame, err := wire.Marshal(first)
	if err != nil {
		return nil, err
	}
	_, err = stream.Write(append([]byte{byte(kind)}, frame...))
	return stream, err
}

// Close ends the connection.
func (c *Conn) Close() error { return c.conn.CloseWithError(0, "") }

// submit sends a submission and waits until it is done.
func (c *Conn) submit(_ context.Context, s wire.Submission) error {
	b, err := c.Append(nil, s)
	if err != nil {
		return err
	}
	if err := c.Write(b); err != nil {
		return err
	}
	_, err = c.Answers()
	return err
}

// Append numbers a submission and adds its frame to b.
func (c *Conn) Append(b []byte, s wire.Submission) ([]byte, error) {
	c.device.counter++
	s.SetRequestID(uint32(c.device.counter))
	s.SetSubmissionCounter(c.device.counter)
	at := len(b)
	b, err := wire.Append(b, s)
	if err != nil {
		return b, err
	}
	return c.said.Shorten(b, at), nil
}

// numbers is where id and counter stand in the frame of a submission.
const numbers = 4

// AppendSealed numbers the frame of a message that was encoded before, and adds it
// to b.
func (c *Conn) AppendSealed(b, frame []byte) []byte {
	c.device.counter++
	at := len(b) + numbers
	b = append(b, frame...)
	binary.BigEndian.PutUint32(b[at:], uint32(c.device.counter))
	binary.BigEndian.PutUint64(b[at+4:], c.device.counter)
	return c.said.Shorten(b, at-numbers)
}

// Frame encodes a message for AppendSealed.
func Frame(s *wire.Send) ([]byte, error) {
	s.SetSubmissionCounter(1)
	return wire.Marshal(s)
}

// Write sends frames.
func (c *Conn) Write(b []byte) error {
	_, err := c.control.Write(b)
	return err
}

// A Result as it is encoded when all is well: type, length, id, code 0, no detail.
const resultSize = 4 + 4 + 2 + 1

// Answers waits for answers and returns how many came; one that is not OK is an
// error.
func (c *Conn) Answers() (int, error) {
	for n := 0; ; {
		head, err := c.answers.Peek(4)
		if err != nil {
			return n, err
		}
		if wire.Type(head[0]) != wire.TypeResult || head[3] != resultSize-4 {
			frame, err := wire.Read(c.answers)
			return n, fmt.Errorf("refused: %+v %w", frame, err)
		}
		frame, err := c.answers.Peek(resultSize)
		if err != nil {
			return n, err
		}
		if code := wire.Code(binary.BigEndian.Uint16(frame[8:])); code != wire.OK {
			return n, fmt.Errorf("refused: %v", code)
		}
		_, _ = c.answers.Discard(resultSize)
		if n++; c.answers.Buffered() < resultSize {
			return n, nil
		}
	}
}

// Listen begins the delivery of mail.
func (c *Conn) Listen(ctx context.Context) (err error) {
	c.down, err = c.open(ctx, wire.StreamDelivery, &wire.Resume{Cursor: c.device.cursor})
	if err == nil {
		c.mail = bufio.NewReaderSize(c.down, 64<<10)
	}
	return err
}

// Receive waits for mail and takes all that is there. It returns how many of it
// were messages, and acknowledges them all at once.
func (c *Conn) Receive() (messages int, err error) {
	taken := false
	for {
		kind, size, err := c.next()
		if err != nil {
			return messages, err
		}
		if kind == wire.TypeDeliver || kind == wire.TypeDeliverNext && c.kind != 0 {
			taken = true
			body, err := c.mail.Peek(9)
			if err != nil {
				return messages, err
			}
			if kind == wire.TypeDeliver { // the short form has the kind of the one before
				c.kind = wire.DeliveryKind(body[8])
			}
			number := binary.BigEndian.Uint64(body)
			if number != c.device.cursor+1 {
				return messages, fmt.Errorf("delivery %d after %d", number, c.device.cursor)
			}
			c.device.cursor = number
			if c.kind == wire.DeliverContent {
				messages++
			}
		} else if kind != wire.TypeNotice {
			return messages, fmt.Errorf("frame %#x on the delivery stream", kind)
		}
		if _, err := c.mail.Discard(size); err != nil {
			return messages, err
		}
		if !taken || c.more() {
			continue
		}
		return messages, c.acknowledge()
	}
}

func (c *Conn) next() (wire.Type, int, error) {
	var head [4]byte
	if _, err := io.ReadFull(c.mail, head[:]); err != nil {
		return 0, 0, err
	}
	size := int(binary.BigEndian.Uint32(head[:]) & 0xffffff)
	if size > wire.MaxFrame {
		return 0, 0, errors.New("a frame is too large")
	}
	return wire.Type(head[0]), size, nil
}

// more tells whether another whole frame is there.
func (c *Conn) more() bool {
	n := c.mail.Buffered()
	if n < 4 {
		return false
	}
	head, err := c.mail.Peek(4)
	return err == nil && n-4 >= int(binary.BigEndian.Uint32(head)&0xffffff)
}

func (c *Conn) acknowledge() error {
	c.ack = append(c.ack[:0], byte(wire.TypeAck), 0, 0, 8)
	c.ack = binary.BigEndian.AppendUint64(c.ack, c.device.cursor)
	_, err := c.down.Write(c.ack)
	return err
}
