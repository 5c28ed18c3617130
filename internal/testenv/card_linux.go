// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"valise/internal/testcard"
	"valise/internal/testcard/reader"
)

// A CardReader is one virtual card in a private reader.
type CardReader struct {
	Serial   uint32
	PIN, PUK string
	RootPEM  []byte // certificate of the attestation root
	Reader   string // pcscd's name of the reader in which the card was put first
	Socket   string // for PCSCLITE_CSOCK_NAME
	Dir      string // of the reader
	State    string // file of the card
}

// Env is what a command needs in its environment to see the reader.
func (c *CardReader) Env() []string { return []string{"PCSCLITE_CSOCK_NAME=" + c.Socket} }

// Eject pulls the card out; it returns when pcscd has noticed.
func (c *CardReader) Eject(t testing.TB) {
	t.Helper()
	c.do(t, reader.Request{Do: "eject", Serial: c.Serial})
}

// Insert puts the card back in.
func (c *CardReader) Insert(t testing.TB) {
	t.Helper()
	c.do(t, reader.Request{Do: "insert", File: c.State})
}

// RestartPCSCD ends pcscd and starts another one; the cards stay in. With
// Card, the reader is shared with other tests of the process: none of them
// may run at the same time.
func (c *CardReader) RestartPCSCD(t testing.TB) {
	t.Helper()
	c.do(t, reader.Request{Do: "restart-pcscd"})
}

func (c *CardReader) do(t testing.TB, req reader.Request) []reader.CardStatus {
	t.Helper()
	cards, err := reader.Do(c.Dir, req)
	if err != nil {
		t.Fatalf("testenv: %s: %v", req.Do, err)
	}
	return cards
}

// Card puts a new card into the reader of this test process and takes it out
// at the end of the test. Code in this process sees it, and so do commands
// that inherit the environment. One process has one reader, because
// libpcsclite fixes its socket at first use; it holds two cards. A zero
// Config is a card from the factory under the attestation root of this test
// process.
//
// Call it before anything in the process has used libpcsclite.
func Card(t testing.TB, cfg testcard.Config) *CardReader {
	t.Helper()
	c := newCard(t, cfg)
	shared.Lock()
	defer shared.Unlock()
	if shared.reader == nil {
		shared.reader = startReader(t)
		if err := os.Setenv("PCSCLITE_CSOCK_NAME", shared.reader.socket); err != nil {
			t.Fatal(err)
		}
	}
	c.insertNew(t, shared.reader)
	t.Cleanup(func() { // it may be out already
		reader.Do(c.Dir, reader.Request{Do: "eject", Serial: c.Serial})
	})
	return c
}

// shared is the reader of this process; it ends with the process.
var shared struct {
	sync.Mutex
	reader *readerProcess // guarded by the mutex
}

// Reader starts a reader with up to two new cards for commands that the test
// runs with the card's Env, and stops it at the end of the test. Without a
// Config it holds one card from the factory.
func Reader(t testing.TB, cfgs ...testcard.Config) []*CardReader {
	t.Helper()
	if len(cfgs) == 0 {
		cfgs = make([]testcard.Config, 1)
	}
	var cards []*CardReader
	for _, cfg := range cfgs {
		cards = append(cards, newCard(t, cfg))
	}
	r := startReader(t)
	t.Cleanup(r.stop)
	for _, c := range cards {
		c.insertNew(t, r)
	}
	return cards
}

// newCard makes the state file of a card.
func newCard(t testing.TB, cfg testcard.Config) *CardReader {
	t.Helper()
	if cfg.Root == nil {
		root, err := processRoot()
		if err != nil {
			t.Fatal(err)
		}
		cfg.Root = root
	}
	state := filepath.Join(ShortDir(t), "card")
	card, err := testcard.Create(state, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer card.Close()
	return &CardReader{
		Serial: card.Serial(), State: state, RootPEM: cfg.Root.PEM(),
		PIN: cmp.Or(cfg.PIN, testcard.DefaultPIN), PUK: cmp.Or(cfg.PUK, testcard.DefaultPUK),
	}
}

// processRoot is the attestation root of cards without one of their own.
var processRoot = sync.OnceValues(testcard.NewRoot)

func (c *CardReader) insertNew(t testing.TB, r *readerProcess) {
	t.Helper()
	c.Dir, c.Socket = r.dir, r.socket
	cards := c.do(t, reader.Request{Do: "insert", File: c.State})
	i := slices.IndexFunc(cards, func(s reader.CardStatus) bool { return s.Serial == c.Serial })
	c.Reader = cards[i].Reader
}

// A readerProcess is a running valise-testcard reader.
type readerProcess struct {
	dir, socket string
	cmd         *exec.Cmd
	done        chan struct{}
}

// startReader starts an empty reader. It skips where a part or the right to
// have namespaces is missing.
func startReader(t testing.TB) *readerProcess {
	t.Helper()
	Need(t, "pcscd", "pcscd")
	Need(t, "/usr/lib*/pcsc/drivers/serial/libifdvpcd.so", "vsmartcard-vpcd")
	program := Build(t, "./cmd/valise-testcard", "CGO_ENABLED=0")
	dir, err := os.MkdirTemp("", "v")
	if err != nil {
		t.Fatal(err)
	}
	r := &readerProcess{dir: dir, done: make(chan struct{})}
	r.cmd = exec.Command(program, "reader", "--rm", "--dir", dir)
	if err := r.start(); err != nil {
		os.RemoveAll(dir)
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == exitNamespaces {
			missing(t, "namespaces", err.Error())
		}
		t.Fatal(err)
	}
	return r
}

// exitNamespaces is the status with which the reader says that namespaces are
// forbidden.
const exitNamespaces = 3

// start returns when the reader has printed its socket.
func (r *readerProcess) start() error {
	var stderr bytes.Buffer
	r.cmd.Stderr = &stderr
	stdout, err := r.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var waited error
	if err := startLocked(r.cmd, func(err error) { waited = err }, r.done); err != nil {
		return err
	}
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if socket, ok := strings.CutPrefix(lines.Text(), "PCSCLITE_CSOCK_NAME="); ok {
			r.socket = socket
			return nil
		}
	}
	<-r.done
	return fmt.Errorf("testenv: reader ended at once: %w\n%s", waited, &stderr)
}

func (r *readerProcess) stop() {
	r.cmd.Process.Signal(os.Interrupt)
	<-r.done
}

// startLocked starts a process that is to end with this one, hands the result
// of Wait to ended and closes done. The kernel ends the process with the
// thread that started it, so that thread is kept to wait for it.
func startLocked(cmd *exec.Cmd, ended func(error), done chan<- struct{}) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended(cmd.Wait())
			close(done)
		}
	}()
	return <-started
}
