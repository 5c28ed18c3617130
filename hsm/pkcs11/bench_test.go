// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package pkcs11

import (
	"crypto"
	"crypto/rand"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"valise/hsm"
	"valise/internal/figure"
)

// BenchmarkSign8 measures eight sessions that sign with P-256 on SoftHSM, through
// this package and by bare calls of miekg/pkcs11, which do the same signature and
// nothing else: no pool, no lock, no ASN.1. Both take turns within one run, on
// one token and one key, and the order rotates; the figure is the median of the
// rounds' ratios.
func BenchmarkSign8(b *testing.B) {
	const workers, rounds, slice = 8, 12, 250 * time.Millisecond
	softHSM(b, "bench")
	token := openConfig(b, Config{Module: library(b), Label: "bench", PIN: rightPIN, Sessions: workers})
	made := generate(b, token, "k", hsm.P256).(*key)
	ctx := token.module.ctx

	sessions := make([]p11.SessionHandle, workers)
	for i := range sessions {
		s, err := ctx.OpenSession(token.slot, p11.CKF_SERIAL_SESSION)
		if err != nil {
			b.Fatal(err)
		}
		sessions[i] = s
	}
	mechanism := []*p11.Mechanism{p11.NewMechanism(p11.CKM_ECDSA, nil)}
	bare := func(worker int) error {
		if err := ctx.SignInit(sessions[worker], mechanism, made.handle); err != nil {
			return err
		}
		_, err := ctx.Sign(sessions[worker], digest[:])
		return err
	}
	ours := func(int) error { _, err := made.Sign(rand.Reader, digest[:], crypto.SHA256); return err }

	measure := func(sign func(worker int) error) float64 {
		var group sync.WaitGroup
		counts := make([]int, workers)
		begin := time.Now()
		for worker := range workers {
			group.Go(func() {
				for time.Since(begin) < slice {
					if err := sign(worker); err != nil {
						b.Error(err)
						return
					}
					counts[worker]++
				}
			})
		}
		group.Wait()
		total := 0
		for _, n := range counts {
			total += n
		}
		return float64(total) / time.Since(begin).Seconds()
	}
	for b.Loop() {
		measure(bare) // warm up
		var ratios, rates, bares []float64
		for round := range rounds {
			var mine, raw float64
			if round%2 == 0 {
				mine, raw = measure(ours), measure(bare)
			} else {
				raw, mine = measure(bare), measure(ours)
			}
			ratios, rates, bares = append(ratios, mine/raw), append(rates, mine), append(bares, raw)
		}
		fmt.Println()
		figure.Print(os.Stdout, "hsm_pkcs11_sign_8", median(rates), "sign/s")
		figure.Print(os.Stdout, "hsm_pkcs11_sign_8_raw", median(bares), "sign/s")
		figure.Print(os.Stdout, "hsm_pkcs11_sign_8_ratio", median(ratios), "ratio")
	}
}

func median(v []float64) float64 {
	slices.Sort(v)
	return (v[len(v)/2] + v[(len(v)-1)/2]) / 2
}
