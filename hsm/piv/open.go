// SPDX-License-Identifier: Apache-2.0

//go:build cgo && linux

package piv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	pivgo "github.com/go-piv/piv-go/v2/piv"
	"golang.org/x/sys/unix"

	"valise/hsm"
)

var errUnexpected = errors.New("unexpected answer")

// selectPIV is SELECT with PIV's application identifier (SP 800-73-4, Part 2,
// Section 3.1.1).
var selectPIV = []byte{0x00, 0xa4, 0x04, 0x00, 0x05, 0xa0, 0x00, 0x00, 0x03, 0x08}

// A place is a card in a reader, with the reader's state when it was found.
type place struct {
	reader string
	since  event
}

// present lists the places with a card whose reader's name contains filter.
func present(filter string) ([]place, error) {
	s, err := connectService()
	if err != nil {
		return nil, err
	}
	defer s.close()
	names, err := s.readers()
	if err != nil {
		return nil, err
	}
	var places []place
	for _, name := range names {
		if !strings.Contains(strings.ToLower(name), strings.ToLower(filter)) {
			continue
		}
		e, err := s.wait(name, 0, 0)
		if errors.Is(err, hsm.ErrNoCard) {
			continue // the reader was unplugged meanwhile
		}
		if err != nil {
			return nil, err
		}
		if e.present() {
			places = append(places, place{name, e})
		}
	}
	return places, nil
}

// probe finds out whether the card is PIV and free. It goes before piv.Open,
// which gives no typed reasons and leaks when it fails late.
func probe(reader string) error {
	s, err := connectService()
	if err != nil {
		return err
	}
	defer s.close()
	c, err := s.connect(reader)
	if err != nil {
		return err
	}
	defer c.close(false)
	sw, err := c.transmit(selectPIV)
	if err != nil {
		return err
	}
	if sw != 0x9000 && sw>>8 != 0x61 {
		return fmt.Errorf("reader %q answers %04x: %w", reader, sw, hsm.ErrNotPIV)
	}
	return nil
}

// reset resets the card, which clears its PIN state.
func reset(reader string) error {
	s, err := connectService()
	if err != nil {
		return err
	}
	defer s.close()
	c, err := s.connect(reader)
	if err != nil {
		return err
	}
	return c.close(true)
}

// patiently repeats f while the card is in use by somebody else.
func patiently(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, busyWait)
	defer cancel()
	for {
		err := f()
		if !errors.Is(err, hsm.ErrBusy) {
			return err
		}
		pause := time.NewTimer(busyPoll)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return err
		}
	}
}

// open is piv.Open without its leak: when the card disappears, or refuses
// PIV, after piv.Open connected to it, piv.Open returns without letting go of
// its PC/SC context, and pcscd keeps the reader reserved for it as long as this
// process lives. open finds the socket of that lost context and shuts it down;
// pcscd then cleans up as it does for a process that died. What remains is
// one dead file descriptor for each time that a card is pulled within the
// millisecond that opening takes.
func open(reader string) (*pivgo.YubiKey, error) {
	contexts.Lock()
	defer contexts.Unlock()
	before := serviceSockets()
	yk, err := pivgo.Open(reader)
	if err == nil {
		return yk, nil
	}
	for inode, fd := range serviceSockets() {
		if _, old := before[inode]; !old {
			_ = unix.Shutdown(fd, unix.SHUT_RDWR)
		}
	}
	return nil, fmt.Errorf("reader %q: %w", reader, err)
}

// serviceSockets finds this process's sockets to pcscd: descriptors by inode.
func serviceSockets() map[string]int {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	found := make(map[string]int)
	for _, entry := range entries {
		inode, err := os.Readlink(filepath.Join(dir, entry.Name()))
		if err != nil || !strings.HasPrefix(inode, "socket:") {
			continue
		}
		var fd int
		if _, err := fmt.Sscanf(entry.Name(), "%d", &fd); err == nil && servesCards(fd) {
			found[inode] = fd
		}
	}
	return found
}

// servesCards tells whether fd is connected to pcscd. The name is the one that
// pcscd bound, which in another mount namespace is not the one we dialed.
func servesCards(fd int) bool {
	peer, err := unix.Getpeername(fd)
	if err != nil {
		return false
	}
	addr, ok := peer.(*unix.SockaddrUnix)
	return ok && filepath.Base(addr.Name) == "pcscd.comm"
}
