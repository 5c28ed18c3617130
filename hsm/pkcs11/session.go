// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package pkcs11

import (
	"context"
	"errors"
	"fmt"

	p11 "github.com/miekg/pkcs11"

	"valise/hsm"
)

// use runs f with a session of its own, and once more after the session or the
// device was lost and came back. f may therefore run twice.
func (t *Token) use(ctx context.Context, f func(p11.SessionHandle) error) error {
	return t.attempt(ctx, 0, f)
}

// useWritable is use with a session that may create objects.
func (t *Token) useWritable(ctx context.Context, f func(p11.SessionHandle) error) error {
	return t.attempt(ctx, p11.CKF_RW_SESSION, f)
}

func (t *Token) attempt(ctx context.Context, flags uint, f func(p11.SessionHandle) error) error {
	for again := true; ; again = false {
		if err := t.ready(ctx); err != nil {
			return err
		}
		start := t.module.start()
		epoch, err := t.run(ctx, flags, f)
		switch classOf(err) {
		case request:
			if !errors.Is(err, errStale) {
				return err
			}
		case session:
			t.renew(epoch)
		case device:
			t.module.fail(start, err)
			if !again || t.module.down.Load() {
				return fmt.Errorf("%w: %w", hsm.ErrDevice, err)
			}
		}
		if !again {
			return err
		}
	}
}

// ready makes sure of a login.
func (t *Token) ready(ctx context.Context) error {
	if t.life.Err() != nil {
		return hsm.ErrClosed
	}
	if t.module.down.Load() {
		return fmt.Errorf("%w: %w", hsm.ErrDevice, t.module.health().Err)
	}
	t.module.mu.RLock()
	live := t.live
	t.module.mu.RUnlock()
	if live {
		return nil
	}
	return t.connectOnce(ctx)
}

// run takes a session, works, and gives it back, or closes it after an error.
func (t *Token) run(ctx context.Context, flags uint, f func(p11.SessionHandle) error) (uint64, error) {
	select {
	case t.gate <- struct{}{}:
		defer func() { <-t.gate }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	leave, err := t.module.enter()
	if err != nil {
		return 0, err
	}
	defer leave()
	t.module.mu.RLock()
	defer t.module.mu.RUnlock()
	if t.module.down.Load() { // lost while this operation waited
		return t.epoch, fmt.Errorf("%w: lost meanwhile", hsm.ErrDevice)
	}
	if !t.live {
		return t.epoch, errStale
	}
	s, err := t.take(flags)
	if err != nil {
		return t.epoch, err
	}
	err = f(s)
	if err == nil && flags == 0 {
		t.give(s)
		return t.epoch, nil
	}
	_ = t.module.ctx.CloseSession(s) // ends whatever operation it is in the middle of
	return t.epoch, err
}

// take returns an idle session or opens one. Callers hold module.mu for
// reading and a place at the gate.
func (t *Token) take(flags uint) (p11.SessionHandle, error) {
	if flags == 0 {
		t.pool.Lock()
		if n := len(t.idle); n > 0 {
			s := t.idle[n-1]
			t.idle = t.idle[:n-1]
			t.pool.Unlock()
			return s, nil
		}
		t.pool.Unlock()
	}
	s, err := t.module.ctx.OpenSession(t.slot, p11.CKF_SERIAL_SESSION|flags)
	if err != nil {
		return 0, fmt.Errorf("open a session: %w", err)
	}
	return s, nil
}

func (t *Token) give(s p11.SessionHandle) {
	t.pool.Lock()
	defer t.pool.Unlock()
	t.idle = append(t.idle, s)
}

// renew drops all sessions of an epoch in which one was found dead, so that
// the next use logs in again.
func (t *Token) renew(epoch uint64) {
	t.module.mu.Lock()
	defer t.module.mu.Unlock()
	if t.epoch == epoch && t.live {
		t.hangUp()
	}
}
