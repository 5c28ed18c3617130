// SPDX-License-Identifier: Apache-2.0

//go:build linux

package reader

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"
)

// A Request is one command on the control socket: one JSON object, answered
// by one Response, then the connection ends.
type Request struct {
	Do     string `json:"do"` // insert, eject, restart-pcscd, list
	Serial uint32 `json:"serial,omitempty"`
	File   string `json:"file,omitempty"` // insert: a card that the reader has not seen yet
}

// A Response carries the error, or the cards after the command.
type Response struct {
	Error string       `json:"error,omitempty"`
	Cards []CardStatus `json:"cards"`
}

// A CardStatus is a card that is or was in the reader.
type CardStatus struct {
	Serial   uint32 `json:"serial"`
	File     string `json:"file"`
	Inserted bool   `json:"inserted"`
	Reader   string `json:"reader,omitempty"` // pcscd's name of the reader
}

const (
	// maxRequest bounds a request; a path is the longest part.
	maxRequest = 16 << 10

	// commandTime bounds a command: starting pcscd and noticing two cards.
	commandTime = 45 * time.Second
)

// Do sends one command to the reader in dir.
func Do(dir string, req Request) ([]CardStatus, error) {
	if req.File != "" {
		path, err := visible(req.File)
		if err != nil {
			return nil, err
		}
		req.File = path
	}
	conn, err := net.Dial("unix", filepath.Join(dir, "control"))
	if err != nil {
		return nil, fmt.Errorf("reader: no reader runs in %s: %w", dir, err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(commandTime))
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		return nil, err
	}
	var resp Response
	if err := json.NewDecoder(conn).Decode(&resp); err != nil {
		return nil, fmt.Errorf("reader: the reader in %s gave no answer: %w", dir, err)
	}
	if resp.Error != "" {
		return resp.Cards, errors.New(resp.Error)
	}
	return resp.Cards, nil
}

// listenControl makes the control socket, for the owner only.
func listenControl(path string) (net.Listener, error) {
	os.Remove(path)
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

// serve obeys commands, one after the other, until ctx is cancelled.
func (m *machine) serve(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	for {
		conn, err := ln.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reader: control socket: %w", err)
		}
		m.answer(conn)
	}
}

func (m *machine) answer(conn net.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(commandTime))
	var req Request
	d := json.NewDecoder(io.LimitReader(conn, maxRequest))
	d.DisallowUnknownFields()
	err := d.Decode(&req)
	if err == nil {
		err = m.do(req)
	}
	resp := Response{Cards: m.list()}
	if err != nil {
		resp.Error = err.Error()
	}
	json.NewEncoder(conn).Encode(resp)
}

func (m *machine) do(req Request) error {
	switch req.Do {
	case "insert":
		if req.File != "" {
			_, err := m.insertFile(req.File)
			return err
		}
		return m.insert(req.Serial)
	case "eject":
		return m.eject(req.Serial)
	case "restart-pcscd":
		return m.restart()
	case "list":
		return nil
	}
	return fmt.Errorf("reader: command %q is not known", req.Do)
}
