// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"valise/internal/stage"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: failed: %v\n", err)
		os.Exit(1)
	}
}

// settings come from the environment, as make passes them.
type settings struct {
	keep     bool
	short    bool
	sabotage string
}

func readSettings() (settings, error) {
	s := settings{keep: os.Getenv("KEEP") != "", short: os.Getenv("DEMO_SHORT") != "", sabotage: os.Getenv("DEMO_SABOTAGE")}
	switch s.sabotage {
	case "", "drop", "dup", "flip", "mark", "leak", "silent", "admit":
		return s, nil
	}
	return s, fmt.Errorf("DEMO_SABOTAGE=%s: want drop, dup, flip, mark, leak, silent or admit", s.sabotage)
}

func run(ctx context.Context) (err error) {
	set, err := readSettings()
	if err != nil {
		return err
	}
	if err := stage.Missing(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	st, err := stage.New(stage.Config{Bin: filepath.Dir(self)})
	if err != nil {
		return err
	}
	defer func() {
		st.Close()
		if err != nil {
			err = fmt.Errorf("%w\nlogs are in %s", err, filepath.Join(st.Dir, "logs"))
		} else {
			err = st.Remove()
		}
	}()
	d := &demo{settings: set, stage: st, screen: &screen{w: os.Stdout, start: time.Now()}}
	limit, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	if err := d.play(limit); err != nil {
		return err
	}
	if set.keep {
		return d.linger(ctx)
	}
	return nil
}

// A demo is the play: who is on the stage, and what was said.
type demo struct {
	settings
	stage  *stage.Stage
	screen *screen

	root      string // the virtual cards' attestation root
	rootPEM   string
	olga      *stage.Officer
	oskar     *stage.Officer
	authority *stage.Authority
	gateway   *stage.Gateway
	alice     *person
	bob       *person
	mallory   *mallory
	refused   int // intruders
}

// play is the whole demo; each act prints its own step.
func (d *demo) play(ctx context.Context) error {
	acts := []func(context.Context) error{
		d.insertCards, d.foundAuthority, d.startGateway, d.enroll, d.enactPolicy,
		d.writeBothWays, d.writeWhileAway, d.sendFile, d.killGateway, d.alterStore, d.carryLabels,
	}
	// A short play whose messages are tampered with ends in the same way without
	// intruders.
	if !d.short || d.sabotage == "" || d.sabotage == "admit" {
		acts = append(acts, d.intrudeEnrollment, d.intrudeGateway, d.loseCard, d.auditRecord)
	}
	for _, act := range acts {
		if err := act(ctx); err != nil {
			return err
		}
	}
	if err := d.tamper(); err != nil {
		return err
	}
	return d.verdict(ctx)
}

// linger leaves everything running until it is interrupted.
func (d *demo) linger(ctx context.Context) error {
	for _, p := range []*person{d.alice, d.bob} {
		if err := p.stopReceiving(); err != nil {
			return err
		}
	}
	d.screen.step("Everything goes on running. Chat in two terminals:")
	for _, pair := range [][2]*person{{d.alice, d.bob}, {d.bob, d.alice}} {
		d.screen.say("%s %s --home %s chat %s", pair[0].Card.Reader.Env[0], filepath.Join(d.stage.Bin, "valise"), pair[0].Home, pair[1].Address)
	}
	d.screen.say("Ctrl-C here ends everything.")
	<-ctx.Done()
	return nil
}

var errFailed = errors.New("the checker found differences")
