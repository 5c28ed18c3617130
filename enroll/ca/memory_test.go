// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"testing"
	"time"

	"valise/attest"
)

// What is remembered is found for the same bytes, challenge, secret and endorsements,
// and for a minute.
func TestMemory(t *testing.T) {
	m, now := new(memory), time.Now()
	claims, endorsed := new(attest.Claims), new(attest.Endorsements)
	key := memoryKey([]byte("object"), "challenge", []byte("secret"))
	m.keep(key, verified{claims, endorsed, now})
	if m.recall(key, endorsed, now.Add(time.Minute)) != claims {
		t.Error("control: it is not found")
	}
	for name, got := range map[string]*attest.Claims{
		"other bytes":        m.recall(memoryKey([]byte("objecT"), "challenge", []byte("secret")), endorsed, now),
		"another challenge":  m.recall(memoryKey([]byte("object"), "challengE", []byte("secret")), endorsed, now),
		"another secret":     m.recall(memoryKey([]byte("object"), "challenge", []byte("secreT")), endorsed, now),
		"parts moved":        m.recall(memoryKey([]byte("objectc"), "hallenge", []byte("secret")), endorsed, now),
		"other endorsements": m.recall(key, new(attest.Endorsements), now),
		"later":              m.recall(key, endorsed, now.Add(time.Minute+1)),
		"a clock set back":   m.recall(key, endorsed, now.Add(-1)),
		"no memory":          (*memory)(nil).recall(key, endorsed, now),
	} {
		if got != nil {
			t.Errorf("%s: found", name)
		}
	}
	for i := range maxRemembered + 1 {
		m.keep(memoryKey([]byte{byte(i), byte(i >> 8)}, "", nil), verified{claims, endorsed, now})
	}
	if len(m.known) > maxRemembered {
		t.Errorf("%d are remembered", len(m.known))
	}
}
