// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	"valise/attest"
)

// A memory holds what evidence said when its signatures were verified, so that the
// same bytes, judged again when the certificate is built moments later, are judged
// without verifying five signatures a second time. It is in this process alone: what
// lies in the database is found here only if it is, byte for byte, what this process
// has verified itself, as the answer to the same challenge, under the same
// endorsements.
type memory struct {
	mu    sync.Mutex
	known map[[32]byte]verified // guarded by mu
	csrs  map[[32]byte]bool     // guarded by mu; hashes of those that CheckCSR accepted
}

type verified struct {
	claims       *attest.Claims
	endorsements *attest.Endorsements
	at           time.Time
}

// memoryKey commits to everything but the endorsements that a verification takes.
func memoryKey(object []byte, keyAuthorization string, activation []byte) [32]byte {
	h := sha256.New()
	for _, part := range [][]byte{object, []byte(keyAuthorization), activation} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write(part)
	}
	return [32]byte(h.Sum(nil))
}

// recall returns what is remembered, if it is not old: certificates in evidence may
// expire.
func (m *memory) recall(key [32]byte, e *attest.Endorsements, now time.Time) *attest.Claims {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	v, found := m.known[key]
	if since := now.Sub(v.at); !found || v.endorsements != e || since < 0 || since > memoryLife {
		return nil
	}
	return v.claims
}

func (m *memory) keep(key [32]byte, v verified) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil || len(m.known) >= maxRemembered {
		m.known = make(map[[32]byte]verified)
	}
	m.known[key] = v
}

// accepted reports whether this process has checked exactly this CSR already.
func (m *memory) accepted(csr [32]byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.csrs[csr]
}

func (m *memory) accept(csr [32]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.csrs == nil || len(m.csrs) >= maxRemembered {
		m.csrs = make(map[[32]byte]bool)
	}
	m.csrs[csr] = true
}
