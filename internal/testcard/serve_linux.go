// SPDX-License-Identifier: Apache-2.0

package testcard

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// Messages of vpcd, the virtual reader driver of pcscd. Every message in both
// directions is a length of two bytes, big-endian, and a body. A body of one
// byte from vpcd is a control message; everything longer is a command APDU.
const (
	vpcdPowerOff = 0
	vpcdPowerOn  = 1
	vpcdReset    = 2
	vpcdATR      = 4
)

// Serve runs the card in a vpcd reader until the connection ends or ctx is
// cancelled, which is how the card is pulled. The card loses power then.
func Serve(ctx context.Context, conn *net.TCPConn, card *Card) error {
	defer card.PowerOff()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	for {
		body, err := readMessage(conn, raw)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("testcard: reader: %w", err)
		}
		reply, ok := card.message(body)
		if !ok {
			continue
		}
		if _, err := conn.Write(frame(reply)); err != nil && ctx.Err() == nil {
			return fmt.Errorf("testcard: reader: %w", err)
		}
	}
}

// quickAck acknowledges the next segment at once. The kernel forgets it after
// a while, so it is set before every read: vpcd writes length and body apart,
// and Nagle's algorithm would hold the body back until the length is
// acknowledged, 40 ms a command.
func quickAck(raw interface{ Control(func(uintptr)) error }) error {
	var set error
	err := raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
	})
	return errors.Join(err, set)
}

func readMessage(r io.Reader, raw interface{ Control(func(uintptr)) error }) ([]byte, error) {
	var head [2]byte
	if err := quickAck(raw); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	if err := quickAck(raw); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint16(head[:])) // at most 64 KiB
	_, err := io.ReadFull(r, body)
	return body, err
}

func frame(body []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(body))), body...)
}

// message handles one message of vpcd; ok says that a reply is due.
func (c *Card) message(body []byte) (reply []byte, ok bool) {
	if len(body) != 1 {
		return c.Transmit(body), true
	}
	switch body[0] {
	case vpcdPowerOff:
		c.PowerOff()
	case vpcdPowerOn, vpcdReset:
		c.PowerOn()
	case vpcdATR:
		return c.ATR(), true
	}
	return nil, false
}
