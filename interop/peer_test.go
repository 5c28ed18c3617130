// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"testing"
	"time"

	"valise/internal/testenv"
)

// answerTime bounds one operation of the peer.
const answerTime = 30 * time.Second

// A peer is one process with any number of ts-mls clients. It belongs to one
// goroutine.
type peer struct {
	in    io.WriteCloser
	lines chan []byte // closed when the process has ended its output
	said  *bytes.Buffer
}

// A request to the peer; see node/peer.mjs. Bytes travel in base64.
type request struct {
	Do     string `json:"do"`
	Client string `json:"client"`

	Suite        uint16            `json:"suite,omitempty"`
	SignKey      []byte            `json:"signKey,omitempty"`
	PublicKey    []byte            `json:"publicKey,omitempty"`
	Own          bool              `json:"own,omitempty"`
	Identity     string            `json:"identity,omitempty"`
	Certificates [][]byte          `json:"certificates,omitempty"`
	Root         []byte            `json:"root,omitempty"`
	NotBefore    int64             `json:"notBefore,omitempty"`
	NotAfter     int64             `json:"notAfter,omitempty"`
	PSKs         map[string][]byte `json:"psks,omitempty"` // by base64 of the ID

	Group    []byte `json:"group,omitempty"`
	Required string `json:"required,omitempty"` // credential type
	Message  []byte `json:"message,omitempty"`
	Tree     []byte `json:"tree,omitempty"`
	WithTree bool   `json:"withTree,omitempty"`
	Resync   bool   `json:"resync,omitempty"`
	Private  bool   `json:"private,omitempty"`
	Text     []byte `json:"text,omitempty"`
	Data     []byte `json:"data,omitempty"`
	Label    string `json:"label,omitempty"`

	Add    [][]byte `json:"add,omitempty"`
	Remove []uint32 `json:"remove,omitempty"`
	PSK    [][]byte `json:"psk,omitempty"`
}

// An answer holds what the operation yields; the rest is empty.
type answer struct {
	Message []byte `json:"message"`
	Welcome []byte `json:"welcome"`
	Tree    []byte `json:"tree"`
	Kind    string `json:"kind"`
	Text    []byte `json:"text"`

	Epoch         uint64   `json:"epoch"`
	Leaf          uint32   `json:"leaf"`
	Active        bool     `json:"active"`
	Authenticator []byte   `json:"authenticator"`
	Exported      []byte   `json:"exported"`
	Keys          [][]byte `json:"keys"`
}

// startPeer starts a process that ends with the test.
func startPeer(t testing.TB) *peer {
	t.Helper()
	argv := append(testenv.Node(t, "interop/node"), "peer.mjs")
	cmd := exec.Command(argv[0], argv[1:]...)
	p := &peer{lines: make(chan []byte), said: new(bytes.Buffer)}
	cmd.Stderr = p.said
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in = in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(p.lines)
		lines := bufio.NewReader(out)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				return
			}
			p.lines <- line
		}
	}()
	t.Cleanup(func() {
		in.Close() // its end: node leaves its loop
		kill := time.AfterFunc(answerTime, func() { cmd.Process.Kill() })
		defer kill.Stop()
		for range p.lines {
		}
		<-read
		if err := cmd.Wait(); err != nil {
			t.Errorf("peer: %v\n%s", err, p.said)
		}
	})
	return p
}

// do runs one operation; the error is what the peer refused with.
func (p *peer) do(t testing.TB, q request) (*answer, error) {
	t.Helper()
	line, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		t.Fatalf("peer: %v", err)
	}
	select {
	case line, ok := <-p.lines:
		if !ok {
			t.Fatalf("peer ended during %q", q.Do)
		}
		var a struct {
			OK    *answer `json:"ok"`
			Error string  `json:"error"`
		}
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatalf("peer: %v: %.200s", err, line)
		}
		if a.OK == nil {
			return nil, errors.New("ts-mls: " + a.Error)
		}
		return a.OK, nil
	case <-time.After(answerTime):
		t.Fatalf("peer: no answer to %q in %v", q.Do, answerTime)
	}
	return nil, nil
}
