// SPDX-License-Identifier: Apache-2.0

package enroll_test

import (
	"os"
	"testing"

	"valise/enroll/enrolltest"
	"valise/hsm"
	"valise/internal/figure"
	"valise/internal/keys"
	"valise/internal/testenv"
)

// BenchmarkEnroll is one whole attested order (five POSTs, a nonce each) under an
// account, with the issuing key in SoftHSM and the database on disk. Client and
// server share the process.
func BenchmarkEnroll(b *testing.B) {
	soft := testenv.SoftHSM(b)
	token, err := keys.OpenToken(b.Context(), soft.URI(), keys.PINFromFile(soft.PINFile))
	if err != nil {
		b.Fatal(err)
	}
	defer token.Close()
	for _, algorithm := range []hsm.Algorithm{hsm.P256, hsm.P384} {
		b.Run(algorithm.String(), func(b *testing.B) {
			var o options
			for i, label := range []string{"root", "issuing"} {
				key, err := token.Generate(b.Context(), label+b.Name(), hsm.GenerateOptions{Algorithm: algorithm})
				if err != nil {
					b.Fatal(err)
				}
				o.keys[i] = key
			}
			s := newSite(b, o)
			card := s.vendor.Card(b, enrolltest.CardConfig{Curve: algorithm.Curve()})
			c := s.registered("alice")
			for b.Loop() {
				c.Enroll(s.invite("alice"), card)
			}
			name := map[hsm.Algorithm]string{hsm.P256: "enroll_softhsm_p256_one", hsm.P384: "enroll_softhsm_p384_one"}[algorithm]
			if err := figure.Print(os.Stdout, name, float64(b.N)/b.Elapsed().Seconds(), "certificate/s"); err != nil {
				b.Fatal(err)
			}
		})
	}
}
