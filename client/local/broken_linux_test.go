// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
)

// An agent that is killed is an agent that does not run, whether it dies before its
// answer, within the headers, or between two lines: who follows events waits for the
// next one.
func TestKilledAgentIsNoAgent(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	for name, answer := range map[string]string{
		"before the answer": "",
		"in the headers":    head[:20],
		"before a line":     head,
		"between two lines": head + "12\r\n" + `{"name":"bob dee"}` + "\r\n1\r\n\n\r\n",
		"within a line":     head + "12\r\n" + `{"name":`,
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			if err := os.Chmod(home, 0o700); err != nil {
				t.Fatal(err)
			}
			ln, err := Listen(home)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			go dieAfter(ln, answer)
			c, err := New(home)
			if err != nil {
				t.Fatal(err)
			}
			err = c.Stream(context.Background(), "/count", nil, func(json.RawMessage) error { return nil })
			if !errors.Is(err, ErrNoAgent) {
				t.Errorf("a stream that broke off ended with %v", err)
			}
			if err = c.Call(context.Background(), "/greet", nil, &request{}); !errors.Is(err, ErrNoAgent) {
				t.Errorf("a call that broke off ended with %v", err)
			}
			ctx, cancel := context.WithCancelCause(context.Background())
			cancel(io.ErrClosedPipe)
			if err = c.Call(ctx, "/greet", nil, &request{}); !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("a call that was given up ended with %v", err)
			}
		})
	}
}

// dieAfter reads one request a connection and closes it after a part of an answer.
func dieAfter(ln net.Listener, answer string) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			io.Copy(io.Discard, r.Body)
		}
		io.WriteString(c, answer)
		c.Close()
	}
}
