// SPDX-License-Identifier: Apache-2.0

package mailbox_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/figure"
	"valise/internal/store/relay"
	"valise/internal/testenv"
)

// BenchmarkPut measures messages a second into the real store, by batch size:
// body, pointer, both devices' counters, the submission's hash, synced. Run on a
// disk, not on tmpfs: TMPDIR=/var/tmp go test -bench Put ./gateway/mailbox
func BenchmarkPut(b *testing.B) {
	for _, batch := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			benchmarkPut(b, openStore(b, 257), batch, 1, false, fmt.Sprintf("mailbox_put_batch_%d", batch))
		})
	}
}

// BenchmarkPutJournal is BenchmarkPut with the store that a gateway has, the journal in
// front of SQLite: look at both of one run. "fetched" is with recipients who acknowledge
// the batch before with each batch, so that nothing has to be moved into the database;
// "waiting" with recipients who are away, so that all of it has to.
func BenchmarkPutJournal(b *testing.B) {
	for _, batch := range []int{1, 16, 64, 256} {
		for what, fetched := range map[string]bool{"fetched": true, "waiting": false} {
			b.Run(fmt.Sprint(what, "/", batch), func(b *testing.B) {
				benchmarkPut(b, openJournaled(b, 257), batch, 1, fetched, fmt.Sprintf("mailbox_put_journal_%s_batch_%d", what, batch))
			})
		}
	}
}

// openJournaled opens the store that ships.
func openJournaled(b *testing.B, devices int) mailbox.Store {
	b.Helper()
	s, err := relay.OpenJournaled(b.Context(), relay.Config{Path: filepath.Join(b.TempDir(), "relay.db")})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	found(b, s, devices)
	return s
}

// BenchmarkPutPostgreSQL is BenchmarkPut with the other database, in a server on the
// same machine: TMPDIR has nothing to say about where that keeps its files.
func BenchmarkPutPostgreSQL(b *testing.B) {
	for _, batch := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			s, err := relay.OpenShared(b.Context(), relay.SharedConfig{Database: testenv.Postgres(b).DSN})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			found(b, s, 257)
			benchmarkPut(b, s, batch, 1, false, fmt.Sprintf("mailbox_put_postgresql_batch_%d", batch))
		})
	}
}

// BenchmarkFanOut is 64 messages in a batch, each to sixteen devices, which have
// acknowledged what the batch before brought: what a store costs in a conversation.
func BenchmarkFanOut(b *testing.B) {
	b.Run("sqlite", func(b *testing.B) { benchmarkPut(b, openStore(b, 257), 64, 16, true, "mailbox_fan_out_sqlite") })
	b.Run("journal", func(b *testing.B) { benchmarkPut(b, openJournaled(b, 257), 64, 16, true, "mailbox_fan_out_journal") })
	b.Run("postgresql", func(b *testing.B) {
		s, err := relay.OpenShared(b.Context(), relay.SharedConfig{Database: testenv.Postgres(b).DSN})
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close()
		found(b, s, 257)
		benchmarkPut(b, s, 64, 16, true, "mailbox_fan_out_postgresql")
	})
}

// benchmarkPut applies batches of messages, each to so many devices, who have
// acknowledged the batch before if they are to fetch.
func benchmarkPut(b *testing.B, s mailbox.Store, batch, fan int, fetch bool, name string) {
	payload := make([]byte, 1024)
	_, _ = rand.Read(payload)
	counters := make([]uint64, 257)
	counters[0] = 1
	next := func(i int) *mailbox.Submission {
		from := i % 256
		counters[from]++
		sub := message(from, counters[from], "", (i*7+1)%256)
		for j := 1; j < fan; j++ {
			sub.Messages[0].To = append(sub.Messages[0].To, device((i*7+1+j)%256))
		}
		sub.Messages[0].Payload = payload
		return sub
	}
	started, busy, done := time.Now(), processorTime(), 0
	var acks []mailbox.Ack
	for b.Loop() {
		subs := make([]*mailbox.Submission, batch)
		for i := range subs {
			subs[i] = next(done + i)
		}
		outcomes, err := s.Apply(b.Context(), subs, acks)
		if err != nil || outcomes[0].Verdict != mailbox.Done {
			b.Fatal(outcomes, err)
		}
		done += batch
		if acks = nil; fetch {
			for _, o := range outcomes {
				for _, p := range o.Placed {
					acks = append(acks, mailbox.Ack{Device: p.Device, Number: p.Number})
				}
			}
		}
	}
	b.ReportMetric(float64((processorTime()-busy).Microseconds())/float64(done), "cpu-µs/message")
	report(b, name, float64(done)/time.Since(started).Seconds(), "messages/s")
}

// processorTime is what this process has used, the mover's share among it.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkGroupCommit measures the same through the Box: 256 senders, each
// waiting for its acknowledgement before it sends again, batches as they come.
func BenchmarkGroupCommit(b *testing.B) {
	for _, senders := range []int{1, 16, 256} {
		b.Run(fmt.Sprint(senders), func(b *testing.B) {
			s := openJournaled(b, 257)
			var batches, puts int
			box, _ := run(b, mailbox.Config{Store: s, Observe: func(o mailbox.Observed) { n := o.Submissions; batches, puts = batches+1, puts+n }})
			payload := make([]byte, 1024)
			_, _ = rand.Read(payload)
			tickets := make(chan struct{})
			var all sync.WaitGroup
			started := time.Now()
			for from := range senders {
				counter := uint64(0)
				if from == 0 {
					counter = 1
				}
				all.Go(func() {
					for range tickets {
						counter++
						sub := message(from, counter, "", 256)
						sub.Messages[0].Payload = payload
						if o, err := box.Do(b.Context(), sub); err != nil || !o.OK() {
							b.Error(o, err)
							return
						}
						if counter%64 == 0 {
							box.Ack(device(256), counter/2) // well behind what was put
						}
					}
				})
			}
			n := 0
			for b.Loop() {
				tickets <- struct{}{}
				n++
			}
			close(tickets)
			all.Wait()
			rate := float64(n) / time.Since(started).Seconds()
			b.ReportMetric(float64(puts)/float64(max(batches, 1)), "puts/batch")
			report(b, fmt.Sprintf("mailbox_group_commit_%d", senders), rate, "messages/s")
		})
	}
}

// BenchmarkDrain measures reading a mailbox of 20,000 messages in the portions
// that a delivery stream reads.
func BenchmarkDrain(b *testing.B) {
	s, err := relay.OpenJournaled(b.Context(), relay.Config{Path: filepath.Join(b.TempDir(), "relay.db")})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	const n = 20_000
	for i := range 2 {
		if _, err := s.Arrive(b.Context(), mailbox.Arrival{Device: device(i), Address: "a@x.example", Chain: [][]byte{{1}}, Incarnation: incarnation, Begin: true, Time: time.Now()}); err != nil {
			b.Fatal(err)
		}
	}
	subs := []*mailbox.Submission{{
		Device: device(0), Incarnation: incarnation, Counter: 1, Time: time.Now(),
		Step: &mailbox.Step{Group: []byte("g"), Create: true, Info: []byte("i")},
	}}
	payload := make([]byte, 1024)
	for i := range n {
		sub := message(0, uint64(i)+2, "", 1)
		sub.Messages[0].Payload = payload
		subs = append(subs, sub)
	}
	if _, err := s.Apply(b.Context(), subs, nil); err != nil {
		b.Fatal(err)
	}
	started, done := time.Now(), 0
	for b.Loop() {
		for after := uint64(0); after < n; {
			entries, err := s.Read(b.Context(), device(1), after, 64, 512<<10)
			if err != nil || len(entries) == 0 {
				b.Fatal(len(entries), err)
			}
			after = entries[len(entries)-1].Number
			done += len(entries)
		}
	}
	report(b, "mailbox_drain", float64(done)/time.Since(started).Seconds(), "messages/s")
}

func report(b *testing.B, name string, value float64, unit string) {
	b.Helper()
	b.ReportMetric(value, unit)
	if err := figure.Print(os.Stdout, name, value, unit); err != nil {
		b.Log(err)
	}
}
