// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"valise/enroll/desk/call"
	"valise/hsm"
	"valise/identity"
	"valise/internal/keys"
)

const (
	officerFile     = "officer.toml"
	officerCertFile = "officer.pem"

	// maxChainFile bounds a file of certificates.
	maxChainFile = 64 << 10
	// maxSettingsFile bounds officer.toml.
	maxSettingsFile = 64 << 10
	// maxSessionFile bounds the cached session.
	maxSessionFile = 64 << 10
)

type keysPIN = hsm.PINFunc

// officerSettings is officer.toml.
type officerSettings struct {
	URL         string `toml:"url"`         // the authority's, https://HOST or https://HOST:PORT
	Root        string `toml:"root"`        // SHA-256 of its root, hexadecimal
	Card        string `toml:"card"`        // URI of the key: piv:9c?serial=NUMBER
	Certificate string `toml:"certificate"` // PEM: the officer's certificate and the issuing one

	root [32]byte
}

// OfficerSetupCmd is `valise officer setup`.
type OfficerSetupCmd struct {
	output
	URL         string `name:"url" required:"" placeholder:"URL" help:"The authority: https://HOST or https://HOST:PORT."`
	Root        string `required:"" placeholder:"SHA256|FILE" help:"Its root: the certificate's SHA-256 in hexadecimal, or the certificate in PEM."`
	Card        string `default:"piv:9c" placeholder:"URI" help:"The key that signs: piv:9c, piv:9c?serial=NUMBER."`
	Certificate string `required:"" type:"existingfile" placeholder:"FILE" help:"Your certificate and the one above it, in PEM, as the ceremony or an administrator handed them out."`
}

// Run looks at card and certificate, and writes the settings. It asks for no PIN.
func (cmd *OfficerSetupCmd) Run(ctx context.Context, e *env) error {
	u, err := url.Parse(cmd.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || "https://"+u.Host != cmd.URL {
		return &hintError{text: fmt.Sprintf("%q is not an authority's URL", cmd.URL), hint: "write https://HOST or https://HOST:PORT, with nothing behind it"}
	}
	root, cert, err := readRoot(cmd.Root)
	if err != nil {
		return err
	}
	chain, err := readChain(cmd.Certificate)
	if err != nil {
		return err
	}
	id, err := leafKey(chain[0])
	if err != nil {
		return err
	}
	if err := cmd.checkCard(ctx, id); err != nil {
		return err
	}
	if cert != nil {
		if err := checkOfficerChain(chain, cert); err != nil {
			return err
		}
	}
	if err := makeHome(e.home); err != nil {
		return err
	}
	target := filepath.Join(e.home, officerCertFile)
	var text bytes.Buffer
	for _, der := range chain {
		_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // into memory
	}
	if err := replaceFile(target, text.Bytes(), 0o600); err != nil {
		return err
	}
	s := fmt.Sprintf("# Written by valise officer setup.\nurl = %q\nroot = %q\ncard = %q\ncertificate = %q\n", cmd.URL, hex.EncodeToString(root[:]), cmd.Card, officerCertFile)
	if err := replaceFile(filepath.Join(e.home, officerFile), []byte(s), 0o600); err != nil {
		return err
	}
	if e.json {
		return e.print(map[string]any{"url": cmd.URL, "root": hex.EncodeToString(root[:]), "key": id})
	}
	e.say("authority: %s, root %x", cmd.URL, root)
	e.say("key: %s", id)
	e.say("next: valise officer requests")
	return nil
}

// checkCard makes sure that the certificate is the card's.
func (cmd *OfficerSetupCmd) checkCard(ctx context.Context, want identity.DeviceID) error {
	key, err := keys.OpenKey(ctx, cmd.Card, keys.PINPrompt(nil))
	if err != nil {
		return err
	}
	defer key.Close()
	id, err := identity.DeviceIDOf(key.Public())
	if err != nil {
		return err
	}
	if id != want {
		return &hintError{text: fmt.Sprintf("the certificate is for key %s, the card holds %s", want, id), hint: "insert the card that you applied with, or name it: --card 'piv:9c?serial=NUMBER'"}
	}
	return nil
}

func checkOfficerChain(chain [][]byte, root *x509.Certificate) error {
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return err
	}
	if len(leaf.EmailAddresses) != 1 {
		return errors.New("the certificate names no officer")
	}
	a, err := identity.ParseAddress(leaf.EmailAddresses[0])
	if err != nil {
		return err
	}
	trust := identity.NewTrust(identity.Authority{Domain: a.Domain(), Roots: []*x509.Certificate{root}})
	_, err = trust.Officer(chain, time.Now())
	return err
}

// loadOfficer reads the settings.
func loadOfficer(home string) (*officerSettings, error) {
	path := filepath.Join(home, officerFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, &hintError{text: "there are no officer's settings in " + home, hint: "run: valise officer setup"}
	}
	data, err := readUpTo(path, maxSettingsFile)
	if err != nil {
		return nil, err
	}
	s := new(officerSettings)
	meta, err := toml.Decode(string(data), s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return nil, fmt.Errorf("%s: unknown key %q", path, unknown[0].String())
	}
	root, err := identity.ParseDeviceID(s.Root)
	if err != nil {
		return nil, fmt.Errorf("%s: root: want the 64 hexadecimal digits of a SHA-256", path)
	}
	s.root = root
	if !filepath.IsAbs(s.Certificate) {
		s.Certificate = filepath.Join(home, s.Certificate)
	}
	return s, nil
}

// readRoot takes a hash, or a certificate, which is returned too.
func readRoot(s string) ([32]byte, *x509.Certificate, error) {
	if id, err := identity.ParseDeviceID(strings.ToLower(s)); err == nil {
		return id, nil, nil
	}
	data, err := readUpTo(s, maxChainFile)
	if err != nil {
		return [32]byte{}, nil, &hintError{text: fmt.Sprintf("%q is neither a SHA-256 in hexadecimal nor a file that can be read: %v", s, err), hint: "the record of the ceremony has the root's SHA-256"}
	}
	chain, err := parseChain(s, data)
	if err != nil {
		return [32]byte{}, nil, err
	}
	cert, err := x509.ParseCertificate(chain[len(chain)-1])
	if err != nil {
		return [32]byte{}, nil, err
	}
	return sha256.Sum256(cert.Raw), cert, nil
}

// readChain reads an officer's certificate and the one above it.
func readChain(path string) ([][]byte, error) {
	data, err := readUpTo(path, maxChainFile)
	if err != nil {
		return nil, err
	}
	chain, err := parseChain(path, data)
	if err == nil && len(chain) < 2 {
		err = &hintError{text: path + " holds one certificate", hint: "it must hold the officer's and, behind it, the issuing one"}
	}
	return chain, err
}

func parseChain(path string, data []byte) (chain [][]byte, err error) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%s holds a %.40q besides certificates", path, block.Type)
		}
		chain = append(chain, block.Bytes)
	}
	if len(chain) == 0 {
		return nil, fmt.Errorf("%s holds no certificate in PEM", path)
	}
	return chain, nil
}

func leafKey(der []byte) (identity.DeviceID, error) {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return identity.DeviceID{}, err
	}
	return identity.DeviceIDOf(leaf.PublicKey)
}

// replaceFile writes a file so that a crash leaves the old one or the new one.
func replaceFile(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path))
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// A cached session is good for the desk and the key that it was opened for.
type cachedSession struct {
	URL     string            `json:"url"`
	Root    string            `json:"root"`
	Key     identity.DeviceID `json:"key"`
	Session call.Session      `json:"session"`
}

// sessionPath is in the user's runtime folder, which the system empties, or in the
// home where there is none.
func (b *bureau) sessionPath() (string, error) {
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if !filepath.IsAbs(dir) {
		return filepath.Join(b.home, "officer-session.json"), nil
	}
	dir = filepath.Join(dir, "valise")
	if err := makeHome(dir); err != nil {
		return "", err
	}
	key, err := b.me()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(b.URL + "\x00" + b.Root + "\x00" + key.String()))
	return filepath.Join(dir, "desk-"+hex.EncodeToString(sum[:8])+".json"), nil
}

// cachedSession returns the session of an earlier command, or an empty one. What is
// in doubt counts as none: a new one costs a PIN.
func (b *bureau) cachedSession() call.Session {
	path, err := b.sessionPath()
	if err != nil {
		return call.Session{}
	}
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return call.Session{}
	}
	data, err := readUpTo(path, maxSessionFile)
	if err != nil {
		return call.Session{}
	}
	var c cachedSession
	key, err := b.me()
	if err != nil || json.Unmarshal(data, &c) != nil || c.URL != b.URL || c.Root != b.Root || c.Key != key {
		return call.Session{}
	}
	return c.Session
}

func (b *bureau) keepSession() error {
	path, err := b.sessionPath()
	if err != nil {
		return err
	}
	key, err := b.me()
	if err != nil {
		return err
	}
	data, err := json.Marshal(cachedSession{b.URL, b.Root, key, b.desk.Session})
	if err != nil {
		return err
	}
	return replaceFile(path, data, 0o600)
}

func (b *bureau) forgetSession() {
	b.desk.Session = call.Session{}
	if path, err := b.sessionPath(); err == nil {
		_ = os.Remove(path) // it may be gone
	}
}
