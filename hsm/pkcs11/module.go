// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package pkcs11

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	p11 "github.com/miekg/pkcs11"

	"valise/hsm"
)

// A module is a loaded PKCS#11 library: one in a process for each path.
type module struct {
	path string
	refs int // guarded by modules.mu

	// mu is held for reading while a token works, for writing while the
	// library is started anew or a token logs in.
	mu    sync.RWMutex
	ctx   *p11.Ctx
	begun bool // C_Initialize succeeded last

	// turn lets one operation at a time into a library that needs it.
	turn chan struct{}

	down    atomic.Bool   // true while the device is lost; ops fail at once
	stop    chan struct{} // closed when the last token is closed
	stopped sync.WaitGroup

	state   sync.Mutex // guards what follows; taken last
	tokens  map[*Token]struct{}
	starts  uint64 // how often the library was started: errors from before an earlier start are old news
	since   time.Time
	cause   error
	tries   int
	settled chan struct{} // closed after the first attempt to recover
}

// modules holds the loaded modules of this process.
var modules = struct {
	mu     sync.Mutex
	byPath map[string]*module
}{byPath: make(map[string]*module)}

// p11kit is the manufacturer of p11-kit's client. When its server dies while
// several calls are under way, all but one of them wait for ever (seen with
// 0.24.1). It has one connection, so that calls one by one lose nothing.
const p11kit = "PKCS#11 Kit"

// enter waits for the turn of an operation where the library needs that. The
// returned function ends the turn.
func (m *module) enter() (leave func(), err error) {
	if m.turn == nil {
		return func() {}, nil
	}
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case m.turn <- struct{}{}:
		return func() { <-m.turn }, nil
	case <-timeout.C:
		return nil, fmt.Errorf("%w: %w", hsm.ErrDevice, errStuck)
	}
}

// errStuck says that only a restart of the program can help.
var errStuck = errors.New("a call into the module does not return: restart this program")

// quiesce takes m.mu for writing. While the device is lost no operation
// begins, so that a reader who holds the lock for long is in a call that hangs
// in the library, and nobody can end it; quiesce gives up then.
func (m *module) quiesce() bool {
	if !m.down.Load() {
		m.mu.Lock()
		return true
	}
	tick := time.NewTicker(quiescePoll)
	defer tick.Stop()
	deadline := time.Now().Add(maxCall)
	for !m.mu.TryLock() {
		if time.Now().After(deadline) {
			return false
		}
		<-tick.C
	}
	return true
}

// load returns the module at path, started.
func load(path string) (*module, error) {
	modules.mu.Lock()
	defer modules.mu.Unlock()
	if m, ok := modules.byPath[path]; ok {
		m.refs++
		return m, nil
	}
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("%w: %w", hsm.ErrNoModule, err)
	}
	ctx := p11.New(path)
	if ctx == nil {
		return nil, fmt.Errorf("%w: %s is no PKCS#11 library", hsm.ErrNoModule, path)
	}
	m := &module{
		path: path, refs: 1, ctx: ctx, stop: make(chan struct{}),
		tokens: make(map[*Token]struct{}), since: time.Now(), starts: 1,
	}
	if err := m.initialize(); err != nil {
		ctx.Destroy()
		return nil, fmt.Errorf("%w: %s: %w", hsm.ErrDevice, path, err)
	}
	if info, err := ctx.GetInfo(); err == nil && trim(info.ManufacturerID) == p11kit {
		m.turn = make(chan struct{}, 1)
	}
	modules.byPath[path] = m
	return m, nil
}

// unload lets go of the module; the last one to do so ends it.
func (m *module) unload() {
	modules.mu.Lock()
	defer modules.mu.Unlock()
	if m.refs--; m.refs > 0 {
		return
	}
	delete(modules.byPath, m.path)
	close(m.stop)
	m.stopped.Wait()
	if !m.quiesce() {
		return // a call hangs in it: taking the library away would crash
	}
	defer m.mu.Unlock()
	if m.begun {
		_ = m.ctx.Finalize()
	}
	m.ctx.Destroy()
}

func (m *module) initialize() error {
	err := m.ctx.Initialize()
	m.begun = err == nil || is(err, p11.CKR_CRYPTOKI_ALREADY_INITIALIZED)
	if m.begun {
		return nil
	}
	return err
}

func (m *module) add(t *Token) {
	m.state.Lock()
	defer m.state.Unlock()
	m.tokens[t] = struct{}{}
}

func (m *module) remove(t *Token) {
	m.state.Lock()
	defer m.state.Unlock()
	delete(m.tokens, t)
}

// start counts the library's starts: see fail.
func (m *module) start() uint64 {
	m.state.Lock()
	defer m.state.Unlock()
	return m.starts
}

// fail reports that the device was lost in an operation that began after the
// given start, and waits for the first attempt to bring it back.
func (m *module) fail(start uint64, cause error) {
	settled := m.lost(start, cause)
	if settled == nil {
		return
	}
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-settled:
	case <-timeout.C:
	case <-m.stop:
	}
}

// lost starts the recovery unless it runs, or has been done since.
func (m *module) lost(start uint64, cause error) <-chan struct{} {
	m.state.Lock()
	defer m.state.Unlock()
	if start != m.starts {
		return nil
	}
	if m.down.Load() {
		return m.settled
	}
	m.down.Store(true)
	m.since, m.cause, m.tries, m.settled = time.Now(), cause, 0, make(chan struct{})
	m.stopped.Go(m.revive)
	return m.settled
}

// revive starts the library anew until its tokens are back.
func (m *module) revive() {
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		done := m.attempt()
		if done {
			return
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-m.stop:
			timer.Stop()
			return
		}
	}
}

// attempt tries once to recover, and records how it went.
func (m *module) attempt() bool {
	err := m.restart()
	m.state.Lock()
	defer m.state.Unlock()
	m.tries++
	if m.tries == 1 {
		defer close(m.settled)
	}
	if err != nil {
		m.cause = err
		return false
	}
	m.starts++
	m.since, m.cause = time.Now(), nil
	m.down.Store(false)
	return true
}

// restart is C_Finalize, C_Initialize and a login to each token (PKCS#11,
// Sections 5.4 and 5.6). A token whose login needs a person does not hold up
// the others.
func (m *module) restart() error {
	if !m.quiesce() {
		return errStuck
	}
	defer m.mu.Unlock()
	if m.begun {
		_ = m.ctx.Finalize() // fails when the device is gone, and that is known
	}
	if err := m.initialize(); err != nil {
		return fmt.Errorf("starting the module again: %w", err)
	}
	var errs []error
	for _, t := range m.openTokens() {
		t.forget()
		if err := t.connect(t.life); err != nil && !needsPerson(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (m *module) openTokens() []*Token {
	m.state.Lock()
	defer m.state.Unlock()
	tokens := make([]*Token, 0, len(m.tokens))
	for t := range m.tokens {
		tokens = append(tokens, t)
	}
	return tokens
}

// health is the module's part of a token's health.
func (m *module) health() hsm.Health {
	m.state.Lock()
	defer m.state.Unlock()
	return hsm.Health{
		OK: !m.down.Load(), Since: m.since, Err: m.cause, Attempts: m.tries, Restarts: m.starts - 1,
	}
}
