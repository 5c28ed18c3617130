// SPDX-License-Identifier: Apache-2.0

package testcard

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// A Config says what kind of card leaves the factory. Only Root is required.
type Config struct {
	Serial        uint32  // 0: a random number of eight digits
	Firmware      Version // zero: 5.4.3, which Debian 12's tools understand
	FormFactor    byte    // 0: 1, USB-A keychain
	PIN, PUK      string  // "": the factory's
	ManagementKey []byte  // nil: the factory's; else 16, 24 or 32 bytes of AES, or 24 of 3DES before 5.7
	Untouched     bool    // nobody ever touches this card
	NoSensor      bool    // the card cannot be touched: it refuses keys that want it
	Bio           bool    // the card has a fingerprint reader; the virtual finger always matches
	Root          *Root   // signs the card's attestation key
}

// A state is all that a card keeps without power.
type state struct {
	Format      int                 `json:"format"`
	Serial      uint32              `json:"serial"`
	Firmware    Version             `json:"firmware"`
	FormFactor  byte                `json:"form_factor"`
	Untouched   bool                `json:"untouched,omitempty"`
	NoSensor    bool                `json:"no_sensor,omitempty"`
	Bio         bool                `json:"bio,omitempty"`
	PIN         reference           `json:"pin"`
	PUK         reference           `json:"puk"`
	Management  managementKey       `json:"management"`
	Attestation *attestation        `json:"attestation"`
	Keys        map[string]*slotKey `json:"keys"`
	Objects     map[string][]byte   `json:"objects"`
}

const stateFormat = 1

// factory sets everything that RESET sets.
func (s *state) factory() {
	s.PIN = newReference(DefaultPIN, factoryTries)
	s.PUK = newReference(DefaultPUK, factoryTries)
	s.Management = managementKey{Algorithm: alg3DES, Key: bytes.Clone(defaultManagementKey), Touch: touchNever}
	if s.Firmware.atLeast(5, 7, 0) {
		s.Management.Algorithm = algAES192
	}
	s.Keys = make(map[string]*slotKey)
	s.Objects = make(map[string][]byte)
}

// New makes a card that lives in memory only.
func New(cfg Config) (*Card, error) {
	s, err := newState(cfg)
	if err != nil {
		return nil, err
	}
	return &Card{state: s}, nil
}

func newState(cfg Config) (*state, error) {
	if cfg.Root == nil {
		return nil, errors.New("testcard: a card needs an attestation root")
	}
	s := &state{
		Format: stateFormat, Serial: cfg.Serial, Firmware: cfg.Firmware, FormFactor: cfg.FormFactor,
		Untouched: cfg.Untouched, NoSensor: cfg.NoSensor, Bio: cfg.Bio,
	}
	if s.Serial == 0 {
		s.Serial = 10_000_000 + binary.BigEndian.Uint32(randomBytes(4))%90_000_000
	}
	if s.Firmware == (Version{}) {
		s.Firmware = Version{5, 4, 3}
	}
	if s.FormFactor == 0 {
		s.FormFactor = 1
	}
	s.factory()
	if err := s.personalize(cfg); err != nil {
		return nil, err
	}
	var err error
	s.Attestation, err = newAttestation(cfg.Root, s.Firmware)
	return s, err
}

// personalize replaces the factory's secrets by those of the configuration.
func (s *state) personalize(cfg Config) error {
	for _, ref := range []struct {
		r     *reference
		value string
	}{{&s.PIN, cfg.PIN}, {&s.PUK, cfg.PUK}} {
		if ref.value == "" {
			continue
		}
		if err := checkPIN(ref.value); err != nil {
			return err
		}
		*ref.r = newReference(ref.value, factoryTries)
	}
	if cfg.ManagementKey == nil {
		return nil
	}
	alg := map[int]byte{16: algAES128, 24: s.Management.Algorithm, 32: algAES256}[len(cfg.ManagementKey)]
	if alg == 0 || alg != alg3DES && !s.Firmware.atLeast(5, 4, 0) {
		return fmt.Errorf("testcard: a management key of %d bytes does not fit firmware %v", len(cfg.ManagementKey), s.Firmware)
	}
	s.Management.Algorithm, s.Management.Key = alg, bytes.Clone(cfg.ManagementKey)
	return nil
}

// Create makes a card with a state file, which must not exist yet.
func Create(path string, cfg Config) (*Card, error) {
	unlock, err := lock(path)
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		unlock()
		return nil, fmt.Errorf("testcard: %s exists already: a card is not overwritten", path)
	}
	c, err := New(cfg)
	if err != nil {
		unlock()
		return nil, err
	}
	c.path, c.unlock = path, unlock
	if err := c.state.write(path); err != nil {
		unlock()
		return nil, err
	}
	return c, nil
}

// Open takes the card in the state file. No other process can have it until
// Close: a card is in one reader at a time.
func Open(path string) (*Card, error) {
	unlock, err := lock(path)
	if err != nil {
		return nil, err
	}
	s, err := readState(path)
	if err != nil {
		unlock()
		return nil, fmt.Errorf("testcard: card %s: %w", path, err)
	}
	return &Card{state: s, path: path, unlock: unlock}, nil
}

func readState(path string) (*state, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxStateFile {
		return nil, errors.New("state file is too long")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseState(data)
}

func parseState(data []byte) (*state, error) {
	s := new(state)
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		return nil, err
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	for slot, k := range s.Keys {
		if k == nil {
			return nil, fmt.Errorf("slot %s is null", slot)
		}
		if err := k.parse(); err != nil {
			return nil, fmt.Errorf("slot %s: %w", slot, err)
		}
	}
	return s, s.Attestation.parse()
}

// check refuses a state that no card can be in.
func (s *state) check() error {
	for _, r := range []reference{s.PIN, s.PUK} {
		if len(r.Value) != pinLength || r.Tries < 1 || r.Tries > 255 || r.Left < 0 || r.Left > r.Tries {
			return errors.New("PIN or PUK is malformed")
		}
	}
	switch {
	case s.Format != stateFormat:
		return fmt.Errorf("format %d is not known", s.Format)
	case len(s.Management.Key) != managementKeySize(s.Management.Algorithm) || len(s.Management.Key) == 0:
		return errors.New("management key is malformed")
	case s.Attestation == nil || s.Keys == nil || s.Objects == nil:
		return errors.New("state is incomplete")
	}
	return nil
}

// save puts the state on disk; a card that cannot remember refuses.
func (c *Card) save() status {
	if c.path == "" {
		return swOK
	}
	if err := c.state.write(c.path); err != nil {
		return swMemory
	}
	return swOK
}

// write replaces the file as a whole: after a crash it holds the old state or
// the new one.
func (s *state) write(path string) error {
	data, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return err
	}
	temp, err := writeTemp(filepath.Dir(path), append(data, '\n'))
	if err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		os.Remove(temp)
		return err
	}
	return nil
}

// writeTemp writes a file that only its owner can read, and syncs it.
func writeTemp(dir string, data []byte) (name string, err error) {
	f, err := os.CreateTemp(dir, ".card-*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return f.Name(), err
}
