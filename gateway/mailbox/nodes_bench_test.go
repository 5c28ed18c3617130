// SPDX-License-Identifier: Apache-2.0

package mailbox_test

import (
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/store/relay"
	"valise/internal/testenv"
)

// BenchmarkNodes is 64 messages in a batch, to recipients who have acknowledged the batch
// before, on one PostgreSQL: by a gateway that has it to itself, and by one, two and three
// that share it. Senders are at one gateway each, recipients everywhere.
func BenchmarkNodes(b *testing.B) {
	const devices, batch = 257, 64
	for nodes := range 4 {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			dsn := testenv.Postgres(b).DSN
			var stores []mailbox.Store
			if nodes == 0 {
				s, err := relay.OpenShared(b.Context(), relay.SharedConfig{Database: dsn, Alone: true})
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				found(b, s, devices)
				stores = append(stores, s)
			} else {
				for _, s := range openSitesOn(b, dsn, devices, nodes) {
					stores = append(stores, s)
				}
			}
			payload := make([]byte, 1024)
			_, _ = rand.Read(payload)
			started := time.Now()
			var left, done atomic.Int64
			var all sync.WaitGroup
			n := 0
			for b.Loop() {
				n++
			}
			left.Store(int64(max(n, 200)))
			for at, s := range stores {
				all.Go(func() {
					counters := make([]uint64, devices)
					counters[0] = 1
					var acks []mailbox.Ack
					for i := 0; left.Add(-1) >= 0; i += batch {
						subs := make([]*mailbox.Submission, batch)
						for j := range subs {
							from := (at + (i+j)*len(stores)) % 255 / len(stores) * len(stores)
							from = (from + at) % 256
							counters[from]++
							subs[j] = message(from, counters[from], "", (i*7+j*3+at)%256)
							subs[j].Messages[0].Payload = payload
						}
						outcomes, err := s.Apply(b.Context(), subs, acks)
						if err != nil || outcomes[0].Verdict != mailbox.Done {
							b.Error(outcomes, err)
							return
						}
						acks = acks[:0]
						for _, o := range outcomes {
							for _, p := range o.Placed {
								acks = append(acks, mailbox.Ack{Device: p.Device, Number: p.Number})
							}
						}
						done.Add(batch)
					}
				})
			}
			all.Wait()
			report(b, fmt.Sprintf("mailbox_nodes_%d", nodes), float64(done.Load())/time.Since(started).Seconds(), "messages/s")
		})
	}
}
