// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// DefaultPath is Linux's resource manager, through which many programs share the
// TPM.
const DefaultPath = "/dev/tpmrm0"

// dial opens the device, or the socket of a TPM in software.
func dial(path string) (transport.TPMCloser, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrNoTPM, err)
	}
	switch {
	case info.Mode()&os.ModeSocket != 0:
		return socket(path), nil
	case info.Mode()&os.ModeCharDevice != 0:
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return nil, fmt.Errorf("%w (%w)", ErrNoTPM, err)
		}
		return transport.FromReadWriteCloser(f), nil
	}
	return nil, fmt.Errorf("%w: %s is neither a device nor a socket", ErrNoTPM, path)
}

// A socket is where swtpm serves: it takes one connection at a time, so each
// command has its own and others get their turn in between.
type socket string

func (s socket) Close() error { return nil }

// Send sends one command and returns the response. A TPM that is busy, with its
// self-test say, is asked again.
func (s socket) Send(command []byte) ([]byte, error) {
	for pause := time.Millisecond; ; pause *= 2 {
		response, err := s.once(command)
		if err != nil || tpm2.TPMRC(binary.BigEndian.Uint32(response[6:])) != tpm2.TPMRCRetry || pause > time.Second {
			return response, err
		}
		time.Sleep(pause)
	}
}

// once sends a command once (TPM 2.0 Part 1, Section 18). A response is uint16 tag,
// uint32 size of all, uint32 code, and the rest.
func (s socket) once(command []byte) ([]byte, error) {
	var d net.Dialer
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := d.DialContext(ctx, "unix", string(s))
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrNoTPM, err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if _, err := conn.Write(command); err != nil {
		return nil, err
	}
	response := make([]byte, 10, maxResponse)
	if _, err := io.ReadFull(conn, response); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(response[2:])
	if size < 10 || size > maxResponse {
		return nil, fmt.Errorf("tpm: a response of %d bytes", size)
	}
	response = response[:size]
	_, err = io.ReadFull(conn, response[10:])
	return response, err
}
