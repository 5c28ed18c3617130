// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/store/relay/journal"
)

// TestSameAnswers does the same random work on the store with a journal and on the one
// without, and wants the same answers, over restarts, with files so small that mail
// is moved all the time, and with files so large that it never is. VALISE_SEED=now does
// other work each time, VALISE_SEED=N that of a run that failed.
func TestSameAnswers(t *testing.T) {
	for _, segment := range []int64{32 << 10, 0} {
		t.Run(fmt.Sprint(segment), func(t *testing.T) {
			seed := uint64(22)
			if v := os.Getenv("VALISE_SEED"); v == "now" {
				seed = uint64(time.Now().UnixNano())
			} else if v != "" {
				if _, err := fmt.Sscan(v, &seed); err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("seed %d", seed)
			m := &model{t: t, r: rand.New(rand.NewPCG(seed, 1)), verdicts: map[mailbox.Verdict]int{}, plain: sqlitePlace(t), journal: journalPlace(t, segment)}
			m.quota = mailbox.Quota{Messages: 40, Bytes: 20_000, Packages: 6}
			m.a, m.b = m.plain.open(t, m.quota), m.journal.open(t, m.quota)
			for i := range 8 {
				m.arrive(i, 1)
			}
			for round := range 300 {
				m.round(round)
				if t.Failed() {
					return
				}
			}
			m.everything()
			for v := mailbox.Done; v <= mailbox.Barred; v++ {
				if m.verdicts[v] == 0 {
					t.Logf("verdict %d never came", v)
				}
			}
			if m.verdicts[mailbox.Done] < 100 || len(m.verdicts) < 7 {
				t.Errorf("the work was too poor: %v", m.verdicts)
			}
		})
	}
}

// model drives two stores.
type model struct {
	t              *testing.T
	r              *rand.Rand
	plain, journal place
	quota          mailbox.Quota
	a, b           mailbox.Store
	life           [10]byte
	counters       [10]uint64
	epochs         [3]uint64
	made           [3]bool
	clock          int64
	verdicts       map[mailbox.Verdict]int
}

// same compares what both stores say.
func (m *model) same(what string, f func(s mailbox.Store) string) string {
	m.t.Helper()
	want, got := f(m.a), f(m.b)
	if want != got {
		m.t.Errorf("%s:\nwithout a journal %.600s\nwith one         %.600s", what, want, got)
	}
	return want
}

func say(v any, err error) string { return fmt.Sprintf("%+v, %v", v, err) }

func (m *model) arrive(d int, life byte) {
	a := mailbox.Arrival{
		Device: device(d), Address: fmt.Sprintf("p%d@x.example", d%4), Chain: [][]byte{{1}, {byte(m.r.IntN(2))}},
		Incarnation: [16]byte{life}, Begin: m.r.IntN(3) > 0 || life == 1, Time: time.Unix(1000+m.clock, 0),
	}
	var st mailbox.Standing
	m.same("arrive", func(s mailbox.Store) string {
		var err error
		st, err = s.Arrive(m.t.Context(), a)
		return say(st, err)
	})
	if st.Incarnation != [16]byte{} {
		m.life[d], m.counters[d] = st.Incarnation[0], st.Counter
	}
}

func (m *model) round(n int) {
	m.clock++
	switch m.r.IntN(24) {
	default:
		m.apply(n)
	case 0:
		m.arrive(m.r.IntN(10), byte(1+m.r.IntN(4)))
	case 1, 2, 3, 4:
		m.look(m.r.IntN(10))
	case 5:
		m.same("restart", func(mailbox.Store) string { return "" })
		m.a, m.b = m.plain.reopen(m.t, m.a, m.quota), m.journal.reopen(m.t, m.b, m.quota)
	case 6:
		d, on := m.r.IntN(9), m.r.IntN(3) == 0
		m.same("quarantine", func(s mailbox.Store) string { return say(nil, s.Quarantine(m.t.Context(), device(d), on)) })
	case 7:
		if m.r.IntN(8) == 0 {
			d := 6 + m.r.IntN(4)
			m.same("purge", func(s mailbox.Store) string { return say(nil, s.Purge(m.t.Context(), device(d))) })
		}
	case 8:
		before, limit := time.UnixMilli(m.clock*10-int64(m.r.IntN(400))), 1+m.r.IntN(9)
		m.same("expire", func(s mailbox.Store) string { return say(s.Expire(m.t.Context(), before, limit)) })
	case 9:
		m.everything()
	case 10:
		blob := mailbox.Blob{ID: [32]byte{byte(n)}, Group: []byte{'g', byte(m.r.IntN(3))}, Size: 9, Owner: device(m.r.IntN(8)), Name: fmt.Sprint("n", n), Expires: m.clock}
		m.same("begin a file", func(s mailbox.Store) string {
			return say(s.BeginBlob(m.t.Context(), blob, mailbox.BlobLimits{Owner: 2 * mailbox.BlobUnit}, mailbox.Claim{Holder: [16]byte{1}}))
		})
		m.same("a file is done with", func(s mailbox.Store) string {
			ended, err := s.BlobDone(m.t.Context(), blob.ID, blob.Owner, m.clock)
			return say(ended, err)
		})
		m.same("files", func(s mailbox.Store) string { return say(s.ExpiredBlobs(m.t.Context(), time.Unix(m.clock, 0), 100)) })
	}
}

// apply does a batch of submissions, right and wrong ones.
func (m *model) apply(n int) {
	var batch []*mailbox.Submission
	counters, epochs, made := m.counters, m.epochs, m.made
	for range m.r.IntN(8) {
		batch = append(batch, m.submission(n, &counters, &epochs, &made))
	}
	var acks []mailbox.Ack
	for range m.r.IntN(5) {
		d := m.r.IntN(10)
		last, err := m.a.Last(m.t.Context(), device(d))
		if err != nil {
			m.t.Fatal(err)
		}
		acks = append(acks, mailbox.Ack{Device: device(d), Number: uint64(max(0, int64(last)-int64(m.r.IntN(6))+1))})
	}
	var outcomes []mailbox.Outcome
	m.same("apply", func(s mailbox.Store) string {
		var err error
		outcomes, err = s.Apply(m.t.Context(), batch, acks)
		return say(outcomes, err)
	})
	for i, o := range outcomes {
		sub := batch[i]
		m.verdicts[o.Verdict]++
		for d := range 10 {
			if o.Verdict == mailbox.Done && sub.Device == device(d) {
				m.counters[d] = sub.Counter
			}
		}
		if o.Verdict == mailbox.Done && sub.Step != nil {
			g := sub.Step.Group[1]
			m.epochs[g], m.made[g] = sub.Step.To, true
		}
	}
}

func (m *model) submission(n int, counters *[10]uint64, epochs *[3]uint64, made *[3]bool) *mailbox.Submission {
	from, g := m.r.IntN(10), m.r.IntN(3)
	counters[from]++
	counter := counters[from]
	switch m.r.IntN(12) {
	case 0:
		counter -= min(counter-1, uint64(m.r.IntN(4))) // again
	case 1:
		counter++ // one is missing
	}
	text := fmt.Sprint(from, m.life[from], counter)
	if m.r.IntN(20) == 0 {
		text += "!" // other bytes
	}
	sub := &mailbox.Submission{
		Device: device(from), Incarnation: [16]byte{m.life[from]}, Counter: counter, Hash: sha256.Sum256([]byte(text)), Time: time.UnixMilli(m.clock * 10),
	}
	id := []byte{'g', byte(g)}
	msg := mailbox.Message{Kind: mailbox.Content, Group: id, Epoch: epochs[g], Payload: []byte(text + string(make([]byte, m.r.IntN(900))))}
	for d := range 10 {
		if (d < 8 || m.r.IntN(9) == 0) && m.r.IntN(3) == 0 {
			msg.To = append(msg.To, device(d))
		}
	}
	switch k := m.r.IntN(10); {
	case k == 0 || !made[g]:
		sub.Step = &mailbox.Step{Group: id, Create: !made[g], From: epochs[g], To: epochs[g] + 1, Info: []byte(text), Records: []mailbox.Record{
			{Key: "a", Value: []byte(text)}, {Key: fmt.Sprint("k", m.r.IntN(4)), Value: []byte{}}, {Key: fmt.Sprint("k", m.r.IntN(4))},
		}}
		sub.Step.Joined = []mailbox.Device{device(m.r.IntN(10)), device(m.r.IntN(10))}
		sub.Step.Left = []mailbox.Device{device(m.r.IntN(10))}
		msg.Kind = mailbox.Commit
		made[g] = true
		epochs[g]++
		sub.Messages = []mailbox.Message{msg}
	case k == 1:
		for range 1 + m.r.IntN(3) {
			sub.KeyPackages = append(sub.KeyPackages, mailbox.KeyPackage{
				Device: device(from), Suite: uint16(m.r.IntN(2)), LastResort: m.r.IntN(4) == 0, Expires: m.clock/100 + int64(m.r.IntN(30)), Package: []byte(text),
			})
		}
	default:
		sub.Require = &mailbox.Epoch{Group: id, Epoch: epochs[g]}
		sub.Messages = []mailbox.Message{msg}
		if m.r.IntN(4) == 0 {
			sub.Messages = append(sub.Messages, msg)
			sub.Messages[1].Kind = mailbox.Welcome
		}
	}
	return sub
}

// look asks all that can be asked about one device.
func (m *model) look(d int) {
	ctx, id := m.t.Context(), device(d)
	m.same("last", func(s mailbox.Store) string { return say(s.Last(ctx, id)) })
	after, count, bytes := uint64(m.r.IntN(40)), 1+m.r.IntN(20), 1+m.r.IntN(5000)
	m.same("read", func(s mailbox.Store) string { return say(s.Read(ctx, id, after, count, bytes)) })
	counter := m.counters[d] - min(m.counters[d], uint64(m.r.IntN(5))) + uint64(m.r.IntN(2))
	m.same("recall", func(s mailbox.Store) string { return say(s.Recall(ctx, id, counter)) })
	suite, now := uint16(m.r.IntN(2)), time.UnixMilli(m.clock*10)
	m.same("take", func(s mailbox.Store) string {
		taken, left, err := s.TakeKeyPackages(ctx, suite, []mailbox.Device{id, device(3)}, now)
		return fmt.Sprintf("%+v, %v, %v", taken, left, err)
	})
	address := fmt.Sprintf("p%d@x.example", d%4)
	m.same("devices", func(s mailbox.Store) string { return say(s.Devices(ctx, address)) })
	m.same("arrived", func(s mailbox.Store) string { return say(s.Arrived(ctx, address)) })
	m.same("known", func(s mailbox.Store) string { return say(s.Known(ctx, []mailbox.Device{id, device(77)})) })
	m.same("directory", func(s mailbox.Store) string { return say(s.Directory(ctx, "p", 5)) })
	group := []byte{'g', byte(m.r.IntN(3))}
	m.same("group", func(s mailbox.Store) string {
		g, err := s.Group(ctx, group)
		return fmt.Sprintf("%+v, %v", g, err)
	})
}

// everything compares all mail, and the sizes.
func (m *model) everything() {
	ctx := m.t.Context()
	for d := range 10 {
		m.same(fmt.Sprint("mail of ", d), func(s mailbox.Store) string { return say(s.Read(ctx, device(d), 0, 1000, 1<<30)) })
	}
	for d := range 10 {
		m.same(fmt.Sprint("groups of ", d), func(s mailbox.Store) string {
			ids, _, err := s.GroupsOf(ctx, device(d), 0, 10)
			return say(ids, err)
		})
	}
	m.same("holds", func(s mailbox.Store) string { return say(s.Holds(ctx)) })
	m.same("totals", func(s mailbox.Store) string { return say(s.Totals(ctx)) })
}

// Every batch is written in one way only: what is read is written the same again.
func FuzzParseRecord(f *testing.F) {
	dir := f.TempDir()
	j := openJournaled(f, Config{Path: filepath.Join(dir, "relay.db")})
	populate(f, j, 3)
	apply(f, j, content(0, 2, "two", 1, 2), mailbox.Ack{Device: device(1), Number: 0})
	apply(f, j, packages(1, 1, incarnation, time.Now().Add(time.Hour), 2))
	if err := j.Quarantine(f.Context(), device(2), true); err != nil {
		f.Fatal(err)
	}
	id := j.log.ID()
	if err := j.Close(); err != nil { // the mover reads the journal, too
		f.Fatal(err)
	}
	log, err := journal.Open(journal.Config{Dir: JournalDir(filepath.Join(dir, "relay.db")), ID: id})
	if err != nil {
		f.Fatal(err)
	}
	if err := errors.Join(log.Replay(0, copier{f}.add), log.Close()); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{recordVersion})
	f.Fuzz(func(t *testing.T, data []byte) {
		w := &writer{b: []byte{recordVersion}}
		if err := parseRecord(data, w); err != nil {
			return
		}
		if string(w.b) != string(data) {
			t.Errorf("%x became %x", data, w.b)
		}
	})
}

// Devices that only come and go do not pile up in memory.
func TestVisitorsAreForgotten(t *testing.T) {
	j := openJournaled(t, Config{Path: filepath.Join(t.TempDir(), "relay.db")})
	populate(t, j, 12)
	if err := j.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	j.cfg.noticed = 5
	for i := range 12 {
		arrive(t, j, device(i), incarnation, false)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.active) != 5 {
		t.Errorf("%d are kept, want 5", len(j.active))
	}
}
