// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"valise/hsm"
)

// A Config says which TPM to open.
type Config struct {
	Path string      // device or socket; empty: DefaultPath
	PIN  hsm.PINFunc // of the keys
}

// A Token is one TPM.
type Token struct {
	info hsm.TokenInfo
	ask  hsm.PINFunc

	mu     sync.Mutex // one command at a time; guards everything below
	tpm    transport.TPMCloser
	srk    *object // salts sessions, stands above keys; loaded on first use
	pin    string  // shown once already, or ""
	closed bool
}

var (
	_ hsm.Token     = (*Token)(nil)
	_ hsm.Certifier = (*Token)(nil)
)

// An object is something loaded in the TPM.
type object struct {
	handle    tpm2.TPMHandle
	name      tpm2.TPM2BName
	public    *tpm2.TPMTPublic
	transient bool // to be flushed
}

// Open opens a TPM. It asks for no PIN.
func Open(_ context.Context, cfg Config) (*Token, error) {
	if cfg.Path == "" {
		cfg.Path = DefaultPath
	}
	conn, err := dial(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("tpm: %s: %w", cfg.Path, err)
	}
	t := &Token{ask: cfg.PIN, tpm: conn}
	t.info = hsm.TokenInfo{Kind: "tpm", Label: cfg.Path}
	if err := t.describe(); err != nil {
		return nil, errors.Join(fmt.Errorf("tpm: %s: %w", cfg.Path, err), conn.Close())
	}
	return t, nil
}

// describe reads the fixed properties (TPM 2.0 Part 2, Section 6.13).
func (t *Token) describe() error {
	rsp, err := tpm2.GetCapability{
		Capability: tpm2.TPMCapTPMProperties, Property: uint32(tpm2.TPMPTManufacturer), PropertyCount: 8,
	}.Execute(t.tpm)
	if err != nil {
		return err
	}
	properties, err := rsp.CapabilityData.Data.TPMProperties()
	if err != nil {
		return err
	}
	text := func(v uint32) string {
		return strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return -1
			}
			return r
		}, string([]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}))
	}
	for _, p := range properties.TPMProperty {
		switch p.Property {
		case tpm2.TPMPTManufacturer:
			t.info.Model = strings.TrimSpace(text(p.Value)) + " "
		case tpm2.TPMPTVendorString1, tpm2.TPMPTVendorString2, tpm2.TPMPTVendorString3, tpm2.TPMPTVendorString4:
			t.info.Model += text(p.Value)
		case tpm2.TPMPTFirmwareVersion1:
			t.info.Firmware = fmt.Sprintf("%d.%d", p.Value>>16, p.Value&0xffff)
		}
	}
	t.info.Model = strings.TrimSpace(t.info.Model)
	return nil
}

// Info describes the TPM. A TPM has no serial number.
func (t *Token) Info() hsm.TokenInfo { return t.info }

// Removed is never closed: a TPM stays where it is.
func (t *Token) Removed() <-chan struct{} { return nil }

// Logout forgets the PIN.
func (t *Token) Logout(context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pin = ""
	return nil
}

// Close lets go of the TPM. Its keys stay in it.
func (t *Token) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed, t.pin = true, ""
	if t.srk != nil {
		t.flush(t.srk)
	}
	return t.tpm.Close()
}

// open begins a use of the TPM, which ends with the returned function.
func (t *Token) open(ctx context.Context) (func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil, hsm.ErrClosed
	}
	return t.mu.Unlock, nil
}

// named is the range of persistent handles that names of two digits stand for; the
// owner may use all from 0x81000000 to 0x817fffff.
const (
	named     = 0x81564100
	lastOwner = 0x817fffff
)

// handleOf reads the name of a key.
func handleOf(ref string) (tpm2.TPMHandle, error) {
	raw, err := hex.DecodeString(ref)
	if err != nil || ref != strings.ToLower(ref) {
		return 0, ErrRef
	}
	var n uint32
	for _, b := range raw {
		n = n<<8 | uint32(b)
	}
	switch {
	case len(raw) == 1:
		return tpm2.TPMHandle(named | n), nil
	case len(raw) == 4 && n >= 0x81000000 && n <= lastOwner:
		return tpm2.TPMHandle(n), nil
	}
	return 0, ErrRef
}

// Key finds the key that stands at a handle.
func (t *Token) Key(ctx context.Context, ref string) (hsm.Key, error) {
	handle, err := handleOf(ref)
	if err != nil {
		return nil, fmt.Errorf("tpm: key %.20q: %w", ref, err)
	}
	done, err := t.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("tpm: key %s: %w", ref, err)
	}
	defer done()
	o, err := t.read(handle)
	if err != nil {
		return nil, fmt.Errorf("tpm: key %s: %w", ref, err)
	}
	return t.key(ref, o)
}

// read returns what stands at a handle, or ErrNoKey.
func (t *Token) read(handle tpm2.TPMHandle) (*object, error) {
	rsp, err := tpm2.ReadPublic{ObjectHandle: handle}.Execute(t.tpm)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, hsm.ErrNoKey
	}
	if err != nil {
		return nil, err
	}
	public, err := rsp.OutPublic.Contents()
	if err != nil {
		return nil, err
	}
	return &object{handle: handle, name: rsp.Name, public: public}, nil
}

// authority is a hierarchy with its password.
func authority(hierarchy tpm2.TPMHandle, password []byte) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: hierarchy, Auth: tpm2.PasswordAuth(password)}
}

// primary derives a key from one of the TPM's seeds; the same template always gives
// the same key.
func (t *Token) primary(hierarchy tpm2.AuthHandle, template tpm2.TPMTPublic) (*object, error) {
	rsp, err := tpm2.CreatePrimary{PrimaryHandle: hierarchy, InPublic: tpm2.New2B(template)}.Execute(t.tpm)
	if err != nil {
		return nil, asOwner(err)
	}
	public, err := rsp.OutPublic.Contents()
	if err != nil {
		return nil, err
	}
	return &object{rsp.ObjectHandle, rsp.Name, public, true}, nil
}

func (t *Token) flush(o *object) {
	if o.transient {
		_, _ = tpm2.FlushContext{FlushHandle: o.handle}.Execute(t.tpm)
	}
}

// srkHandle is where a TPM's storage key usually stands (TCG TPM v2.0 Provisioning
// Guidance, Section 7.8).
const srkHandle = 0x81000001

// storage returns the storage key: the one that stands in the TPM, or the usual one
// made anew, which occupies one of few places until the token is closed.
func (t *Token) storage() (*object, error) {
	if t.srk != nil {
		return t.srk, nil
	}
	o, err := t.read(srkHandle)
	if errors.Is(err, hsm.ErrNoKey) {
		o, err = t.primary(authority(tpm2.TPMRHOwner, nil), tpm2.ECCSRKTemplate)
	}
	if err != nil {
		return nil, fmt.Errorf("storage key: %w", err)
	}
	t.srk = o
	return o, nil
}

// provision has the storage key stand in the TPM, if it does not yet.
func (t *Token) provision(owner tpm2.AuthHandle) error {
	if _, err := t.read(srkHandle); !errors.Is(err, hsm.ErrNoKey) {
		return err
	}
	o, err := t.primary(owner, tpm2.ECCSRKTemplate)
	if err == nil {
		err = t.evict(owner, o, srkHandle)
		t.flush(o)
	}
	if err != nil {
		return fmt.Errorf("storage key: %w", err)
	}
	if t.srk != nil {
		t.flush(t.srk)
		t.srk = nil
	}
	return nil
}

// session returns an authorization for one command on a key, by a PIN that does not
// travel. The TPM's answer, if it holds a secret, is encrypted.
func (t *Token) session(pin string, encrypt bool) (tpm2.Session, error) {
	srk, err := t.storage()
	if err != nil {
		return nil, err
	}
	options := []tpm2.AuthOption{tpm2.Auth([]byte(pin)), tpm2.Salted(srk.handle, *srk.public)}
	if encrypt {
		options = append(options, tpm2.AESEncryption(128, tpm2.EncryptOut))
	}
	return tpm2.HMAC(tpm2.TPMAlgSHA256, 16, options...), nil
}

// askPIN returns the PIN that was shown before, or asks for it.
func (t *Token) askPIN(ctx context.Context) (string, error) {
	if t.pin != "" {
		return t.pin, nil
	}
	if t.ask == nil {
		return "", hsm.ErrNoPIN
	}
	pin, err := t.ask(ctx, hsm.PINRequest{Token: t.info.Label, Serial: t.info.Serial, Retries: -1})
	if err != nil {
		return "", err
	}
	if len(pin) < minPIN || len(pin) > maxPIN {
		return "", fmt.Errorf("%w: it has %d characters", ErrPIN, len(pin))
	}
	return pin, nil
}

// use runs one command that a key's PIN authorizes.
func (t *Token) use(ctx context.Context, encrypt bool, f func(auth tpm2.Session) error) error {
	pin, err := t.askPIN(ctx)
	if err != nil {
		return err
	}
	auth, err := t.session(pin, encrypt)
	if err != nil {
		return err
	}
	if err := f(auth); err != nil {
		t.pin = "" // ask again, rather than lose another try by it
		return asKey(err)
	}
	t.pin = pin
	return nil
}
