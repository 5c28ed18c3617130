// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
)

// natsLoad speaks the NATS client protocol and JetStream's API over it: one
// stream on file, a durable consumer with explicit acknowledgements for each
// mailbox. Messages are published with a reply subject, and acknowledged by the
// server when the stream has them.
type natsLoad struct {
	address   string
	retention string
	mail      mail
	once      sync.Once
	made      error
}

// newNATSLoad takes for each workload the kind of stream that does better there: a
// work queue removes what is acknowledged, which makes drains twice as fast and
// relaying, with a sync for each removal, four times slower.
func newNATSLoad(l *load) (*natsLoad, error) {
	mail, err := newMail(l.Dir)
	m := &natsLoad{address: l.Address, retention: "limits", mail: mail}
	if l.Work == "offline" {
		m.retention = "workqueue"
	}
	return m, err
}

const natsStream = "MAIL"

type natsConn struct {
	net.Conn
	in   *bufio.Reader
	body []byte
	out  []byte
}

func (m *natsLoad) dial() (*natsConn, error) {
	conn, err := net.Dial("tcp", m.address)
	if err != nil {
		return nil, err
	}
	c := &natsConn{Conn: conn, in: bufio.NewReaderSize(conn, 64<<10)}
	if _, err := c.in.ReadSlice('\n'); err != nil { // INFO
		return nil, err
	}
	_, err = c.Write([]byte("CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"bench\",\"version\":\"1\",\"protocol\":1}\r\nPING\r\n"))
	if err != nil {
		return nil, err
	}
	line, err := c.in.ReadSlice('\n')
	if err == nil && string(line) != "PONG\r\n" {
		err = fmt.Errorf("NATS: %q, want PONG", line)
	}
	return c, err
}

// next reads the next message; subject, reply and payload are valid until the one
// after it.
func (c *natsConn) next() (reply, payload []byte, err error) {
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return nil, nil, err
		}
		switch {
		case bytes.HasPrefix(line, []byte("MSG ")):
			fields := bytes.Fields(line[4:]) // subject sid [reply] size
			size, err := strconv.Atoi(string(fields[len(fields)-1]))
			if err != nil || len(fields) < 3 || size > 1<<20 {
				return nil, nil, fmt.Errorf("NATS: %q", line)
			}
			if len(fields) == 4 {
				reply = append(c.body[:0], fields[2]...)
			}
			at := len(reply)
			c.body = append(append(c.body[:0], reply...), make([]byte, size+2)...)
			_, err = io.ReadFull(c.in, c.body[at:])
			return c.body[:at], c.body[at : at+size], err
		case bytes.HasPrefix(line, []byte("PING")):
			if _, err := c.Write([]byte("PONG\r\n")); err != nil {
				return nil, nil, err
			}
		case bytes.HasPrefix(line, []byte("-ERR")):
			return nil, nil, fmt.Errorf("NATS: %q", line)
		}
	}
}

// ask sends one request to JetStream's API.
func (m *natsLoad) ask(subject, body string) error {
	c, err := m.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = fmt.Fprintf(c, "SUB answer 1\r\nPUB $JS.API.%s answer %d\r\n%s\r\n", subject, len(body), body)
	if err != nil {
		return err
	}
	_, payload, err := c.next()
	if err == nil && bytes.Contains(payload, []byte(`"error"`)) && !bytes.Contains(payload, []byte("already in use")) {
		err = fmt.Errorf("JetStream: %s: %s", subject, payload)
	}
	return err
}

// mailbox makes a durable consumer that pushes to a subject of its own once
// somebody subscribes there.
func (m *natsLoad) mailbox(box int) error {
	m.once.Do(func() {
		m.made = m.ask("STREAM.CREATE."+natsStream, `{"name":"`+natsStream+`","subjects":["mail.>"],"storage":"file","retention":"`+m.retention+`","num_replicas":1,"max_msgs":-1,"max_bytes":-1}`)
	})
	if m.made != nil {
		return m.made
	}
	return m.ask(fmt.Sprintf("CONSUMER.DURABLE.CREATE.%s.box%d", natsStream, box), fmt.Sprintf(
		`{"stream_name":"%s","config":{"durable_name":"box%d","deliver_subject":"push.%d","filter_subject":"mail.%d","ack_policy":"explicit","deliver_policy":"all","max_ack_pending":1024,"replay_policy":"instant"}}`,
		natsStream, box, box, box))
}

type natsSender struct {
	*natsConn
	subjects []string
	mail     mail
}

func (m *natsLoad) sender(id int, boxes []int) (sender, error) {
	c, err := m.dial()
	if err != nil {
		return nil, err
	}
	s := &natsSender{natsConn: c, mail: m.mail}
	for _, box := range boxes {
		s.subjects = append(s.subjects, fmt.Sprintf("PUB mail.%d acks.%d %d\r\n", box, id, m.mail.size))
	}
	_, err = fmt.Fprintf(c, "SUB acks.%d 1\r\n", id)
	return s, err
}

func (s *natsSender) add(b []byte, n int) []byte {
	b = append(b, s.subjects[n%len(s.subjects)]...)
	return append(s.mail.add(b, n, len(s.subjects)), '\r', '\n')
}

func (s *natsSender) write(b []byte) error {
	_, err := s.Write(b)
	return err
}

func (s *natsSender) acked() (int, error) {
	for n := 0; ; {
		_, payload, err := s.next()
		if err != nil {
			return n, err
		}
		if !bytes.Contains(payload, []byte(`"seq"`)) {
			return n, errors.New("JetStream: " + string(payload))
		}
		// An acknowledgement takes some 60 bytes.
		if n++; s.in.Buffered() < 50 {
			return n, nil
		}
	}
}

type natsReceiver struct {
	*natsConn
	box int
	order
}

func (m *natsLoad) receiver(box int) (receiver, error) {
	c, err := m.dial()
	return &natsReceiver{natsConn: c, box: box, order: order{size: m.mail.size}}, err
}

func (r *natsReceiver) open() error {
	_, err := fmt.Fprintf(r, "SUB push.%d 1\r\n", r.box)
	return err
}

func (r *natsReceiver) received() (int, error) {
	r.out = r.out[:0]
	for n := 0; ; {
		reply, payload, err := r.next()
		if err != nil {
			return n, err
		}
		if err := r.take(payload); err != nil {
			return n, err
		}
		r.out = append(append(append(r.out, "PUB "...), reply...), " 0\r\n\r\n"...)
		if n++; r.in.Buffered() < r.size+100 {
			_, err := r.Write(r.out)
			return n, err
		}
	}
}

// idle is a connection without TLS: the server has its own row in the facts.
func (m *natsLoad) idle(int) (io.Closer, error) { return m.dial() }

func (*natsLoad) enroll(int) error { return nil }
