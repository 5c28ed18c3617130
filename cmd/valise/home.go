// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"valise/client"
	"valise/identity"
)

// homeDir is the home directory that a command works in.
func homeDir(given string) (string, error) {
	if given != "" {
		return filepath.Abs(given)
	}
	if state := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "valise"), nil
	}
	user, err := os.UserHomeDir()
	if err != nil {
		return "", &hintError{text: "there is no home directory", hint: "name one with --home or VALISE_HOME"}
	}
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		config, err := os.UserConfigDir()
		return filepath.Join(config, "valise"), err
	}
	return filepath.Join(user, ".local", "state", "valise"), nil
}

const (
	profileFile = "profile.json"
	vaultFile   = "vault.db"
	lockFile    = "agent.lock"
	logFile     = "agent.log"
)

// A profile says which device this home belongs to. Nothing in it is secret: it is
// read before the vault can be opened.
type profile struct {
	Address     identity.Address  `json:"address"`
	Device      identity.DeviceID `json:"device"`
	Card        string            `json:"card"`                // URI of the token
	Sign        string            `json:"sign"`                // slot or label of the signing key
	Seal        string            `json:"seal"`                // and of the one that opens the vault
	Witnessed   bool              `json:"witnessed,omitempty"` // officers saw the key made; the card cannot attest
	Gateway     string            `json:"gateway"`
	GatewayTCP  string            `json:"gateway_tcp,omitempty"` // where UDP is closed; empty: the same
	Nodes       []client.Endpoint `json:"nodes,omitempty"`       // further ones of the gateway
	GatewayName string            `json:"gateway_name,omitempty"`
	Authority   string            `json:"authority"`       // URL
	Root        []byte            `json:"root,omitempty"`  // DER; pinned by the invitation
	RootHash    []byte            `json:"root_hash"`       // SHA-256
	Chain       [][]byte          `json:"chain,omitempty"` // DER; absent while enrolling
}

var errNotEnrolled = &hintError{text: "this device is not enrolled", hint: "run: valise enroll INVITATION --gateway HOST:PORT; an invitation comes from a security officer"}

// loadProfile reads the profile of an enrolled device.
func loadProfile(home string) (*profile, error) {
	p, err := readProfile(home)
	if err == nil && len(p.Chain) == 0 {
		err = errNotEnrolled
	}
	return p, err
}

func readProfile(home string) (*profile, error) {
	data, err := os.ReadFile(filepath.Join(home, profileFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNotEnrolled
	}
	if err != nil {
		return nil, err
	}
	p := new(profile)
	if err := json.Unmarshal(data, p); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(home, profileFile), err)
	}
	return p, nil
}

// save writes the profile so that a crash leaves the old one or the new one.
func (p *profile) save(home string) error {
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(home, "."+profileFile)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(data, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(home, profileFile))
}

// gateways are the addresses of all nodes of the gateway.
func (p *profile) gateways() []string {
	all := []string{p.Gateway}
	for _, n := range p.Nodes {
		all = append(all, n.Gateway)
	}
	return all
}

func (p *profile) trust() (*identity.Trust, error) {
	root, err := x509.ParseCertificate(p.Root)
	if err != nil {
		return nil, fmt.Errorf("the pinned root certificate: %w", err)
	}
	return identity.NewTrust(identity.Authority{Domain: p.Address.Domain(), Roots: []*x509.Certificate{root}}), nil
}

func makeHome(home string) error {
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(home)
	if err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		err = &hintError{text: home + " can be read by other users", hint: "run: chmod 700 " + home}
	}
	return err
}
