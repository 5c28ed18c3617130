// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	p11 "github.com/miekg/pkcs11"

	"valise/hsm"
)

// Config says which token to open.
type Config struct {
	Module string // path of the vendor's library

	// Label or Serial name the token; at least one is needed. Manufacturer and
	// Model narrow the choice further.
	Label, Serial, Manufacturer, Model string

	// PIN is asked at each login: at Open, and after the HSM or the session
	// was lost. Nil: tokens that want a login give ErrNoPIN.
	PIN hsm.PINFunc

	// Sessions bounds the sessions that are open at a time. Zero means 8.
	Sessions int
}

// A Token is one token of a module. Its keys stay valid over restarts of the
// device.
type Token struct {
	cfg    Config
	module *module
	life   context.Context // ends with Close
	end    context.CancelFunc
	once   sync.Once
	gate   chan struct{} // a place for each session that may be open

	// Written with module.mu held for writing, read with it held for reading.
	info    hsm.TokenInfo
	slot    uint
	anchor  p11.SessionHandle // stays open: login lasts as long as a session does
	live    bool              // logged in
	refused error             // the PIN was: not sent again until the next Open
	trouble error             // why the last login failed, for Health
	epoch   uint64            // handles from an earlier one are dead

	pool sync.Mutex // guards idle
	idle []p11.SessionHandle
}

var _ hsm.Token = (*Token)(nil)

// A token that is not there may be there in a moment: SoftHSM leaves one out that
// another process writes into while it looks, and devices take time to start.
const (
	openAttempts = 3
	openPause    = 250 * time.Millisecond
)

// Open finds the token that c names and logs in.
func Open(ctx context.Context, c Config) (*Token, error) {
	for attempt := 1; ; attempt++ {
		t, err := open(ctx, c)
		if !errors.Is(err, hsm.ErrNoToken) || attempt == openAttempts {
			return t, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(openPause):
		}
	}
}

func open(ctx context.Context, c Config) (*Token, error) {
	c.Label, c.Serial = trim(c.Label), trim(c.Serial)
	if c.Label == "" && c.Serial == "" {
		return nil, fmt.Errorf("pkcs11: %w", hsm.ErrEmptyLabel)
	}
	if c.Sessions == 0 {
		c.Sessions = defaultSessions
	}
	if c.Sessions < 1 || c.Sessions > maxSessions {
		return nil, fmt.Errorf("pkcs11: %d sessions: from 1 to %d are possible", c.Sessions, maxSessions)
	}
	m, err := load(c.Module)
	if err != nil {
		return nil, fmt.Errorf("pkcs11: %w", err)
	}
	t := &Token{cfg: c, module: m, gate: make(chan struct{}, c.Sessions)}
	t.life, t.end = context.WithCancel(context.Background())
	m.add(t) // before connecting, so that a restart meanwhile tells it
	if err := t.first(ctx); err != nil {
		t.Close()
		return nil, fmt.Errorf("pkcs11: %w", err)
	}
	return t, nil
}

// first connects, and once more after a restart of a device that was lost
// without anybody having noticed.
func (t *Token) first(ctx context.Context) error {
	for attempt := 0; ; attempt++ {
		start := t.module.start()
		err := t.connectOnce(ctx)
		if classOf(err) != device {
			return err
		}
		if attempt > 0 {
			return fmt.Errorf("%w: %w", hsm.ErrDevice, err)
		}
		t.module.fail(start, err)
	}
}

// connectOnce connects unless that has been done.
func (t *Token) connectOnce(ctx context.Context) error {
	t.module.mu.Lock()
	defer t.module.mu.Unlock()
	if t.live {
		return nil
	}
	return t.connect(ctx)
}

// trim drops the padding that tokens' texts have.
func trim(s string) string { return strings.Trim(s, " \x00") }

// connect finds the token, opens the anchor session and logs in. Callers hold
// module.mu for writing.
func (t *Token) connect(ctx context.Context) error {
	if t.refused != nil {
		return t.refused
	}
	t.trouble = t.establish(ctx)
	if refuses(t.trouble) {
		t.refused = t.trouble
	}
	return t.trouble
}

func (t *Token) establish(ctx context.Context) error {
	slot, info, err := t.locate()
	if err != nil {
		return err
	}
	anchor, err := t.module.ctx.OpenSession(slot, p11.CKF_SERIAL_SESSION)
	if err != nil {
		return fmt.Errorf("token %q: open a session: %w", info.Label, err)
	}
	if err := t.login(ctx, slot, anchor); err != nil {
		_ = t.module.ctx.CloseSession(anchor)
		return fmt.Errorf("token %q: %w", trim(info.Label), err)
	}
	t.slot, t.anchor, t.live = slot, anchor, true
	t.info = hsm.TokenInfo{
		Kind: "pkcs11", Label: trim(info.Label), Serial: trim(info.SerialNumber), Model: trim(info.Model),
		Firmware: fmt.Sprintf("%d.%d", info.FirmwareVersion.Major, info.FirmwareVersion.Minor),
	}
	t.epoch++
	return nil
}

// locate finds the one token that the configuration names.
func (t *Token) locate() (uint, p11.TokenInfo, error) {
	var found p11.TokenInfo
	var at uint
	slots, err := t.module.ctx.GetSlotList(true)
	if err != nil {
		return 0, found, fmt.Errorf("list tokens: %w", err)
	}
	n := 0
	for _, slot := range slots {
		info, err := t.module.ctx.GetTokenInfo(slot)
		if err != nil {
			if classOf(err) == device && !is(err, p11.CKR_TOKEN_NOT_PRESENT) && !is(err, p11.CKR_TOKEN_NOT_RECOGNIZED) {
				return 0, found, fmt.Errorf("read token: %w", err)
			}
			continue
		}
		if info.Flags&p11.CKF_TOKEN_INITIALIZED != 0 && t.cfg.fits(info) {
			at, found, n = slot, info, n+1
		}
	}
	switch n {
	case 0:
		return 0, found, fmt.Errorf("%s among %d in %s: %w", t.cfg.wanted(), len(slots), t.cfg.Module, hsm.ErrNoToken)
	case 1:
		return at, found, nil
	}
	return 0, found, fmt.Errorf("%s names %d tokens: %w", t.cfg.wanted(), n, hsm.ErrManyTokens)
}

func (c *Config) fits(info p11.TokenInfo) bool {
	fit := func(want, have string) bool { return want == "" || want == trim(have) }
	return fit(c.Label, info.Label) && fit(c.Serial, info.SerialNumber) &&
		fit(trim(c.Manufacturer), info.ManufacturerID) && fit(trim(c.Model), info.Model)
}

func (c *Config) wanted() string {
	if c.Serial == "" {
		return fmt.Sprintf("label %q", c.Label)
	}
	return fmt.Sprintf("serial %q", c.Serial)
}

// login shows the PIN (PKCS#11, Section 5.6, C_Login). Login belongs to the
// process, so being logged in already is what we want.
func (t *Token) login(ctx context.Context, slot uint, anchor p11.SessionHandle) error {
	info, err := t.module.ctx.GetTokenInfo(slot)
	if err != nil {
		return err
	}
	if info.Flags&p11.CKF_LOGIN_REQUIRED == 0 {
		return nil
	}
	if s, err := t.module.ctx.GetSessionInfo(anchor); err == nil &&
		(s.State == p11.CKS_RO_USER_FUNCTIONS || s.State == p11.CKS_RW_USER_FUNCTIONS) {
		return nil
	}
	if info.Flags&p11.CKF_USER_PIN_LOCKED != 0 {
		return hsm.ErrLocked
	}
	pin, err := t.askPIN(ctx, info)
	if err != nil {
		return err
	}
	err = t.module.ctx.Login(anchor, p11.CKU_USER, pin)
	switch {
	case is(err, p11.CKR_USER_ALREADY_LOGGED_IN):
		return nil
	case is(err, p11.CKR_PIN_LOCKED):
		return hsm.ErrLocked
	case is(err, p11.CKR_PIN_INCORRECT), is(err, p11.CKR_PIN_INVALID), is(err, p11.CKR_PIN_LEN_RANGE):
		return t.wrongPIN(slot)
	case err != nil:
		return fmt.Errorf("login: %w", err)
	}
	return nil
}

// askPIN obtains the PIN, or "" for a token with a keypad of its own.
func (t *Token) askPIN(ctx context.Context, info p11.TokenInfo) (string, error) {
	if info.Flags&p11.CKF_PROTECTED_AUTHENTICATION_PATH != 0 {
		return "", nil
	}
	if t.cfg.PIN == nil {
		return "", fmt.Errorf("%w: %w", errAskPIN, hsm.ErrNoPIN)
	}
	retries := -1
	if info.Flags&p11.CKF_USER_PIN_FINAL_TRY != 0 {
		retries = 1
	}
	pin, err := t.cfg.PIN(ctx, hsm.PINRequest{
		Token: trim(info.Label), Serial: trim(info.SerialNumber), Retries: retries,
	})
	if err == nil && pin == "" {
		err = hsm.ErrNoPIN
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", errAskPIN, err)
	}
	return pin, nil
}

// wrongPIN says how many tries are left, as far as the token's flags tell.
func (t *Token) wrongPIN(slot uint) error {
	info, err := t.module.ctx.GetTokenInfo(slot)
	switch {
	case err == nil && info.Flags&p11.CKF_USER_PIN_LOCKED != 0:
		return hsm.ErrLocked
	case err == nil && info.Flags&p11.CKF_USER_PIN_FINAL_TRY != 0:
		return &hsm.PINError{Retries: 1}
	}
	return &hsm.PINError{Retries: -1}
}

// Info describes the token.
func (t *Token) Info() hsm.TokenInfo {
	t.module.mu.RLock()
	defer t.module.mu.RUnlock()
	return t.info
}

// Removed is never closed: a token recovers. See Health.
func (t *Token) Removed() <-chan struct{} { return nil }

// Health says whether the token works, and since when.
func (t *Token) Health() hsm.Health {
	h := t.module.health()
	if !h.OK {
		return h
	}
	if !t.module.mu.TryRLock() { // metrics must not wait for a login, or for a call that hangs
		h.OK, h.Err = false, fmt.Errorf("%w: it is logging in, or a call does not return", hsm.ErrDevice)
		return h
	}
	defer t.module.mu.RUnlock()
	if t.trouble != nil {
		h.OK, h.Err = false, t.trouble
	}
	return h
}

// Check asks the device for a sign of life, which starts recovery if there is
// none. Services call it now and then, so that Health is not old news.
func (t *Token) Check(ctx context.Context) error {
	return t.use(ctx, func(s p11.SessionHandle) error {
		_, err := t.module.ctx.GenerateRandom(s, 1)
		if classOf(err) == request {
			return nil // no generator, but it answered
		}
		return err
	})
}

// Logout ends the login of this process. The next use asks for the PIN again.
func (t *Token) Logout(context.Context) error {
	t.module.mu.Lock()
	defer t.module.mu.Unlock()
	if t.life.Err() != nil {
		return fmt.Errorf("pkcs11: %w", hsm.ErrClosed)
	}
	if !t.live {
		return nil
	}
	err := t.module.ctx.Logout(t.anchor)
	t.hangUp()
	if err != nil && !is(err, p11.CKR_USER_NOT_LOGGED_IN) && classOf(err) == request {
		return fmt.Errorf("pkcs11: logout of %q: %w", t.info.Label, err)
	}
	return nil
}

// Close closes the token's sessions, which ends its login. The last token of a
// module to be closed unloads it.
func (t *Token) Close() error {
	t.once.Do(func() {
		t.end()
		t.module.remove(t)
		if t.module.quiesce() {
			t.hangUp()
			t.module.mu.Unlock()
		}
		t.module.unload()
	})
	return nil
}

// hangUp closes all sessions. Callers hold module.mu for writing.
func (t *Token) hangUp() {
	t.pool.Lock()
	idle := t.idle
	t.pool.Unlock()
	if t.live {
		for _, s := range append(idle, t.anchor) {
			_ = t.module.ctx.CloseSession(s)
		}
	}
	t.forget()
}

// forget drops all handles, which are dead. Callers hold module.mu for writing.
func (t *Token) forget() {
	t.live = false
	t.epoch++
	t.pool.Lock()
	defer t.pool.Unlock()
	t.idle = nil
}

var errStale = errors.New("the session was lost")
