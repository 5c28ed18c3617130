// SPDX-License-Identifier: Apache-2.0

package testcard

import (
	"bytes"
	"encoding/json"
	"testing"
)

// apdus splits fuzz input into commands, each with a length byte in front.
func apdus(data []byte) [][]byte {
	var list [][]byte
	for len(data) > 0 && len(list) < 64 {
		n := min(int(data[0]), len(data)-1)
		list = append(list, data[1:1+n])
		data = data[1+n:]
	}
	return list
}

func join(list ...[]byte) []byte {
	var data []byte
	for _, apdu := range list {
		data = append(append(data, byte(len(apdu))), apdu...)
	}
	return data
}

// slow tells the commands that would make fuzzing a search for primes.
func slow(apdu []byte) bool {
	return bytes.Contains(apdu, []byte{0x80, 0x01, algRSA1024}) || bytes.Contains(apdu, []byte{0x80, 0x01, algRSA2048}) ||
		bytes.Contains(apdu, []byte{0x80, 0x01, algRSA3072}) || bytes.Contains(apdu, []byte{0x80, 0x01, algRSA4096})
}

// FuzzTransmit sends any sequence of APDUs to a card that is logged in with
// everything, so that no check stands in the way. The card answers each with a
// status, keeps its bounds, and can still be written to a file and read.
func FuzzTransmit(f *testing.F) {
	selectPIV := append([]byte{0, insSelect, 4, 0, 5}, aidPIV[:5]...)
	f.Add(join(selectPIV, []byte{0, insGetVersion, 0, 0, 0}))
	f.Add(join(append([]byte{0, insVerify, 0, refPIN, 8}, padPIN("111111")...), append([]byte{0, insResetRetry, 0, refPIN, 16}, two(DefaultPUK, "222222")...)))
	f.Add(join([]byte{0, insGenerate, 0, 0x9a, 5, 0xac, 3, 0x80, 1, algP384}, []byte{0, insAttest, 0x9a, 0, 0}, []byte{0, insGetResponse, 0, 0, 0}))
	f.Add(join([]byte{0, insGenerate, 0, 0x9d, 5, 0xac, 3, 0x80, 1, algX25519}, []byte{0, insAuthenticate, algX25519, 0x9d, 6, 0x7c, 4, 0x82, 0, 0x85, 0}))
	f.Add(join([]byte{0, insAuthenticate, algAES192, refManagement, 4, 0x7c, 2, 0x80, 0}, []byte{0, insAuthenticate, algAES192, refManagement, 4, 0x7c, 2, 0x81, 0}))
	f.Add(join([]byte{0x10, insPutData, 0x3f, 0xff, 6, 0x5c, 3, 0x5f, 0xc1, 5, 0x53}, []byte{0, insPutData, 0x3f, 0xff, 2, 1, 7}, []byte{0, insGetData, 0x3f, 0xff, 5, 0x5c, 3, 0x5f, 0xc1, 5}))
	f.Add(join([]byte{0, insImport, algP256, 0x9a, 4, 6, 1, 1, 0}, []byte{0, insGetMetadata, 0, slotAttestation, 0}, []byte{0, insSetRetries, 1, 1}))
	root := testRoot(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		c := newClient(t, Config{Root: root, Firmware: Version{5, 7, 4}, Bio: true})
		c.admin()
		c.login()
		for _, apdu := range apdus(data) {
			if slow(apdu) {
				continue
			}
			out := c.card.Transmit(apdu)
			if len(out) < 2 || len(out) > maxResponse+2 {
				t.Fatalf("response to %x has %d bytes", apdu, len(out))
			}
		}
		checkBounds(t, c.card)
	})
}

// checkBounds makes sure that a card is in a state that a card can be in.
func checkBounds(t *testing.T, card *Card) {
	t.Helper()
	total := 0
	for _, object := range card.state.Objects {
		total += len(object)
	}
	if total > maxObjectBytes || len(card.state.Objects) > maxObjects || len(card.session.chain.data) > maxChained {
		t.Fatalf("%d bytes in %d objects, chain of %d", total, len(card.state.Objects), len(card.session.chain.data))
	}
	text, err := json.Marshal(card.state)
	if err != nil {
		t.Fatal(err)
	}
	if len(text) > maxStateFile {
		t.Fatalf("state of %d bytes", len(text))
	}
	if _, err := parseState(text); err != nil {
		t.Fatalf("state cannot be read back: %v", err)
	}
}

// FuzzFields: what is accepted has no other reading, and its parts marshal to
// something that is read the same way.
func FuzzFields(f *testing.F) {
	f.Add([]byte{0x53, 0})
	f.Add([]byte{0x7f, 0x49, 3, 0x86, 1, 4})
	f.Add([]byte{0x53, 0x82, 0, 1, 9})
	f.Add([]byte{0x5f, 0x81, 0x01, 0x81, 1, 9})
	f.Fuzz(func(t *testing.T, data []byte) {
		fields, ok := parseFields(data)
		if !ok {
			return
		}
		var again []byte
		for _, field := range fields {
			again = appendField(again, field.tag, field.value)
		}
		if len(again) > len(data) {
			t.Fatalf("%x grows to %x", data, again)
		}
		second, ok := parseFields(again)
		if !ok || len(second) != len(fields) {
			t.Fatalf("%x marshals to %x", data, again)
		}
		for i := range second {
			if second[i].tag != fields[i].tag || !bytes.Equal(second[i].value, fields[i].value) {
				t.Fatalf("%x marshals to %x", data, again)
			}
		}
	})
}

// FuzzState: no state file, however broken, makes a card that panics.
func FuzzState(f *testing.F) {
	c := newClient(f, Config{})
	c.admin()
	c.generate(0x9a, algP256)
	good, err := json.Marshal(c.card.state)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"format":1,"keys":{"9a":null},"objects":{},"attestation":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseState(data)
		if err != nil {
			return
		}
		card := &client{t, &Card{state: s}}
		card.powerUp()
		for _, slot := range []byte{0x9a, 0x9c, 0x9d, 0x9e, 0x82, slotAttestation} {
			card.send(insGetMetadata, 0, slot, nil)
			card.send(insAttest, slot, 0, nil)
		}
		card.verify(DefaultPIN)
		card.manage(s.Management.Algorithm, s.Management.Key)
		card.use(0x9a, algP256, 0x81, make([]byte, 32))
	})
}
