// SPDX-License-Identifier: Apache-2.0

package syslog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// An entry is a formatted message.
type entry struct{ text []byte }

// A Sender carries messages to one collector. Its methods may be called by any goroutine.
type Sender struct {
	cfg    Config
	dial   *dialer
	header header

	mu       sync.Mutex
	queue    []entry       // guarded by mu
	bytes    int           // guarded by mu; of queue
	sequence uint32        // guarded by mu; of the last message that was queued
	unsaid   uint64        // guarded by mu; lost, and the stream does not say so yet
	losing   bool          // guarded by mu; Lost was told that it began, and not that it ended
	episode  uint64        // guarded by mu; lost since it began
	why      error         // guarded by mu; why the last connection failed
	closing  bool          // guarded by mu
	more     chan struct{} // one place: something was queued
	sent     atomic.Uint64
	lost     atomic.Uint64
	up       atomic.Bool

	telling sync.Mutex // held while Lost is called
	stop    context.CancelFunc
	hasty   chan struct{} // closed by Close: what is queued goes now or never
	done    chan struct{}
}

// Open checks the configuration and begins to connect. It does not wait for the
// collector: one that is away is no reason not to start.
func Open(cfg Config) (*Sender, error) {
	d, err := cfg.dialer()
	if err != nil {
		return nil, err
	}
	if cfg.Program == "" {
		return nil, errors.New("syslog: program must be given")
	}
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	cfg.queue, cfg.bytes = cmp.Or(cfg.queue, maxQueue), cmp.Or(cfg.bytes, maxQueueBytes)
	s := &Sender{
		cfg: cfg, dial: d, more: make(chan struct{}, 1), hasty: make(chan struct{}), done: make(chan struct{}),
		header: header{
			host: host, program: cfg.Program, process: strconv.Itoa(os.Getpid()),
			id: "valise@" + strconv.FormatUint(uint64(cmp.Or(cfg.Enterprise, 32473)), 10),
		},
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go s.run(ctx)
	return s, nil
}

// Send queues a message, or counts it as lost. It never waits.
func (s *Sender) Send(m Message) {
	began, n := s.add(m)
	if began {
		s.tell(n, false)
	}
}

// add returns whether this message was the first of several that are lost.
func (s *Sender) add(m Message) (began bool, n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || len(s.queue) >= s.cfg.queue || s.bytes+maxMessage > s.cfg.bytes {
		s.lost.Add(1)
		s.unsaid++
		s.episode++
		began, s.losing = !s.losing, true
		return began, s.episode
	}
	s.push(m)
	return false, 0
}

// push is called with mu held.
func (s *Sender) push(m Message) {
	// RFC 5424, Section 7.3.1: from 1 to 2147483647, and again.
	s.sequence = s.sequence%2147483647 + 1
	e := entry{s.header.format(m, s.sequence)}
	s.queue = append(s.queue, e)
	s.bytes += len(e.text)
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// next takes the first message of the queue. When there is room again, the stream says
// what it lost.
func (s *Sender) next() (e entry, ok bool) {
	s.mu.Lock()
	if len(s.queue) == 0 {
		s.mu.Unlock()
		return entry{}, false
	}
	e = s.queue[0]
	s.queue[0] = entry{}
	s.queue = s.queue[1:]
	s.bytes -= len(e.text)
	ended, n := false, uint64(0)
	if s.unsaid > 0 && len(s.queue) < s.cfg.queue/2 && s.bytes < s.cfg.bytes/2 {
		s.push(Message{
			Time: time.Now(), Severity: Warning, Event: "syslog_lost",
			Params: []Param{{"lost", strconv.FormatUint(s.unsaid, 10)}},
		})
		ended, n = s.losing, s.episode
		s.unsaid, s.losing, s.episode = 0, false, 0
	}
	s.mu.Unlock()
	if ended {
		s.tell(n, true)
	}
	return e, true
}

func (s *Sender) tell(n uint64, ended bool) {
	if s.cfg.Lost == nil {
		return
	}
	s.mu.Lock()
	why := s.why
	s.mu.Unlock()
	s.telling.Lock()
	defer s.telling.Unlock()
	s.cfg.Lost(n, ended, why)
}

// run connects, sends, and connects again.
func (s *Sender) run(ctx context.Context) {
	defer close(s.done)
	var again []entry // written to a connection that ended before they were acknowledged
	pause := firstPause
	for ctx.Err() == nil {
		l, err := s.dial.dial(ctx)
		if err == nil {
			s.up.Store(true)
			before := s.sent.Load()
			var all bool
			all, err = s.converse(ctx, l, again)
			s.up.Store(false)
			if s.sent.Load() > before {
				pause = firstPause
			}
			again = again[:0:0]
			for _, f := range l.flight {
				again = append(again, f.entry)
			}
			err = errors.Join(err, l.close())
			if all {
				return
			}
		}
		s.mu.Lock()
		s.why = err
		over := s.closing && len(s.queue)+len(again) == 0 // nobody is waited for, for nothing
		s.mu.Unlock()
		if over {
			return
		}
		hasty := s.hasty
		if len(again) > 0 {
			hasty = nil
		}
		select {
		case <-ctx.Done():
		case <-s.idleHasty(hasty):
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
	s.abandon(len(again))
}

// idleHasty is hasty while nothing is queued, and nil otherwise: whoever closes then does not
// wait for a pause to end.
func (s *Sender) idleHasty(hasty chan struct{}) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) > 0 {
		return nil
	}
	return hasty
}

// abandon counts what no collector got.
func (s *Sender) abandon(flying int) {
	s.mu.Lock()
	n := uint64(len(s.queue) + flying)
	s.queue, s.bytes = nil, 0
	s.lost.Add(n)
	s.episode += n
	s.unsaid += n
	s.losing = s.losing || n > 0
	told, all := s.losing, s.episode
	s.mu.Unlock()
	if told {
		s.tell(all, true)
	}
}

// converse sends over one connection until it ends; all says that Close wanted it to
// end and nothing is left.
func (s *Sender) converse(ctx context.Context, l *line, again []entry) (all bool, err error) {
	// Whatever ends this, what was not sent again yet is still to be.
	defer func() {
		for _, e := range again {
			l.flight = append(l.flight, flown{entry: e})
		}
	}()
	for len(again) > 0 {
		if err := l.send(again[0]); err != nil {
			return false, err
		}
		again = again[1:]
	}
	ended, hasty := l.watch(), s.hasty
	for {
		e, ok := s.next()
		if !ok || l.bytes > maxFlight {
			if ok { // what came out of the queue goes before anything else
				if err := s.room(ctx, l, ended); err != nil {
					again = []entry{e}
					return false, err
				}
			} else if all, err := s.idle(ctx, l, ended, &hasty); all || err != nil {
				return all, err
			}
			if !ok {
				continue
			}
		}
		if err := l.send(e); err != nil {
			again = []entry{e}
			return false, fmt.Errorf("syslog: %w", err)
		}
		s.sent.Add(1)
		l.settle()
	}
}

var errEnded = errors.New("syslog: the collector ended the connection")

// idle waits for the next message.
func (s *Sender) idle(ctx context.Context, l *line, ended <-chan struct{}, hasty *chan struct{}) (all bool, err error) {
	var acks <-chan time.Time
	if l.settle() > 0 {
		acks = time.After(ackPause)
	} else if *hasty == nil { // Close waits, and everything has arrived
		return true, nil
	}
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-ended:
		return false, errEnded
	case <-*hasty:
		*hasty = nil
	case <-s.more:
	case <-acks:
	}
	return false, nil
}

// room waits until enough has been acknowledged.
func (s *Sender) room(ctx context.Context, l *line, ended <-chan struct{}) error {
	deadline := time.After(writeLimit)
	for {
		if l.settle(); l.bytes <= maxFlight/2 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ended:
			return errEnded
		case <-deadline:
			return errors.New("syslog: the collector takes nothing any more")
		case <-time.After(ackPause):
		}
	}
}

// Close sends what is queued, as long as ctx lasts, and counts the rest as lost. It
// returns an error if something was.
func (s *Sender) Close(ctx context.Context) error {
	s.mu.Lock()
	already := s.closing
	s.closing = true
	s.mu.Unlock()
	if already {
		<-s.done
		return nil
	}
	before := s.lost.Load()
	close(s.hasty)
	select {
	case <-s.done:
	case <-ctx.Done():
		s.stop()
		<-s.done
	}
	s.stop()
	if n := s.lost.Load() - before; n > 0 {
		return fmt.Errorf("syslog: %d messages did not reach the collector; they are in the audit file", n)
	}
	return nil
}

// Metrics registers what an operator watches.
func (s *Sender) Metrics(r prometheus.Registerer) {
	counter := func(name, help string, value *atomic.Uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(value.Load()) })
	}
	r.MustRegister(
		counter("valise_syslog_sent_total", "Lines of the audit stream that were handed to the collector.", &s.sent),
		counter("valise_syslog_lost_total", "Lines of the audit stream that no collector got; they are in the file.", &s.lost),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "valise_syslog_queue", Help: "Lines of the audit stream that wait for the collector."}, func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			return float64(len(s.queue))
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "valise_syslog_connected", Help: "1 while there is a connection to the collector."}, func() float64 {
			if s.up.Load() {
				return 1
			}
			return 0
		}),
	)
}
