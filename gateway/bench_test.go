// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"valise/internal/figure"
	"valise/mls"
	"valise/wire"
)

// BenchmarkRelay measures messages a second from senders to recipients through
// the whole gateway: QUIC, admission, ratchet header, group commit with fsync,
// delivery, acknowledgement. Devices run in the same process and take their
// share of the processors; messages are sealed beforehand. Run it on a disk:
// TMPDIR=/var/tmp go test -run xxx -bench Relay ./gateway
func BenchmarkRelay(b *testing.B) {
	for _, load := range []struct{ pairs, window int }{{1, 1}, {1, 16}, {8, 16}} {
		name := fmt.Sprintf("p%d_k%d", load.pairs, load.window)
		b.Run(name, func(b *testing.B) {
			gw := startGateway(b, gatewayOptions{})
			type pairing struct {
				from, to *testDevice
				group    *mls.Group
				sealed   []*wire.Send
			}
			pairs := make([]pairing, load.pairs)
			for i := range pairs {
				from, to := newDevice(b, gw, fmt.Sprintf("a%d", i)).ready(), newDevice(b, gw, fmt.Sprintf("b%d", i)).ready()
				g := from.found()
				from.add(g, from.take(to.local)...)
				to.join()
				pairs[i] = pairing{from: from, to: to, group: g}
			}
			text := string(make([]byte, 900))
			for n := range b.N {
				p := &pairs[n%len(pairs)]
				p.sealed = append(p.sealed, p.from.sealed(p.group, text))
			}
			b.ResetTimer()
			started := time.Now()
			var all sync.WaitGroup
			for i := range pairs {
				p := &pairs[i]
				all.Go(func() { pump(b, p.from, p.sealed, load.window) })
				all.Go(func() {
					for range p.sealed {
						if m := p.to.next(); m.Number%16 == 0 {
							p.to.ack(m.Number)
						}
					}
				})
			}
			all.Wait()
			rate := float64(b.N) / time.Since(started).Seconds()
			b.ReportMetric(rate, "messages/s")
			if b.N > 1 {
				if err := figure.Print(os.Stdout, "gateway_relay_"+name, rate, "messages/s"); err != nil {
					b.Log(err)
				}
			}
		})
	}
}

// pump keeps up to window messages unanswered.
func pump(b *testing.B, d *testDevice, sends []*wire.Send, window int) {
	flying := make(chan chan wire.Answer, window-1)
	done := make(chan struct{})
	wait := func(c chan wire.Answer) {
		if a, ok := (<-c).(*wire.Result); !ok || a.Code != wire.OK {
			b.Errorf("%s: %+v", d.local, a)
		}
	}
	go func() {
		defer close(done)
		for c := range flying {
			wait(c)
		}
	}()
	for _, s := range sends {
		d.counter++
		s.SetSubmissionCounter(d.counter)
		c := d.link.start(s)
		if window == 1 {
			wait(c)
		} else {
			flying <- c
		}
	}
	close(flying)
	<-done
}
