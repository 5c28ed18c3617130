// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"bytes"
	"testing"
)

// Whatever lies in a record, only what marshals to the same bytes is taken.
func FuzzProgress(f *testing.F) {
	good, err := (&progress{hash: []byte("hash"), place: []byte("place")}).marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:3])
	f.Add([]byte{1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parseProgress(data)
		if err != nil {
			return
		}
		if again, err := p.marshal(); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%x became %x, %v", data, again, err)
		}
	})
}
