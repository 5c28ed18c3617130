// SPDX-License-Identifier: Apache-2.0

package wan

import (
	"io"
	"net"
	"testing"
	"time"
)

// patience is for what has to come, however slow the machine.
const patience = time.Minute

// newLine is a line to an echo.
func newLine(t *testing.T, passage Passage) *Line {
	t.Helper()
	listen := func() net.Listener {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { listener.Close() })
		return listener
	}
	echo := listen()
	go func() {
		for {
			conn, err := echo.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	l, err := NewLine(LineConfig{
		Inside: listen(), Passage: passage,
		Dial: func() (net.Conn, error) { return net.Dial("tcp", echo.Addr().String()) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func connect(t *testing.T, l *Line) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", l.cfg.Inside.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// ask sends a word and returns what comes back.
func ask(conn net.Conn, word string) (string, error) {
	if _, err := io.WriteString(conn, word); err != nil {
		return "", err
	}
	buf := make([]byte, len(word))
	_, err := io.ReadFull(conn, buf)
	return string(buf), err
}

// until waits for a change of the line.
func until(t *testing.T, l *Line, what string, ok func() bool) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	late := false
	defer time.AfterFunc(patience, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		late = true
		l.change.Broadcast()
	}).Stop()
	for !ok() {
		if late {
			t.Fatalf("not %s: %v", what, l.stats)
		}
		l.change.Wait()
	}
}

// An open line carries, also the end of one way; a frozen one keeps everything until it
// is open again; one that is shut ends everybody.
func TestLine(t *testing.T) {
	l := newLine(t, Open)
	conn := connect(t, l)
	if back, err := ask(conn, "one"); back != "one" || err != nil {
		t.Fatalf("open: %q, %v", back, err)
	}
	l.Set(Frozen)
	if _, err := io.WriteString(conn, "two"); err != nil {
		t.Fatal(err)
	}
	late := connect(t, l)
	until(t, l, "waiting", func() bool { return l.stats.Waited == 2 })
	if s := l.Stats(); s.Out != 3 || s.In != 3 {
		t.Errorf("frozen: %v", s)
	}
	l.Set(Open)
	buf := make([]byte, 3)
	if _, err := io.ReadFull(conn, buf); string(buf) != "two" || err != nil {
		t.Errorf("open again: %q, %v", buf, err)
	}
	if back, err := ask(late, "three"); back != "three" || err != nil {
		t.Errorf("a connection that waited: %q, %v", back, err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(buf); n != 0 || err != io.EOF {
		t.Errorf("after the end: %d bytes, %v", n, err)
	}
	until(t, l, "one connection", func() bool { return len(l.conns) == 1 })
	l.Set(Shut)
	if back, err := ask(late, "four"); err == nil {
		t.Errorf("shut: %q", back)
	}
	if conn, err := net.Dial("tcp", l.cfg.Inside.Addr().String()); err == nil {
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		if back, err := ask(conn, "five"); err == nil {
			t.Errorf("a new connection to a line that is shut: %q", back)
		}
	}
	if s := l.Stats(); s.Broken != 1 || s.Rejected != 1 {
		t.Errorf("%v", s)
	}
}

// What waited in a line that is then shut never arrives.
func TestFrozenThenShut(t *testing.T) {
	l := newLine(t, Open)
	conn := connect(t, l)
	if _, err := ask(conn, "one"); err != nil {
		t.Fatal(err)
	}
	l.Set(Frozen)
	if _, err := io.WriteString(conn, "two"); err != nil {
		t.Fatal(err)
	}
	until(t, l, "waiting", func() bool { return l.stats.Waited == 1 })
	l.Set(Shut)
	if _, err := io.ReadFull(conn, make([]byte, 3)); err == nil {
		t.Error("an answer out of a line that was shut")
	}
	l.Set(Open)
	if back, err := ask(connect(t, l), "three"); back != "three" || err != nil {
		t.Errorf("open again: %q, %v", back, err)
	}
	if s := l.Stats(); s.Out != 8 || s.In != 8 || s.Broken != 1 {
		t.Errorf("%v", s)
	}
}

func TestNewLineRefuses(t *testing.T) {
	if _, err := NewLine(LineConfig{}); err == nil {
		t.Error("a line from nowhere to nowhere")
	}
}
