// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// mqttLoad speaks MQTT 3.1.1 (OASIS standard of 2014): QoS 1, and sessions that
// survive their connection.
type mqttLoad struct {
	address string
	mail    mail
}

func newMQTTLoad(l *load) (*mqttLoad, error) {
	mail, err := newMail(l.Dir)
	return &mqttLoad{address: l.Address, mail: mail}, err
}

// Control packets, MQTT 3.1.1, Section 2.2.1.
const (
	mqttConnect   = 1 << 4
	mqttConnack   = 2 << 4
	mqttPublish   = 3 << 4
	mqttPuback    = 4 << 4
	mqttSubscribe = 8<<4 | 2
	mqttSuback    = 9 << 4
)

type mqttConn struct {
	net.Conn
	in   *bufio.Reader
	out  []byte
	body []byte
}

func (m *mqttLoad) dial() (*mqttConn, error) {
	c, err := net.Dial("tcp", m.address)
	if err != nil {
		return nil, err
	}
	return &mqttConn{Conn: c, in: bufio.NewReaderSize(c, 64<<10)}, nil
}

// packet appends type and remaining length (Section 2.2.3).
func mqttHead(b []byte, kind byte, size int) []byte {
	b = append(b, kind)
	for size >= 0x80 {
		b = append(b, byte(size)|0x80)
		size >>= 7
	}
	return append(b, byte(size))
}

func mqttText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// connect says CONNECT and waits for CONNACK.
func (c *mqttConn) connect(name string, clean bool) error {
	body := mqttText(nil, "MQTT")
	flags := byte(0)
	if clean {
		flags = 2
	}
	body = mqttText(append(body, 4, flags, 0, 120), name)
	return c.ask(mqttConnect, body, mqttConnack)
}

func (c *mqttConn) ask(kind byte, body []byte, want byte) error {
	if _, err := c.Write(append(mqttHead(nil, kind, len(body)), body...)); err != nil {
		return err
	}
	got, answer, err := c.next()
	if err != nil {
		return err
	}
	if got != want || answer[len(answer)-1] > 2 {
		return fmt.Errorf("MQTT packet %#x %x, want %#x", got, answer, want)
	}
	return nil
}

// next reads one packet; its body is valid until the next one.
func (c *mqttConn) next() (byte, []byte, error) {
	kind, err := c.in.ReadByte()
	if err != nil {
		return 0, nil, err
	}
	size := 0
	for shift := 0; ; shift += 7 {
		b, err := c.in.ReadByte()
		if err != nil {
			return 0, nil, err
		}
		size |= int(b&0x7f) << shift
		if b < 0x80 {
			break
		}
		if shift == 21 {
			return 0, nil, errors.New("MQTT packet without end")
		}
	}
	if cap(c.body) < size {
		c.body = make([]byte, size)
	}
	c.body = c.body[:size]
	_, err = io.ReadFull(c.in, c.body)
	return kind, c.body, err
}

func topic(box int) string { return fmt.Sprintf("mail/%d", box) }

// mailbox makes a session with a subscription, and leaves.
func (m *mqttLoad) mailbox(box int) error {
	c, err := m.dial()
	if err != nil {
		return err
	}
	if err := c.connect(fmt.Sprintf("owner%d", box), false); err != nil {
		return err
	}
	body := append(mqttText([]byte{0, 1}, topic(box)), 1)
	if err := c.ask(mqttSubscribe, body, mqttSuback); err != nil {
		return err
	}
	if _, err := c.Write([]byte{14 << 4, 0}); err != nil { // DISCONNECT
		return err
	}
	return c.Close()
}

type mqttSender struct {
	*mqttConn
	topics []string
	mail   mail
}

func (m *mqttLoad) sender(id int, boxes []int) (sender, error) {
	c, err := m.dial()
	if err != nil {
		return nil, err
	}
	s := &mqttSender{mqttConn: c, mail: m.mail}
	for _, box := range boxes {
		s.topics = append(s.topics, topic(box))
	}
	return s, c.connect(fmt.Sprintf("sender%d", id), true)
}

func (s *mqttSender) add(b []byte, n int) []byte {
	t := s.topics[n%len(s.topics)]
	b = mqttHead(b, mqttPublish|1<<1, 2+len(t)+2+s.mail.size)
	b = binary.BigEndian.AppendUint16(mqttText(b, t), uint16(n%0xffff+1))
	return s.mail.add(b, n, len(s.topics))
}

func (s *mqttSender) write(b []byte) error {
	_, err := s.Write(b)
	return err
}

func (s *mqttSender) acked() (int, error) {
	for n := 0; ; {
		kind, body, err := s.next()
		if err != nil {
			return n, err
		}
		if kind != mqttPuback || len(body) != 2 {
			return n, fmt.Errorf("MQTT packet %#x, want PUBACK", kind)
		}
		if n++; s.in.Buffered() < 4 {
			return n, nil
		}
	}
}

type mqttReceiver struct {
	*mqttConn
	box int
	order
}

func (m *mqttLoad) receiver(box int) (receiver, error) {
	c, err := m.dial()
	return &mqttReceiver{mqttConn: c, box: box, order: order{size: m.mail.size}}, err
}

// open takes up the session: what it holds comes at once.
func (r *mqttReceiver) open() error { return r.connect(fmt.Sprintf("owner%d", r.box), false) }

func (r *mqttReceiver) received() (int, error) {
	r.out = r.out[:0]
	for n := 0; ; {
		kind, body, err := r.next()
		if err != nil {
			return n, err
		}
		skip := 2 + int(binary.BigEndian.Uint16(body))
		if kind&0xf0 != mqttPublish || len(body) < skip+2 {
			return n, fmt.Errorf("MQTT packet %#x, want PUBLISH", kind)
		}
		if err := r.take(body[skip+2:]); err != nil {
			return n, err
		}
		r.out = append(r.out, mqttPuback, 2, body[skip], body[skip+1])
		if n++; r.in.Buffered() < r.size+skip+5 {
			_, err := r.Write(r.out)
			return n, err
		}
	}
}

// idle is a connection without TLS: the server has its own row in the facts.
func (m *mqttLoad) idle(id int) (io.Closer, error) {
	c, err := m.dial()
	if err != nil {
		return nil, err
	}
	return c, c.connect(fmt.Sprintf("idle%d", id), true)
}

func (*mqttLoad) enroll(int) error { return nil }
