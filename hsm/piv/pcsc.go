// SPDX-License-Identifier: Apache-2.0

//go:build cgo && linux

package piv

// #cgo pkg-config: libpcsclite
// #include <stdlib.h>
// #include <PCSC/winscard.h>
// #include <PCSC/wintypes.h>
import "C"

import (
	"bytes"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"valise/hsm"
)

// piv-go speaks PIV; what it lacks of PC/SC is here: who is present, telling
// when that changes, and resetting a card.

// contexts serializes the making of PC/SC contexts in this package, so that
// open can tell which one a failed piv.Open left behind.
var contexts sync.Mutex

// A pcscError is a PC/SC return code.
type pcscError struct {
	op   string
	code uint32
}

func (e *pcscError) Error() string {
	return fmt.Sprintf("pc/sc: %s: %s (0x%08x)", e.op, e.Unwrap(), e.code)
}

// Unwrap gives the code's meaning to those who hold the card.
func (e *pcscError) Unwrap() error {
	switch e.code {
	case C.SCARD_E_NO_SERVICE & 0xffffffff, C.SCARD_E_SERVICE_STOPPED & 0xffffffff,
		C.SCARD_F_COMM_ERROR & 0xffffffff, C.SCARD_E_INVALID_HANDLE & 0xffffffff:
		return hsm.ErrNoService
	case C.SCARD_E_NO_READERS_AVAILABLE & 0xffffffff, C.SCARD_E_NO_SMARTCARD & 0xffffffff,
		C.SCARD_E_UNKNOWN_READER & 0xffffffff, C.SCARD_E_READER_UNAVAILABLE & 0xffffffff,
		C.SCARD_W_UNRESPONSIVE_CARD & 0xffffffff, C.SCARD_W_UNPOWERED_CARD & 0xffffffff:
		return hsm.ErrNoCard
	case C.SCARD_W_REMOVED_CARD & 0xffffffff:
		return hsm.ErrRemoved
	case C.SCARD_E_SHARING_VIOLATION & 0xffffffff:
		return hsm.ErrBusy
	}
	return errUnexpected
}

func check(op string, rc C.LONG) error {
	if rc == C.SCARD_S_SUCCESS {
		return nil
	}
	return &pcscError{op, uint32(rc)}
}

// A service is one connection to pcscd.
type service struct{ ctx C.SCARDCONTEXT }

func connectService() (*service, error) {
	contexts.Lock()
	defer contexts.Unlock()
	s := new(service)
	rc := C.SCardEstablishContext(C.SCARD_SCOPE_SYSTEM, nil, nil, &s.ctx)
	if err := check("connect", rc); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *service) close() { C.SCardReleaseContext(s.ctx) }

// cancel ends a wait in another goroutine.
func (s *service) cancel() { C.SCardCancel(s.ctx) }

// readers lists the readers' names; none is no error.
func (s *service) readers() ([]string, error) {
	var n C.DWORD
	for range 3 { // a reader may be plugged in between the two calls
		n = 0
		err := check("list readers", C.SCardListReaders(s.ctx, nil, nil, &n))
		if e, ok := err.(*pcscError); ok && e.Unwrap() == hsm.ErrNoCard {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if n == 0 || n > maxReaderList {
			return nil, nil
		}
		buf := make([]byte, n)
		rc := C.SCardListReaders(s.ctx, nil, (*C.char)(unsafe.Pointer(&buf[0])), &n)
		if uint32(rc) == C.SCARD_E_INSUFFICIENT_BUFFER&0xffffffff {
			continue
		}
		if err := check("list readers", rc); err != nil {
			return nil, err
		}
		var names []string
		for name := range bytes.SplitSeq(buf[:n], []byte{0}) {
			if len(name) > 0 {
				names = append(names, string(name))
			}
		}
		return names, nil
	}
	return nil, fmt.Errorf("pc/sc: the list of readers keeps changing: %w", hsm.ErrNoCard)
}

// An event is a reader's state: flags, and in the upper half a count of
// insertions and removals.
type event uint32

func (e event) present() bool { return e&C.SCARD_STATE_PRESENT != 0 && e&C.SCARD_STATE_MUTE == 0 }

// same tells whether the card present at e has been there since old.
func (e event) same(old event) bool { return e.present() && e>>16 == old>>16 }

// wait returns the reader's state once it differs from old, or after timeout.
// With old 0 it returns at once.
func (s *service) wait(reader string, old event, timeout time.Duration) (event, error) {
	name := C.CString(reader)
	defer C.free(unsafe.Pointer(name))
	// The structure holds a pointer, so it lives in C's memory.
	state := (*C.SCARD_READERSTATE)(C.calloc(1, C.sizeof_SCARD_READERSTATE))
	defer C.free(unsafe.Pointer(state))
	state.szReader = name
	state.dwCurrentState = C.DWORD(old)
	rc := C.SCardGetStatusChange(s.ctx, C.DWORD(timeout.Milliseconds()), state, 1)
	if uint32(rc) == C.SCARD_E_TIMEOUT&0xffffffff {
		return old, nil
	}
	if err := check("watch "+reader, rc); err != nil {
		return 0, err
	}
	e := event(state.dwEventState)
	if e&(C.SCARD_STATE_UNKNOWN|C.SCARD_STATE_UNAVAILABLE) != 0 {
		return 0, &pcscError{"watch " + reader, C.SCARD_E_UNKNOWN_READER & 0xffffffff}
	}
	return e &^ C.SCARD_STATE_CHANGED, nil
}

// A connection is exclusive access to a card.
type connection struct{ handle C.SCARDHANDLE }

func (s *service) connect(reader string) (*connection, error) {
	name := C.CString(reader)
	defer C.free(unsafe.Pointer(name))
	c := new(connection)
	var protocol C.DWORD
	rc := C.SCardConnect(s.ctx, name, C.SCARD_SHARE_EXCLUSIVE, C.SCARD_PROTOCOL_T1, &c.handle, &protocol)
	if err := check("connect to "+reader, rc); err != nil {
		return nil, err
	}
	return c, nil
}

// close gives the card free, reset or as it is.
func (c *connection) close(reset bool) error {
	how := C.DWORD(C.SCARD_LEAVE_CARD)
	if reset {
		how = C.SCARD_RESET_CARD
	}
	return check("disconnect", C.SCardDisconnect(c.handle, how))
}

// transmit sends a command and returns the answer's status word.
func (c *connection) transmit(command []byte) (uint16, error) {
	var answer [maxAnswer]byte
	n := C.DWORD(len(answer))
	rc := C.SCardTransmit(c.handle, C.SCARD_PCI_T1,
		(*C.BYTE)(&command[0]), C.DWORD(len(command)), nil, (*C.BYTE)(&answer[0]), &n)
	if err := check("transmit", rc); err != nil {
		return 0, err
	}
	if n < 2 || int(n) > len(answer) {
		return 0, fmt.Errorf("%w: an answer of %d bytes", errUnexpected, n)
	}
	return uint16(answer[n-2])<<8 | uint16(answer[n-1]), nil
}
