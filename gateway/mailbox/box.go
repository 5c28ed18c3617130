// SPDX-License-Identifier: Apache-2.0

package mailbox

import (
	"context"
	"errors"
	"math"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// ErrClosed is returned after Run has ended.
var ErrClosed = errors.New("mailbox: closed")

// A Config says how a Box works. Store is required.
type Config struct {
	Store      Store
	Batch      int           // submissions in one transaction; 0 means DefaultBatch
	BatchBytes int           // payload in one transaction; 0 means DefaultBatchBytes
	IdleAck    time.Duration // 0 means idleAck
	// Hear, if set, is told what other gateways on the store tell, one after the other,
	// after the readers here have been woken for it.
	Hear func(News)
	// SlowLook is how often what no news has told is looked for; 0 means slowLook.
	SlowLook time.Duration
	// Observe, if set, is told of each batch that was done, by the committer.
	Observe func(Observed)
}

// Observed is what a batch took.
type Observed struct {
	Submissions int
	Waited      time.Duration // the oldest submission, from its Time on
	Commit      time.Duration // the transaction, sync included
	Told        time.Duration // handing out, reporting and waking
}

// A Box puts submissions on disk in batches and wakes their recipients.
type Box struct {
	cfg   Config
	queue *queue

	// What follows belongs to the committer, and is used again for each batch.
	submissions []*Submission
	handing     []handing
	woken       []*Subscription
	others      others

	mu       sync.Mutex
	acks     map[Device]Ack           // guarded by mu; not yet in the store
	ackTimer *time.Timer              // guarded by mu; runs while acks wait
	readers  map[Device]*Subscription // guarded by mu

	ackDue chan struct{}
}

// New returns a Box. It does nothing before Run.
func New(cfg Config) *Box {
	if cfg.Batch == 0 {
		cfg.Batch = DefaultBatch
	}
	if cfg.BatchBytes == 0 {
		cfg.BatchBytes = DefaultBatchBytes
	}
	if cfg.IdleAck == 0 {
		cfg.IdleAck = idleAck
	}
	if cfg.SlowLook == 0 {
		cfg.SlowLook = slowLook
	}
	return &Box{
		cfg: cfg, queue: newQueue(), others: newOthers(cfg),
		acks: make(map[Device]Ack), readers: make(map[Device]*Subscription),
		ackDue: make(chan struct{}, 1),
	}
}

// Depth is how many submissions wait for the committer.
func (b *Box) Depth() int { return b.queue.len() }

// Submit queues a submission; it blocks while the queue is full. If it returns
// nil, report is called once, from the committer, and must not block.
func (b *Box) Submit(ctx context.Context, s *Submission, report func(Outcome, error)) error {
	return b.Put(ctx, s, reportFunc(report))
}

// Put is Submit for many: what follows from reports is put off to the end of the
// batch.
func (b *Box) Put(ctx context.Context, s *Submission, r Reporter) error {
	return b.queue.put(ctx, item{s, r})
}

// Do submits and waits for the outcome. Once queued it waits even if ctx ends:
// the caller must learn what happened.
func (b *Box) Do(ctx context.Context, s *Submission) (Outcome, error) {
	type result struct {
		outcome Outcome
		err     error
	}
	results := make(chan result, 1)
	if err := b.Submit(ctx, s, func(o Outcome, err error) { results <- result{o, err} }); err != nil {
		return Outcome{}, err
	}
	r := <-results
	return r.outcome, r.err
}

// Ack notes that a device has persisted everything up to a number. It reaches
// the store with the next batch.
func (b *Box) Ack(device Device, number uint64) { b.AckSeat(Seat{Device: device}, number) }

// AckSeat is Ack for what came over one of a device's connections.
func (b *Box) AckSeat(seat Seat, number uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	had, ok := b.acks[seat.Device]
	if number == 0 || ok && (seat.Turn < had.Turn || seat.Turn == had.Turn && number <= had.Number) {
		return
	}
	b.acks[seat.Device] = Ack{seat.Device, number, seat.Turn}
	if b.ackTimer == nil {
		b.ackTimer = time.AfterFunc(b.cfg.IdleAck, func() {
			select {
			case b.ackDue <- struct{}{}:
			default:
			}
		})
	}
}

// Run commits until ctx ends, then commits what is queued and returns. It follows other
// gateways on the store meanwhile, and ends if it cannot.
func (b *Box) Run(ctx context.Context) error {
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return b.follow(ctx) })
	work.Go(func() error { return b.run(ctx) })
	return work.Wait()
}

func (b *Box) run(ctx context.Context) error {
	defer b.shut()
	// The store's statements must not be cut off half-way by a shutdown.
	work := context.WithoutCancel(ctx)
	var batch []item
	for {
		select {
		case <-b.queue.more:
			letOthersIn()
			batch = b.queue.take(batch[:0], b.cfg.Batch, b.cfg.BatchBytes)
			b.commit(work, order(batch))
			clear(batch)
		case <-b.ackDue:
			b.commit(work, nil)
		case <-ctx.Done():
			for b.queue.len() > 0 {
				b.commit(work, order(b.queue.take(nil, b.cfg.Batch, b.cfg.BatchBytes)))
			}
			b.commit(work, nil)
			return nil
		}
	}
}

// letOthersIn lets goroutines run that are about to bring something: on a busy machine
// the batch grows by what has already arrived, on an idle one it costs nothing.
func letOthersIn() {
	for range yields {
		runtime.Gosched()
	}
}

// shut refuses what slipped into the queue behind the last batch.
func (b *Box) shut() {
	b.queue.close()
	for _, it := range b.queue.take(nil, queueLength, math.MaxInt) {
		it.reporter.Report(Outcome{}, ErrClosed)
		it.reporter.Flush()
	}
}

func (s *Submission) size() int {
	n := 0
	for i := range s.Messages {
		n += len(s.Messages[i].Payload)
	}
	for i := range s.KeyPackages {
		n += len(s.KeyPackages[i].Package)
	}
	return n
}

// commit puts a batch on disk: what arrived while the one before was being synced.
func (b *Box) commit(ctx context.Context, batch []item) {
	acks := b.takeAcks()
	if len(batch) == 0 && len(acks) == 0 {
		return
	}
	started := time.Now()
	b.submissions = b.submissions[:0]
	for _, it := range batch {
		b.submissions = append(b.submissions, it.submission)
	}
	outcomes, err := b.cfg.Store.Apply(ctx, b.submissions, acks)
	clear(b.submissions)
	if err != nil {
		b.keepAcks(acks)
	} else if store, ok := b.cfg.Store.(postponer); ok {
		b.keepAcks(store.PutOff())
	}
	if err != nil && len(batch) > 1 {
		// One submission that the store cannot take must not refuse the others.
		for i := range batch {
			b.commit(ctx, batch[i:i+1])
		}
		return
	}
	if b.cfg.Observe == nil || len(batch) == 0 || err != nil {
		b.tell(batch, outcomes, err)
		return
	}
	o := Observed{Submissions: len(batch), Commit: time.Since(started)}
	for _, it := range batch {
		o.Waited = max(o.Waited, started.Sub(it.submission.Time))
	}
	committed := time.Now()
	b.tell(batch, outcomes, nil)
	o.Told = time.Since(committed)
	b.cfg.Observe(o)
}

// tell hands out what was committed and reports it, and wakes everybody at the end.
func (b *Box) tell(batch []item, outcomes []Outcome, err error) {
	if err == nil {
		b.hand(batch, outcomes)
	} else {
		for _, it := range batch { // it may have happened, and nobody may ask again
			b.handAgain(it.submission)
		}
	}
	b.others.send()
	for i, it := range batch {
		if err != nil {
			it.reporter.Report(Outcome{}, err)
		} else {
			it.reporter.Report(outcomes[i], nil)
		}
	}
	for _, s := range b.woken {
		s.listed = false
		s.nudge()
	}
	clear(b.woken)
	b.woken = b.woken[:0]
	for _, it := range batch {
		it.reporter.Flush()
	}
}

func (b *Box) takeAcks() []Ack {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ackTimer != nil {
		b.ackTimer.Stop()
		b.ackTimer = nil
	}
	if len(b.acks) == 0 {
		return nil
	}
	acks := make([]Ack, 0, len(b.acks))
	for _, a := range b.acks {
		acks = append(acks, a)
	}
	clear(b.acks)
	return acks
}

// A postponer is a Store that leaves acknowledgements for a later batch where the present one
// would have to wait for somebody. PutOff returns those of the last Apply.
type postponer interface{ PutOff() []Ack }

// keepAcks puts acknowledgements back that the store did not take.
func (b *Box) keepAcks(acks []Ack) {
	for _, a := range acks {
		b.AckSeat(Seat{a.Device, a.Turn}, a.Number)
	}
}
