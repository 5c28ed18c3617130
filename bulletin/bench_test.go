// SPDX-License-Identifier: Apache-2.0

package bulletin_test

import (
	"bytes"
	"testing"
	"time"

	"valise/bulletin"
	"valise/manifest"
)

// BenchmarkIssuer is asked for the sender and each recipient of every message.
func BenchmarkIssuer(b *testing.B) {
	old, now := bytes.Repeat([]byte{1}, 900), bytes.Repeat([]byte{2}, 900)
	set := bulletin.NewSet().WithManifest(&manifest.Manifest{Issuers: []manifest.Issuer{
		{Certificate: old, Until: time.Unix(1, 0)}, {Certificate: now},
	}})
	chain := [][]byte{{1}, bytes.Clone(now)} // each device has a copy of its own
	issued := time.Unix(2, 0)
	b.ReportAllocs()
	for b.Loop() {
		if !set.Issuer(chain, issued) {
			b.Fatal("refused")
		}
	}
}
