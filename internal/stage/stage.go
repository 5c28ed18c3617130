// SPDX-License-Identifier: Apache-2.0

// Package stage puts a whole Valise on one machine: readers with virtual cards,
// tokens, an authority, a gateway, officials with their agents. Every part is
// the real program in a process of its own; the package only starts, feeds and
// kills them. The demo, the end-to-end tests and the benchmarks stand on it.
//
//	s, err := stage.New(ctx, stage.Config{Bin: "bin"})
//	defer s.Close()
//	authority, err := s.NewAuthority(ctx, "interieur.example", roster, roots)
//	gateway, err := s.NewGateway(ctx, authority)
//	reader, err := s.NewReader(ctx, "alice", root, 1)
//	alice, err := s.NewOfficial("alice", "alice@interieur.example", reader.Cards[0])
//	err = alice.Enroll(ctx, authority, gateway)
//
// Nothing here is for production: PINs are fixed and lie in files.
package stage

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// PIN is the PIN of every card and token on a stage.
const PIN = "123456"

// A Config says where a stage finds and puts things.
type Config struct {
	Bin string // folder of the built commands
	Dir string // folder for everything; a new one under the temporary folder if empty

	// TokenServers puts p11-kit's server in front of each token, so that it can
	// be killed and started again like an HSM on a network.
	TokenServers bool

	// PrepareData is called with the gateway's data folder, empty, before the gateway
	// starts for the first time: to mount something there. Nil does nothing.
	PrepareData func(dir string) error

	// Syslog is a collector for the daemons' audit streams (tcp://HOST:PORT); empty: none.
	Syslog string
}

// syslog is the part of a daemon's configuration for that.
func (s *Stage) syslog() string {
	if s.cfg.Syslog == "" {
		return ""
	}
	return fmt.Sprintf("\n[syslog]\nserver = %q\n", s.cfg.Syslog)
}

// A Stage is one machine with everything on it.
type Stage struct {
	Dir string
	Bin string

	// Database is the connection string of the gateway's database, to be said before
	// NewGateway; empty for one of its own.
	Database string

	cfg       Config
	ps        processes
	officials []*Official
}

// New prepares an empty stage.
func New(cfg Config) (*Stage, error) {
	bin, err := filepath.Abs(cfg.Bin)
	if err != nil {
		return nil, err
	}
	dir := cfg.Dir
	if dir == "" {
		// A short path: unix sockets below it have at most 107 bytes.
		if dir, err = os.MkdirTemp("", "vs"); err != nil {
			return nil, err
		}
	}
	s := &Stage{Dir: dir, Bin: bin, cfg: cfg}
	s.ps.logs = filepath.Join(dir, "logs")
	if err := os.MkdirAll(s.ps.logs, 0o700); err != nil {
		return nil, err
	}
	return s, os.WriteFile(s.pinFile(), []byte(PIN+"\n"), 0o600)
}

// Close stops every part, and the agents that commands have started.
func (s *Stage) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, o := range s.officials {
		o.leave(ctx)
	}
	s.ps.stopAll()
}

// Remove deletes the stage's folder; call it after Close.
func (s *Stage) Remove() error { return os.RemoveAll(s.Dir) }

func (s *Stage) pinFile() string            { return filepath.Join(s.Dir, "pin") }
func (s *Stage) command(name string) string { return filepath.Join(s.Bin, name) }

// A Card is a virtual card; Reader is where it is.
type Card struct {
	Serial uint32
	Reader *Reader
	state  string
}

// A Reader is a private pcscd with up to two virtual cards.
type Reader struct {
	Dir   string
	Env   []string
	Cards []*Card

	stage   *Stage
	process *Process
}

// AttestationRoot gives the file of an attestation root for virtual cards and
// the PEM file of its certificate; the first card makes it.
func (s *Stage) AttestationRoot(name string) string { return filepath.Join(s.Dir, name+".root") }

// RootPEM writes the certificate of an attestation root into a file for an
// authority's configuration. A card must have been made under it.
func (s *Stage) RootPEM(ctx context.Context, root string) (string, error) {
	pem, err := Output(ctx, nil, s.command("valise-testcard"), "root", "--root", root, "--pem")
	if err != nil {
		return "", err
	}
	return root + ".pem", os.WriteFile(root+".pem", []byte(pem), 0o644)
}

// NewCard makes a card under an attestation root; it is in no reader yet.
func (s *Stage) NewCard(ctx context.Context, root string, serial uint32) (*Card, error) {
	return s.NewCardOf(ctx, root, serial, "5.4.3")
}

// NewCardOf is NewCard for a card that says that it has this firmware.
func (s *Stage) NewCardOf(ctx context.Context, root string, serial uint32, firmware string) (*Card, error) {
	c := &Card{Serial: serial, state: filepath.Join(s.Dir, fmt.Sprintf("%d.card", serial))}
	_, err := Output(ctx, nil, s.command("valise-testcard"), "new", "--state", c.state, "--root", root,
		"--serial", fmt.Sprint(serial), "--firmware", firmware)
	return c, err
}

// NewReader puts cards into a reader of their own.
func (s *Stage) NewReader(ctx context.Context, name string, cards ...*Card) (*Reader, error) {
	r := &Reader{Dir: filepath.Join(s.Dir, "r-"+name), Cards: cards, stage: s}
	args := []string{"reader", "--dir", r.Dir}
	for _, c := range cards {
		c.Reader = r
		args = append(args, c.state)
	}
	var err error
	if r.process, err = s.ps.start("reader-"+name, nil, s.command("valise-testcard"), args...); err != nil {
		return nil, err
	}
	line, err := r.process.WaitLine(ctx, "PCSCLITE_CSOCK_NAME=")
	if err != nil {
		return nil, err
	}
	r.Env = []string{strings.TrimSpace(line)}
	return r, nil
}

// Eject pulls the card out; Insert puts it back in.
func (c *Card) Eject(ctx context.Context) error {
	return c.Reader.do(ctx, "eject", fmt.Sprint(c.Serial))
}

// Insert puts the card in.
func (c *Card) Insert(ctx context.Context) error { return c.Reader.do(ctx, "insert", c.state) }

// RestartPCSCD ends the reader's pcscd and starts another; the cards stay in.
func (r *Reader) RestartPCSCD(ctx context.Context) error { return r.do(ctx, "restart-pcscd") }

func (r *Reader) do(ctx context.Context, verb string, args ...string) error {
	_, err := Output(ctx, nil, r.stage.command("valise-testcard"), append([]string{verb, "--dir", r.Dir}, args...)...)
	return err
}

// Missing says which of the programs that a stage needs is not installed.
func Missing() error {
	for _, program := range []string{"pcscd", "softhsm2-util"} {
		if _, err := exec.LookPath(program); err != nil {
			if _, err := os.Stat("/usr/sbin/" + program); err != nil {
				return fmt.Errorf("stage: %s is not installed: run make setup", program)
			}
		}
	}
	return nil
}
