// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"valise/bulletin"
	"valise/client"
	"valise/client/local"
	"valise/client/vault"
	"valise/hsm"
)

// AgentCmd is `valise agent`.
type AgentCmd struct {
	output
	Stop bool          `help:"Lock and end the agent that is running."`
	Idle time.Duration `default:"1h" help:"Lock when nothing has been asked for so long; 0 for never."`
}

// Run serves this home's commands until it is told to stop.
func (cmd *AgentCmd) Run(ctx context.Context, e *env) error {
	if cmd.Stop {
		c, err := local.New(e.home)
		if err != nil {
			return err
		}
		err = c.Call(ctx, "/stop", nil, nil)
		if err != nil && !errors.Is(err, local.ErrNoAgent) {
			return err
		}
		if e.json {
			return e.print(map[string]any{"running": false})
		}
		return nil
	}
	if err := makeHome(e.home); err != nil {
		return err
	}
	unlock, err := takeLock(e.home)
	if err != nil {
		return err
	}
	defer unlock()
	ln, err := local.Listen(e.home)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	a := &agent{home: e.home, stop: stop, idle: cmd.Idle, used: time.Now(), log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	go a.watchIdle(ctx)
	err = local.Serve(ctx, ln, a.routes())
	a.lock("the agent was stopped")
	return err
}

// takeLock makes sure that one process works in a home.
func takeLock(home string) (func(), error) {
	f, err := os.OpenFile(filepath.Join(home, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lockFd(f); err != nil {
		f.Close()
		return nil, &hintError{text: "another valise process works in " + home, hint: "end it with: valise agent --stop"}
	}
	return func() { f.Close() }, nil
}

// An agent owns a home's card, vault and connection.
type agent struct {
	home string
	stop context.CancelFunc
	idle time.Duration
	log  *slog.Logger

	changing sync.Mutex // held while locking or unlocking

	mu      sync.Mutex
	session *session  // nil while locked
	why     string    // why it is locked
	used    time.Time // when something was asked for last
	open    int       // requests under way
}

// A session is the time between unlock and lock.
type session struct {
	profile *profile
	card    *card
	vault   *vault.Vault
	engine  *client.Engine
	ctx     context.Context // ends at lock
	cancel  context.CancelCauseFunc
	ended   chan struct{} // closed when the engine has stopped
	since   time.Time
}

// unlock opens card and vault with a PIN and starts the engine. The PIN is forgotten
// when it returns: the card has been shown it.
func (a *agent) unlock(ctx context.Context, pin string) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	if a.current() != nil {
		return nil
	}
	p, err := loadProfile(a.home)
	if err != nil {
		return err
	}
	shown := new(pinOnce)
	shown.set(pin)
	defer shown.set("")
	c, err := openCard(ctx, p, shown.ask)
	if err != nil {
		return err
	}
	s, err := a.begin(ctx, p, c)
	if err != nil {
		return errors.Join(err, c.logout())
	}
	a.mu.Lock()
	a.session, a.why, a.used = s, "", time.Now()
	a.mu.Unlock()
	shown.onMissing(func() { a.lockSession(s, "the card asks for its PIN again") })
	go a.watch(s)
	go a.renew(s)
	return nil
}

func (a *agent) begin(ctx context.Context, p *profile, c *card) (*session, error) {
	if c.id != p.Device {
		return nil, &hintError{text: "this is another card than the one that was enrolled", hint: "insert the card with the key of " + p.Address.String()}
	}
	v, err := vault.Open(ctx, filepath.Join(a.home, vaultFile), c.id, c.agree)
	if err != nil {
		return nil, err
	}
	err = checkProfile(ctx, v, p)
	if err != nil {
		return nil, errors.Join(err, v.Lock())
	}
	s, err := a.start(ctx, p, c, v)
	if err != nil {
		return nil, errors.Join(err, v.Lock())
	}
	return s, nil
}

func (a *agent) start(ctx context.Context, p *profile, c *card, v *vault.Vault) (*session, error) {
	if err := c.warm(); err != nil {
		return nil, err
	}
	trust, err := p.trust()
	if err != nil {
		return nil, err
	}
	root, err := x509.ParseCertificate(p.Root)
	if err != nil {
		return nil, err
	}
	recorded, err := recordPinned(ctx, v)
	if err != nil {
		return nil, err
	}
	engine, err := client.New(ctx, client.Config{
		Address: p.Address, Chain: p.Chain, Signer: c.sign, Vault: v, Trust: trust, RecordRoot: root, RecordRequired: recorded,
		Gateway: p.Gateway, GatewayTCP: p.GatewayTCP, Nodes: p.Nodes, GatewayName: p.GatewayName, Agent: "valise", Log: a.log, Tightening: bulletin.DefaultTightening,
	})
	if err != nil {
		return nil, err
	}
	s := &session{profile: p, card: c, vault: v, engine: engine, ended: make(chan struct{}), since: time.Now()}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	go func() {
		defer close(s.ended)
		err := engine.Run(s.ctx)
		if errors.Is(err, client.ErrStopped) {
			a.log.Error("the engine stopped", "error", err)
			go a.lock("the vault failed: " + err.Error())
		}
	}()
	return s, nil
}

// watch locks when the card goes away.
func (a *agent) watch(s *session) {
	select {
	case <-s.card.token.Removed():
		a.lockSession(s, "the card was removed")
	case <-s.ctx.Done():
	}
}

func (a *agent) watchIdle(ctx context.Context) {
	if a.idle <= 0 {
		return
	}
	tick := time.NewTicker(min(a.idle, time.Minute))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		a.mu.Lock()
		idle := a.session != nil && a.open == 0 && time.Since(a.used) >= a.idle
		a.mu.Unlock()
		if idle {
			a.lock("nothing was asked for " + a.idle.String())
		}
	}
}

// lock ends the session, whichever it is.
func (a *agent) lock(why string) {
	if s := a.current(); s != nil {
		a.lockSession(s, why)
	}
}

// lockSession disconnects, wipes the vault's key and makes the card ask for its PIN
// again.
func (a *agent) lockSession(s *session, why string) {
	a.changing.Lock()
	defer a.changing.Unlock()
	a.mu.Lock()
	if a.session != s {
		a.mu.Unlock()
		return
	}
	a.session, a.why = nil, why
	a.mu.Unlock()
	s.cancel(errLocked(why))
	<-s.ended
	if err := errors.Join(s.vault.Lock(), s.card.logout()); err != nil {
		a.log.Error("locking", "error", err)
	}
	a.log.Info("locked", "why", why)
}

func (a *agent) current() *session {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.session
}

// use returns the session for a request, or why there is none. The request's context
// ends with the session.
func (a *agent) use(ctx context.Context) (*session, context.Context, func(), error) {
	a.mu.Lock()
	s, why := a.session, a.why
	a.used = time.Now()
	if s != nil {
		a.open++
	}
	a.mu.Unlock()
	if s == nil {
		if _, err := loadProfile(a.home); err != nil {
			return nil, nil, nil, err
		}
		return nil, nil, nil, errLocked(why)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.ctx, func() { cancel(context.Cause(s.ctx)) })
	return s, ctx, func() {
		stop()
		cancel(nil)
		a.mu.Lock()
		a.open--
		a.used = time.Now()
		a.mu.Unlock()
	}, nil
}

// pinOnce answers the card's question for the PIN while the agent unlocks, and
// afterwards no more: a card that asks then was reset behind the agent's back.
type pinOnce struct {
	mu      sync.Mutex
	pin     string
	missing func() // called in a goroutine of its own
}

func (p *pinOnce) onMissing(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.missing = f
}

func (p *pinOnce) set(pin string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pin = pin
}

func (p *pinOnce) ask(context.Context, hsm.PINRequest) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pin == "" {
		if p.missing != nil {
			go p.missing()
		}
		return "", fmt.Errorf("the card asks for its PIN again: %w", hsm.ErrNoPIN)
	}
	return p.pin, nil
}
