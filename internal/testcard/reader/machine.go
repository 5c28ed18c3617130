// SPDX-License-Identifier: Apache-2.0

//go:build linux

package reader

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"valise/internal/testcard"
)

// bays is the number of cards that one vpcd reader holds.
const bays = 2

// seen is how long pcscd may take to notice a card that came or went.
const seen = 10 * time.Second

// A machine is the reader with what is in it. Its methods are called by one
// control connection at a time.
type machine struct {
	cfg Config

	mu     sync.Mutex // guards all that follows
	daemon *daemon
	bay    [bays]*inserted
	known  map[uint32]string // serial number to state file, also of ejected cards
}

// An inserted card runs in its own goroutine.
type inserted struct {
	card   *testcard.Card
	cancel context.CancelFunc
	done   chan struct{} // closed when the goroutine has ended
}

func (m *machine) start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.startLocked()
}

func (m *machine) startLocked() (err error) {
	m.daemon, err = startDaemon(m.cfg)
	return err
}

// stop ejects all cards and ends pcscd.
func (m *machine) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.bay {
		m.pull(i)
	}
	if m.daemon != nil {
		m.daemon.stop()
	}
	m.cfg.clean()
}

// insertFile inserts the card of a state file and learns its serial number.
func (m *machine) insertFile(path string) (uint32, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	bay := slices.Index(m.bay[:], nil)
	if bay < 0 {
		return 0, fmt.Errorf("reader: both bays are taken: eject a card first")
	}
	card, err := testcard.Open(path)
	if err != nil {
		return 0, err
	}
	serial := card.Serial()
	if m.find(serial) >= 0 {
		card.Close()
		return 0, fmt.Errorf("reader: a card with serial number %d is inserted already", serial)
	}
	m.known[serial] = path
	ctx, cancel := context.WithCancel(context.Background())
	in := &inserted{card: card, cancel: cancel, done: make(chan struct{})}
	m.bay[bay] = in
	go in.run(ctx, firstPort+bay)
	return serial, m.await(bay, true)
}

// run keeps the card connected to vpcd, also across restarts of pcscd.
func (in *inserted) run(ctx context.Context, port int) {
	defer close(in.done)
	var dialer net.Dialer
	for ctx.Err() == nil {
		conn, err := dialer.DialContext(ctx, "tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			err = testcard.Serve(ctx, conn.(*net.TCPConn), in.card)
			conn.Close()
		}
		if err == nil {
			continue
		}
		select { // pcscd is away: try again soon
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// await waits until pcscd sees the bay full or empty.
func (m *machine) await(bay int, full bool) error {
	return poll(seen, fmt.Sprintf("pcscd to see bay %d", bay), func() (bool, error) {
		is, err := bayState(m.cfg.Socket(), bay)
		return err == nil && is.present == full, nil
	})
}

// insert puts a card back that was ejected.
func (m *machine) insert(serial uint32) error {
	m.mu.Lock()
	path, at := m.known[serial], m.find(serial)
	m.mu.Unlock()
	if path == "" {
		return fmt.Errorf("reader: card %d is not known here: insert its file", serial)
	}
	if at >= 0 {
		return fmt.Errorf("reader: card %d is inserted already", serial)
	}
	_, err := m.insertFile(path)
	return err
}

// eject pulls the card out; its state file is free for another reader then.
func (m *machine) eject(serial uint32) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	bay := m.find(serial)
	if bay < 0 {
		return fmt.Errorf("reader: card %d is not in this reader", serial)
	}
	before, err := bayState(m.cfg.Socket(), bay)
	if err != nil {
		return err
	}
	m.pull(bay)
	// An empty bay is not enough: after a failed command pcscd shows it as
	// empty before its poll, every 400 ms, has seen it so. A card that were
	// inserted before that poll would never be noticed.
	return poll(seen, fmt.Sprintf("pcscd to see bay %d empty", bay), func() (bool, error) {
		is, err := bayState(m.cfg.Socket(), bay)
		return err == nil && !is.present && is.events != before.events, nil
	})
}

// find returns the bay of a card, or -1.
func (m *machine) find(serial uint32) int {
	return slices.IndexFunc(m.bay[:], func(in *inserted) bool {
		return in != nil && in.card.Serial() == serial
	})
}

// pull empties a bay.
func (m *machine) pull(bay int) {
	in := m.bay[bay]
	if in == nil {
		return
	}
	in.cancel()
	<-in.done
	in.card.Close()
	m.bay[bay] = nil
}

// restart ends pcscd and starts another one; the cards stay inserted.
func (m *machine) restart() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.daemon.stop()
	if err := m.startLocked(); err != nil {
		return err
	}
	var errs []error
	for i, in := range m.bay {
		if in != nil {
			errs = append(errs, m.await(i, true))
		}
	}
	return errors.Join(errs...)
}

// list names all cards that the reader has seen.
func (m *machine) list() []CardStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	var cards []CardStatus
	for serial, path := range m.known {
		status := CardStatus{Serial: serial, File: path}
		if bay := m.find(serial); bay >= 0 {
			status.Inserted = true
			status.Reader = fmt.Sprintf("%s 00 %02d", friendlyName, bay)
		}
		cards = append(cards, status)
	}
	slices.SortFunc(cards, func(a, b CardStatus) int { return int(int64(a.Serial) - int64(b.Serial)) })
	return cards
}
