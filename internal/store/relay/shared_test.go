// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/store"
	"valise/internal/testenv"
)

// Two processes on one database write into the same mailboxes at the same time, and
// acknowledge what is in them: every number is given once, in order, none is left
// out, and what nobody waits for any more is gone.
func TestTwoProcesses(t *testing.T) {
	database := testenv.Postgres(t).DSN
	stores := []*Shared{openShared(t, database, mailbox.Quota{}), openShared(t, database, mailbox.Quota{})}
	const devices, rounds = 8, 40
	populate(t, stores[0], devices)
	type placed struct {
		number uint64
		text   string
	}
	var mu sync.Mutex
	given := make(map[mailbox.Device][]placed)
	var all sync.WaitGroup
	for side, s := range stores {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(side), 1))
			counters := make([]uint64, devices)
			counters[0] = 1
			acked := make([]uint64, devices)
			for range rounds {
				var batch []*mailbox.Submission
				for range 1 + r.IntN(12) {
					from := side*devices/2 + r.IntN(devices/2) // a device is connected to one of them
					counters[from]++
					to := r.Perm(devices)[:1+r.IntN(devices-1)] // in any order
					batch = append(batch, content(from, counters[from], fmt.Sprintf("%d/%d", from, counters[from]), to...))
				}
				var acks []mailbox.Ack
				for d := side * devices / 2; d < (side+1)*devices/2; d++ {
					if last, err := s.Last(t.Context(), device(d)); err == nil && last > acked[d] {
						acked[d] += uint64(r.Int64N(int64(last-acked[d]) + 1))
						acks = append(acks, mailbox.Ack{Device: device(d), Number: acked[d]})
					}
				}
				outcomes, err := s.Apply(t.Context(), batch, acks)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for i, o := range outcomes {
					if o.Verdict != mailbox.Done {
						t.Errorf("%+v", o)
					}
					for _, p := range o.Placed {
						given[p.Device] = append(given[p.Device], placed{p.Number, string(batch[i].Messages[0].Payload)})
					}
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	var acks []mailbox.Ack
	for d := range devices {
		byNumber := make(map[uint64]string)
		for _, p := range given[device(d)] {
			if byNumber[p.number] != "" {
				t.Errorf("device %d: number %d was given twice", d, p.number)
			}
			byNumber[p.number] = p.text
		}
		last, err := stores[1].Last(t.Context(), device(d))
		if err != nil || last != uint64(len(byNumber)) {
			t.Errorf("device %d: the last number is %d, %d were given; %v", d, last, len(byNumber), err)
		}
		entries := read(t, stores[d%2], d, 0)
		if st := arrive(t, stores[d%2], device(d), [16]byte{}, false); uint64(len(entries)) != st.Last-st.Acknowledged {
			t.Errorf("device %d: %d messages wait, want %d to %d", d, len(entries), st.Acknowledged+1, st.Last)
		}
		for _, e := range entries {
			if byNumber[e.Number] != string(e.Payload) {
				t.Errorf("device %d: %d holds %q, want %q", d, e.Number, e.Payload, byNumber[e.Number])
			}
		}
		acks = append(acks, mailbox.Ack{Device: device(d), Number: last})
	}
	all.Go(func() { _, _ = stores[0].Apply(t.Context(), nil, acks[:devices/2]) })
	all.Go(func() { _, _ = stores[1].Apply(t.Context(), nil, acks[devices/2:]) })
	all.Wait()
	totals, err := stores[0].Totals(t.Context())
	if err != nil || totals.Messages != 0 || totals.Pointers != 0 {
		t.Errorf("left behind: %+v, %v", totals, err)
	}
	var refs int
	if err := stores[0].db.Read(t.Context(), func(st store.Statements) error {
		return st.QueryRowContext(t.Context(), "SELECT count(*) FROM refs").Scan(&refs)
	}); err != nil || refs != 0 {
		t.Errorf("%d counts of pointers are left, %v", refs, err)
	}
	for d, s := range stores { // what is held in a mailbox is counted right
		if st := arrive(t, s, device(d), [16]byte{}, false); st.Acknowledged != st.Last {
			t.Errorf("%+v", st)
		}
	}
}

// Of two commits of one epoch by way of two processes, the first wins and the other is
// told where the group stands; content for the former epoch is refused. However they
// meet, the mailboxes hold commits and content in an order that agrees with the epochs.
func TestTwoProcessesOneGroup(t *testing.T) {
	database := testenv.Postgres(t).DSN
	stores := []*Shared{openShared(t, database, mailbox.Quota{}), openShared(t, database, mailbox.Quota{})}
	populate(t, stores[0], 5)
	const epochs = 30
	var all sync.WaitGroup
	wins := make([]int, 2)
	for side, s := range stores {
		all.Go(func() {
			counter, writes := uint64(1), uint64(1)
			for epoch := uint64(0); epoch < epochs; {
				commit := content(side+1, counter, fmt.Sprintf("commit %d of %d", epoch, side), 0, 3)
				commit.Require = nil
				commit.Step = &mailbox.Step{Group: []byte("g"), From: epoch, To: epoch + 1, Info: []byte("i"), Records: []mailbox.Record{{Key: "k", Value: []byte{byte(side)}}}}
				commit.Messages[0].Kind, commit.Messages[0].Epoch = mailbox.Commit, epoch
				text := content(3+side, writes, fmt.Sprint("content ", side, writes), 0)
				text.Require.Epoch, text.Messages[0].Epoch = epoch, epoch
				outcomes, err := s.Apply(t.Context(), []*mailbox.Submission{commit, text}, nil)
				if err != nil {
					t.Error(err)
					return
				}
				switch o := outcomes[0]; {
				case o.Verdict == mailbox.Done:
					wins[side]++
					counter, epoch = counter+1, epoch+1
				case o.Verdict == mailbox.StaleEpoch && o.Epoch > epoch:
					epoch = o.Epoch
				default:
					t.Errorf("%+v", o)
					return
				}
				if outcomes[1].Verdict == mailbox.Done {
					t.Errorf("content for an epoch that is over was taken: %+v", outcomes[1])
				}
				text.Require.Epoch, text.Messages[0].Epoch = epoch, epoch
				if o := apply(t, s, text); o.Verdict == mailbox.Done {
					writes++
				}
			}
		})
	}
	all.Wait()
	if wins[0]+wins[1] != epochs {
		t.Errorf("%d and %d commits won %d epochs", wins[0], wins[1], epochs)
	}
	epoch := uint64(0)
	for _, e := range read(t, stores[1], 0, 0) {
		if e.Epoch != epoch {
			t.Fatalf("number %d is of epoch %d, behind the commit to %d", e.Number, e.Epoch, epoch)
		}
		if e.Kind == mailbox.Commit {
			epoch++
		}
	}
	if epoch != epochs {
		t.Errorf("%d commits in the mailbox", epoch)
	}
	for _, s := range stores {
		create := content(0, 2, "again", 1)
		create.Require, create.Step = nil, &mailbox.Step{Group: []byte("g"), Create: true, Info: []byte("i")}
		if o := apply(t, s, create); o.Verdict != mailbox.GroupExists {
			t.Errorf("%+v", o)
		}
	}
}

// No KeyPackage is handed out twice by two processes, and none is passed over.
func TestTwoProcessesTakeKeyPackages(t *testing.T) {
	database := testenv.Postgres(t).DSN
	stores := []*Shared{openShared(t, database, mailbox.Quota{Packages: 500}), openShared(t, database, mailbox.Quota{})}
	populate(t, stores[0], 1)
	const n = 60
	publish(t, stores[0], 0, 2, n)
	var mu sync.Mutex
	seen := make(map[byte]int)
	var all sync.WaitGroup
	for _, s := range stores {
		all.Go(func() {
			for range n / 2 {
				taken, _, err := s.TakeKeyPackages(t.Context(), 2, []mailbox.Device{device(0)}, time.Now())
				if err != nil || len(taken) != 1 {
					t.Error(taken, err)
					return
				}
				mu.Lock()
				if taken[0].LastResort {
					t.Error("the last resort was handed out before the others were gone")
				}
				seen[taken[0].Package[0]]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if len(seen) != n {
		t.Errorf("%d different ones of %d", len(seen), n)
	}
	taken, left, err := stores[1].TakeKeyPackages(t.Context(), 2, []mailbox.Device{device(0)}, time.Now())
	if err != nil || len(taken) != 1 || !taken[0].LastResort || left[device(0)] != 0 {
		t.Error(taken, left, err)
	}
}

// The same group by way of two processes: one founds it, the other is told.
func TestTwoProcessesFoundOneGroup(t *testing.T) {
	database := testenv.Postgres(t).DSN
	stores := []*Shared{openShared(t, database, mailbox.Quota{}), openShared(t, database, mailbox.Quota{})}
	populate(t, stores[0], 2)
	for round := range 20 {
		verdicts := make([]mailbox.Verdict, 2)
		var all sync.WaitGroup
		for side, s := range stores {
			all.Go(func() {
				counter := uint64(1)
				if st := arrive(t, s, device(side), [16]byte{}, false); st.Counter > 0 {
					counter = st.Counter + 1
				}
				sub := &mailbox.Submission{
					Device: device(side), Incarnation: incarnation, Counter: counter, Hash: sha256.Sum256([]byte{byte(round)}), Time: time.Now(),
					Step: &mailbox.Step{Group: fmt.Append(nil, "new", round), Create: true, Info: []byte("i")},
				}
				verdicts[side] = apply(t, s, sub).Verdict
			})
		}
		all.Wait()
		if fmt.Sprint(verdicts) != fmt.Sprint([]mailbox.Verdict{mailbox.Done, mailbox.GroupExists}) && fmt.Sprint(verdicts) != fmt.Sprint([]mailbox.Verdict{mailbox.GroupExists, mailbox.Done}) {
			t.Errorf("verdicts %v", verdicts)
		}
	}
}

// A gateway that wants to be alone refuses a second one, and takes over what one left.
func TestAlone(t *testing.T) {
	database := testenv.Postgres(t).DSN
	open := func(alone bool) (*Shared, error) {
		return OpenShared(context.Background(), SharedConfig{Database: database, Alone: alone})
	}
	first, err := open(true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(true); !errors.Is(err, ErrInUse) {
		t.Errorf("a second one: %v", err)
	}
	if err := first.Tidy(t.Context()); err != nil {
		t.Error(err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	second, err := open(true)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if _, err := OpenShared(t.Context(), SharedConfig{Database: "relay.db"}); err == nil {
		t.Error("a path was taken for a connection string")
	}
}

// The server ends in the middle of everything, again and again. What was acknowledged
// is there; what failed can be sent again, and is then done once, whether or not it had
// been done; the numbers have no gap.
func TestServerCrashes(t *testing.T) {
	server := testenv.PostgresServer(t)
	s, err := OpenShared(t.Context(), SharedConfig{Database: server.Database(t).DSN, Alone: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	populate(t, s, 4)
	const crashes = 4
	progress := make(chan int)
	stop := make(chan struct{})
	var repeated, failed int
	var texts []string
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		again := time.NewTicker(5 * time.Millisecond)
		defer again.Stop()
		for counter := uint64(2); ; counter++ {
			var batch []*mailbox.Submission
			for i := range 20 {
				batch = append(batch, content(0, counter+uint64(i), fmt.Sprint(counter+uint64(i)), 1, 2, 3))
			}
			for {
				outcomes, err := s.Apply(context.Background(), batch, nil)
				if err != nil {
					failed++
					<-again.C // the server starts
					continue
				}
				for _, o := range outcomes {
					if !o.OK() {
						t.Errorf("%+v", o)
					}
					if o.Verdict == mailbox.Repeated {
						repeated++
					}
				}
				break
			}
			for _, sub := range batch {
				texts = append(texts, string(sub.Messages[0].Payload))
			}
			counter += 19
			select {
			case progress <- len(texts):
			case <-stop:
				return
			}
		}
	}()
	for n := range crashes {
		for range 5 + n {
			<-progress
		}
		go func() { // the writer goes on meanwhile
			for range progress {
			}
		}()
		server.Crash(t)
		server.Start(t)
	}
	close(stop)
	<-ended
	close(progress)
	if failed == 0 {
		t.Error("no transaction met a crash")
	}
	t.Logf("%d submissions, %d attempts failed, %d had been done all the same", len(texts), failed, repeated)
	for d := 1; d < 4; d++ {
		entries, err := s.Read(t.Context(), device(d), 0, 1<<20, 1<<30)
		if err != nil || len(entries) != len(texts) {
			t.Fatalf("device %d has %d messages, %d were acknowledged; %v", d, len(entries), len(texts), err)
		}
		for i, e := range entries {
			if e.Number != uint64(i)+1 || string(e.Payload) != texts[i] {
				t.Fatalf("device %d: number %d is %q, want %q", d, e.Number, e.Payload, texts[i])
			}
		}
	}
	if err := s.Tidy(t.Context()); err != nil {
		t.Errorf("after the crashes: %v", err)
	}
}
