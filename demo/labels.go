// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"valise/internal/stage"
	"valise/internal/store/relay"
	"valise/mls"
	"valise/policies"
	"valise/policy"
	"valise/wire"
)

// The policy of the demo is policies/france.xml. secretClearance and lowClearance are
// clearances under it as rosters write them; classes go by RFC 5755's names.
const (
	policyID        = "1.2.840.113556.1.8000.2554.18213.59516.26747.17558.47525.5520943.4926459.3.1"
	lowClearance    = policyID + ":unclassified+restricted"
	secretClearance = lowClearance + "+secret"

	secret     = "SECRET"
	restricted = "DIFFUSION RESTREINTE"
	unmarked   = "NON MARQUÉ"
)

// enactPolicy has two officers sign a policy bundle, each with their own card.
func (d *demo) enactPolicy(ctx context.Context) error {
	d.screen.step("Two officers put a policy into force: who may read what. Gateway and devices check both signatures")
	spif, err := policies.Read("france")
	if err != nil {
		return err
	}
	file, folder, signed := filepath.Join(d.stage.Dir, "france.xml"), filepath.Join(d.stage.Dir, "bundle"), filepath.Join(d.stage.Dir, "bundle.signed")
	if err := os.WriteFile(file, spif, 0o600); err != nil {
		return err
	}
	if _, err := stage.Output(ctx, nil, filepath.Join(d.stage.Bin, "valise"), "policy", "new", folder, "--spif", file, "--domain", domain); err != nil {
		return err
	}
	if _, err := d.olga.SignBundle(ctx, folder, signed); err != nil {
		return err
	}
	if err := d.gateway.LayDown(signed); err != nil {
		return err
	}
	if _, err := d.oskar.SignBundle(ctx, signed, signed); err != nil {
		return err
	}
	for _, p := range []*person{d.alice, d.bob} {
		if _, err := stage.Poll(ctx, p.Name+"'s device to have the policy", func() (struct{}, bool, error) {
			version, err := p.policyVersion(ctx)
			return struct{}{}, version == 1, err
		}); err != nil {
			return err
		}
	}
	d.screen.say("version 1 is in force at the gateway and on both devices")
	out, err := d.alice.Run(ctx, "labels", d.bob.Address)
	if err != nil {
		return err
	}
	d.screen.say("what Alice may write to Bob, both cleared up to SECRET:")
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, secret+" ") || strings.HasPrefix(line, restricted+" ") || strings.HasPrefix(line, unmarked+" ") {
			d.screen.say("  %s", strings.Join(strings.Fields(line), " "))
		}
	}
	return nil
}

// policyVersion asks a device which bundle is in force for it.
func (p *person) policyVersion(ctx context.Context) (int, error) {
	out, err := p.Run(ctx, "labels", "--json")
	if err != nil {
		return 0, err
	}
	var list struct{ Version int }
	return list.Version, json.Unmarshal([]byte(out), &list)
}

// writeMarked is write under a label; the checker looks at the marking.
func (p *person) writeMarked(ctx context.Context, to *person, label, text string) error {
	if err := to.keepMarked(text, label); err != nil {
		return err
	}
	_, err := p.Run(ctx, "send", to.Address, text, "--label", label)
	return err
}

func (p *person) keepMarked(text, marking string) error {
	if err := p.keepText(text); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return writeNew(filepath.Join(p.sent, "marked", fmt.Sprintf("%04d", p.texts)), []byte(marking+"\n"+text))
}

// account has the checker look for a reason in the gateway's audit stream.
func (d *demo) account(reason string) error {
	path := filepath.Join(filepath.Dir(d.bob.sent), "audit")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(reason + "\n")
	return errors.Join(err, f.Close())
}

// carryLabels has a SECRET message go to Bob while he is cleared for it, and not after
// his clearance was lowered.
func (d *demo) carryLabels(ctx context.Context) error {
	d.screen.step("SECRET goes to whoever is cleared for it, and to nobody else")
	t := &trial{
		name: "SECRET to somebody who is not cleared for it", reason: "classification", audit: d.gateway.Audit,
		control: func(ctx context.Context) error {
			if err := d.alice.writeMarked(ctx, d.bob, secret, "The minister travels on Tuesday."); err != nil {
				return err
			}
			return d.settle(ctx)
		},
		attack: d.writeAbove,
	}
	if err := d.account(t.reason); err != nil {
		return err
	}
	if err := d.try(ctx, []*trial{t}); err != nil {
		return err
	}
	if err := d.alice.writeMarked(ctx, d.bob, restricted, "Ask the registry for the rest."); err != nil {
		return fmt.Errorf("within Bob's clearance: %w", err)
	}
	if err := d.settle(ctx); err != nil {
		return err
	}
	d.screen.say("%s still reaches him", restricted)
	return nil
}

// tooMuch is what Bob must not get.
const tooMuch = "The minister travels on Wednesday instead."

// writeAbove lowers Bob's clearance, which takes one officer, and has Alice write SECRET
// to him. Her device does not know of it yet: it is the gateway that refuses.
func (d *demo) writeAbove(ctx context.Context) error {
	before, err := d.gateway.Metric(ctx, "valise_gateway_bulletin_number")
	if err != nil {
		return unprepared(err)
	}
	if _, err := d.olga.Sign(ctx, "roster", "set", d.bob.Address, "--clearance", lowClearance); err != nil {
		return unprepared(err)
	}
	if _, err := stage.Poll(ctx, "the gateway to know of Bob's clearance", func() (struct{}, bool, error) {
		now, err := d.gateway.Metric(ctx, "valise_gateway_bulletin_number")
		return struct{}{}, now > before, err
	}); err != nil {
		return unprepared(err)
	}
	d.screen.say("Olga lowers Bob's clearance to %s; Alice writes SECRET to him, as before", restricted)
	out, err := d.alice.Run(ctx, "send", d.bob.Address, tooMuch, "--label", secret)
	if err == nil {
		return nil
	}
	for line := range strings.Lines(out + err.Error()) {
		if _, said, ok := strings.Cut(line, "valise: "); ok {
			d.screen.say("Alice is told: %s", strings.TrimSpace(said))
		}
	}
	return err
}

// forgeLabel is an operator who takes the label off a stored message and puts a lower
// one in its place. The control is a message of the same label, in the same store.
func (d *demo) forgeLabel(ctx context.Context) error {
	t := &trial{
		name: "a label forged in the gateway's store", reason: "label_altered", audit: d.gateway.Audit,
		control: func(ctx context.Context) error {
			if _, err := d.bob.Run(ctx, "lock"); err != nil {
				return err
			}
			if err := d.alice.writeMarked(ctx, d.bob, secret, "Waited in the store under its own label."); err != nil {
				return err
			}
			if err := d.bob.Unlock(ctx); err != nil {
				return err
			}
			return d.settle(ctx)
		},
		attack: func(ctx context.Context) error {
			write := func() error {
				return d.alice.writeMarked(ctx, d.bob, secret, "Waited in the store under a forged label.")
			}
			return d.storeAndRestart(ctx, write, relabelNewest, "label_altered")
		},
	}
	if err := d.account(t.reason); err != nil {
		return err
	}
	if err := d.try(ctx, []*trial{t}); err != nil {
		return err
	}
	d.screen.say("Bob's device refused that copy, and has the message under the label that Alice's card signed")
	return nil
}

// relabelNewest puts a lower label on the newest message of the store.
func relabelNewest(ctx context.Context, file string) error {
	return changeNewest(ctx, file, func(payload []byte) ([]byte, error) {
		info, err := mls.ParsePrivateMessageInfo(payload)
		if err != nil {
			return nil, err
		}
		header, err := wire.ParseHeader(info.AuthenticatedData)
		if err != nil {
			return nil, err
		}
		label, err := policy.ParseLabel(header.Label)
		if err != nil {
			return nil, fmt.Errorf("the newest message has no label: %w", err)
		}
		label.Classification = unmarked
		if header.Label, err = label.Marshal(); err != nil {
			return nil, err
		}
		forged, err := header.Marshal()
		if err != nil {
			return nil, err
		}
		old := string(append(varint(len(info.AuthenticatedData)), info.AuthenticatedData...))
		if strings.Count(string(payload), old) != 1 {
			return nil, errors.New("the header is not where it should be")
		}
		return []byte(strings.Replace(string(payload), old, string(varint(len(forged)))+string(forged), 1)), nil
	})
}

// varint is the length of a vector in MLS (RFC 9420, Section 2.1.2).
func varint(n int) []byte {
	if n < 64 {
		return []byte{byte(n)}
	}
	return []byte{0x40 | byte(n>>8), byte(n)}
}

// changeNewest changes the newest message of the store.
func changeNewest(ctx context.Context, file string, change func(payload []byte) ([]byte, error)) error {
	if err := flush(ctx, file); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", file)
	if err != nil {
		return err
	}
	defer db.Close()
	var id int64
	var payload []byte
	if err := db.QueryRowContext(ctx, "SELECT id, payload FROM messages WHERE kind = 1 ORDER BY id DESC LIMIT 1").Scan(&id, &payload); err != nil {
		return err
	}
	if payload, err = change(payload); err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "UPDATE messages SET payload = ? WHERE id = ?", payload, id)
	return err
}

// tamperLabels does what DEMO_SABOTAGE asks for.
func (d *demo) tamperLabels() error {
	messages := filepath.Join(d.bob.received, "messages.jsonl")
	switch d.sabotage {
	case "mark":
		return replaceIn(messages, `"marking":"`+secret+`"`, `"marking":"`+unmarked+`"`)
	case "leak":
		line, err := json.Marshal(map[string]string{"text": tooMuch, "marking": secret})
		if err != nil {
			return err
		}
		data, err := os.ReadFile(messages)
		if err != nil {
			return err
		}
		return os.WriteFile(messages, append(data, append(line, '\n')...), 0o600)
	case "silent":
		return replaceIn(d.gateway.Audit, `"reason":"classification"`, `"reason":"none"`)
	}
	return nil
}

func replaceIn(path, old, with string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !strings.Contains(string(data), old) {
		return fmt.Errorf("%s: nothing to change", path)
	}
	return os.WriteFile(path, []byte(strings.Replace(string(data), old, with, 1)), 0o600)
}

// flush moves what waits in the journal of a gateway that stands still into its
// database.
func flush(ctx context.Context, file string) error {
	j, err := relay.OpenJournaled(ctx, relay.Config{Path: file})
	if err != nil {
		return err
	}
	return errors.Join(j.Flush(ctx), j.Close())
}
