// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the gateway's store, opened by an intruder

	"valise/internal/stage"
)

// alterStore is an operator who changes a stored message. The control is a
// message that waits in the same store, through the same restart, unchanged.
func (d *demo) alterStore(ctx context.Context) error {
	d.screen.step("An intruder in the gateway's machine alters a stored message")
	write := func(text string) func() error {
		return func() error { return d.alice.write(ctx, d.bob, text) }
	}
	t := &trial{
		name: "a message altered in the gateway's store", reason: "message_altered", audit: d.gateway.Audit,
		control: func(ctx context.Context) error {
			return d.storeAndRestart(ctx, write("Waited in the store, untouched."), nil, "")
		},
		attack: func(ctx context.Context) error {
			return d.storeAndRestart(ctx, write("Waited in the store, and was altered."), flipNewest, "message_altered")
		},
	}
	if err := d.try(ctx, []*trial{t}); err != nil {
		return err
	}
	if err := d.settle(ctx); err != nil {
		return err
	}
	d.screen.say("Bob's device refused it, told the gateway, asked Alice's device again, and has the true one")
	return d.forgeLabel(ctx)
}

// storeAndRestart lets a message wait for Bob while the gateway restarts. With
// alter it returns an error once Bob's device has refused the message for a reason.
func (d *demo) storeAndRestart(ctx context.Context, write func() error, alter func(ctx context.Context, file string) error, reason string) error {
	if _, err := d.bob.Run(ctx, "lock"); err != nil {
		return unprepared(err)
	}
	if err := write(); err != nil {
		return unprepared(err)
	}
	d.gateway.Process().Stop()
	if alter != nil {
		if err := alter(ctx, d.gateway.Database); err != nil {
			return unprepared(err)
		}
	}
	if err := d.gateway.Start(ctx); err != nil {
		return unprepared(err)
	}
	stream, err := watchAudit(d.gateway.Audit)
	if err != nil {
		return unprepared(err)
	}
	if err := d.bob.Unlock(ctx); err != nil {
		return unprepared(err)
	}
	if alter == nil {
		return d.settle(ctx)
	}
	if err := stream.await(ctx, reason); err != nil {
		return nil // nobody noticed: the intruder got through
	}
	return fmt.Errorf("refused by its recipient")
}

// flipNewest changes one bit in the newest message of the store.
func flipNewest(ctx context.Context, file string) error {
	return changeNewest(ctx, file, func(payload []byte) ([]byte, error) {
		payload[len(payload)-20] ^= 1
		return payload, nil
	})
}

// steal copies Bob's home as a thief of his laptop would, tries to open it with
// another card, and returns the certificates that lie in it.
func (d *demo) steal(ctx context.Context) ([][]byte, error) {
	copied := d.bob.Home + ".copy"
	if err := stage.CopyHome(copied, d.bob.Home); err != nil {
		return nil, err
	}
	thief := d.stage.NewOfficial("bob.copy", d.bob.Address, d.mallory.place)
	if out, err := thief.Run(ctx, "unlock", "--pin-file", filepath.Join(d.stage.Dir, "pin")); err == nil {
		return nil, fmt.Errorf("a copied directory was opened without its card: %s", out)
	}
	_, _ = thief.Run(ctx, "agent", "--stop")
	d.screen.say("a copy of Bob's directory does not open with another card")
	return chainIn(copied)
}

// chainIn finds the certificate chain in a client directory.
func chainIn(home string) ([][]byte, error) {
	data, err := os.ReadFile(filepath.Join(home, "profile.json"))
	if err != nil {
		return nil, err
	}
	var p struct{ Chain [][]byte }
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, err
	}
	if len(p.Chain) == 0 {
		return nil, fmt.Errorf("%s: no chain", home)
	}
	return p.Chain, nil
}

// tamper does what DEMO_SABOTAGE asks for, between the receivers and the checker.
func (d *demo) tamper() error {
	d.alice.receiving.Stop()
	d.bob.receiving.Stop()
	messages := filepath.Join(d.bob.received, "messages.jsonl")
	switch d.sabotage {
	case "drop", "dup":
		data, err := os.ReadFile(messages)
		if err != nil {
			return err
		}
		lines := bytes.SplitAfter(data, []byte("\n"))
		for i, line := range lines {
			var e event
			if json.Unmarshal(line, &e) != nil || e.Text == "" {
				continue
			}
			if d.sabotage == "drop" {
				lines[i] = nil
			} else {
				lines[i] = append(bytes.Clone(line), line...)
			}
			break
		}
		return os.WriteFile(messages, bytes.Join(lines, nil), 0o600)
	case "flip":
		return flipFile(filepath.Join(d.bob.received, "files"))
	}
	return d.tamperLabels()
}

func flipFile(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no file to flip in %s (%v)", dir, err)
	}
	path := filepath.Join(dir, files[0].Name())
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data[len(data)/2] ^= 1
	return os.WriteFile(path, data, 0o600)
}

// verdict lets the checker compare, and prints the last line.
func (d *demo) verdict(ctx context.Context) error {
	d.screen.step("A separate program compares SHA-256 of what was received with what was sent")
	out, err := stage.Output(ctx, nil, filepath.Join(d.stage.Bin, "check"), filepath.Dir(d.bob.sent), filepath.Dir(d.bob.received), d.gateway.Audit)
	d.screen.say("%s", strings.TrimSpace(out))
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return fmt.Errorf("%w: %s", errFailed, strings.TrimSpace(out))
	}
	if err != nil {
		return fmt.Errorf("the checker could not be run: %w", err)
	}
	var m, f, lost, dup, altered int
	if _, err := fmt.Sscanf(out, "checked: %d messages and %d files delivered, %d lost, %d duplicated, %d altered", &m, &f, &lost, &dup, &altered); err != nil {
		return fmt.Errorf("the checker said %q: %w", out, err)
	}
	if want := d.alice.texts + d.bob.texts; m != want || f != d.bob.files+d.alice.files {
		return fmt.Errorf("the checker saw %d messages and %d files of %d and %d", m, f, want, d.bob.files+d.alice.files)
	}
	fmt.Fprintf(d.screen.w, "\nIt took %.0f seconds. No physical card was used: all cards were virtual.\n", time.Since(d.screen.start).Seconds())
	fmt.Fprintf(d.screen.w, "demo: ok: %d messages and %d files delivered, %d lost, %d duplicated, %d intruders refused\n", m, f, lost, dup, d.refused)
	return nil
}
