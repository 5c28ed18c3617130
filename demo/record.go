// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"valise/hsm"
	"valise/identity"
	"valise/internal/keys"
	"valise/ledger"
)

// auditRecord has an auditor check a copy of the authority's record from outside,
// and then one into which an insider has written a certificate.
func (d *demo) auditRecord(ctx context.Context) error {
	d.screen.step("An auditor checks the authority's record from outside, knowing nothing but its root")
	honest, planted := filepath.Join(d.stage.Dir, "record"), filepath.Join(d.stage.Dir, "record-planted")
	if _, err := d.olga.Desk(ctx, "audit", "--copy", honest); err != nil {
		return err
	}
	out, err := d.verify(ctx, honest)
	if err != nil {
		return fmt.Errorf("the record: %w: %s", err, out)
	}
	d.screen.say("%s", lastLine(out))
	if err := d.defraud(ctx, honest, planted); err != nil {
		return fmt.Errorf("planting the fraud: %w", err)
	}
	d.screen.say("an insider has the issuing key and the ledger's sign a certificate that no officer approved …")
	out, err = d.verify(ctx, planted)
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		return fmt.Errorf("the planted fraud was not found (%w): %s", err, out)
	}
	if !strings.Contains(out, ": no_approval: ") || !strings.HasSuffix(strings.TrimSpace(out), "audit: 1 findings") && !strings.HasSuffix(strings.TrimSpace(out), "audit: 1 finding") {
		return fmt.Errorf("the auditor found something else: %s", out)
	}
	for line := range strings.Lines(out) {
		d.screen.say("… %s", strings.TrimSpace(line))
	}
	d.refused++
	return nil
}

func (d *demo) verify(ctx context.Context, dir string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(d.stage.Bin, "valise"), "audit", "verify", dir, "--root", d.authority.Root)
	cmd.Env = append(os.Environ(), "HOME="+d.stage.Dir)
	out, err := cmd.Output()
	return string(out), err
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// defraud copies a record and adds a certificate that nobody approved, as somebody
// can who has the authority's token and its database.
func (d *demo) defraud(ctx context.Context, from, to string) (err error) {
	copied, err := ledger.OpenCopy(from)
	if err != nil {
		return err
	}
	var items []ledger.Item
	var tree ledger.Builder
	for item, err := range copied.Items() {
		if err != nil {
			return err
		}
		items = append(items, item)
		if err := tree.Add(item.Entry.Leaf()); err != nil {
			return err
		}
	}
	token, err := d.insider(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, token.Close()) }()
	tbs, err := d.forge(ctx, token)
	if err != nil {
		return err
	}
	entry, err := ledger.NewEntry(ledger.KindIssuance, tbs, time.Now())
	if err != nil {
		return err
	}
	items = append(items, ledger.Item{Index: int64(len(items)), Entry: entry, Payload: tbs})
	if err := tree.Add(entry.Leaf()); err != nil {
		return err
	}
	key, err := token.Key(ctx, "valise-ledger")
	if err != nil {
		return err
	}
	defer key.Close()
	checkpoint, err := ledger.SignCheckpoint(ctx, copied.Origin(), tree.Head(), key)
	if err != nil {
		return err
	}
	return ledger.WriteCopy(to, checkpoint, func(yield func(ledger.Item, error) bool) {
		for _, item := range items {
			if !yield(item, nil) {
				return
			}
		}
	})
}

// insider opens the authority's token.
func (d *demo) insider(ctx context.Context) (hsm.Token, error) {
	for _, setting := range d.authority.Token.Env {
		name, value, _ := strings.Cut(setting, "=")
		if err := os.Setenv(name, value); err != nil {
			return nil, err
		}
	}
	uri := fmt.Sprintf("pkcs11:token=%s?module-path=%s", d.authority.Token.Label, d.authority.Token.Module)
	return keys.OpenToken(ctx, uri, keys.PINFromFile(filepath.Join(d.stage.Dir, "pin")))
}

// forge has the issuing key sign a device certificate for a key in software.
func (d *demo) forge(ctx context.Context, token hsm.Token) ([]byte, error) {
	issuer, err := d.issuer()
	if err != nil {
		return nil, err
	}
	signer, err := token.Key(ctx, "valise-issuer")
	if err != nil {
		return nil, err
	}
	defer signer.Close()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, err
	}
	carol, err := identity.ParseAddress("carol@" + domain)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	profile := identity.DeviceProfile{
		Address: carol, PublicKey: key.Public(), Tier: identity.TierHardware, EvidenceHash: [32]byte{1}, PolicyHash: [32]byte{2},
		Serial: big.NewInt(now.UnixNano()), NotBefore: now.Add(-time.Minute), NotAfter: now.Add(24 * time.Hour),
	}
	template, err := profile.Template()
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return cert.RawTBSCertificate, nil
}

// issuer reads the issuing certificate, which stands first beside the root.
func (d *demo) issuer() (*x509.Certificate, error) {
	data, err := os.ReadFile(filepath.Join(filepath.Dir(d.authority.Root), "chain.pem"))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("chain.pem holds no certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}

// loseCard suspends Bob's card while he is connected. Then two officers bring it
// back, and everything works again.
func (d *demo) loseCard(ctx context.Context) error {
	d.screen.step("Bob's card is lost: one officer suspends it while his device is connected")
	stream, err := watchAudit(d.gateway.Audit)
	if err != nil {
		return err
	}
	device, err := d.deviceOf(ctx, d.bob)
	if err != nil {
		return err
	}
	begin := time.Now()
	if _, err := d.olga.Sign(ctx, "suspend", "--device", device, "--reason", "lost on a train"); err != nil {
		return err
	}
	signed := time.Now()
	if err := stream.await(ctx, "device_suspended"); err != nil {
		return err
	}
	d.screen.say("signed, handed in and obeyed by the gateway in %.1f s; %.2f s after the command ended", time.Since(begin).Seconds(), max(0, time.Since(signed).Seconds()))
	if out, err := d.alice.Run(ctx, "send", d.bob.Address, "Bob, is that you?"); err == nil {
		return fmt.Errorf("a text to a suspended card was taken: %s", out)
	}
	d.screen.say("✗ %-46s refused: device_suspended", "a text to the lost card")
	d.refused++
	d.screen.say("the card is found again: Olga and Oskar both sign that it may come back")
	if _, err := d.olga.Sign(ctx, "resume", "--device", device, "--reason", "found again"); err != nil {
		return err
	}
	if err := d.oskar.Agree(ctx); err != nil {
		return err
	}
	// What was refused before is taken again as soon as the gateway has the bulletin.
	if err := d.alice.keep(ctx, d.bob, "Bob, welcome back."); err != nil {
		return err
	}
	// His device asks again by itself, some time later; unlocking asks at once.
	if _, err := d.bob.Run(ctx, "lock"); err != nil {
		return err
	}
	if err := d.bob.Unlock(ctx); err != nil {
		return err
	}
	if err := d.settle(ctx); err != nil {
		return err
	}
	d.screen.say("Bob is connected again and has Alice's text")
	return nil
}

// deviceOf asks the desk for the device of a person.
func (d *demo) deviceOf(ctx context.Context, p *person) (string, error) {
	out, err := d.olga.Desk(ctx, "show", p.Address, "--json")
	if err != nil {
		return "", err
	}
	var shown struct {
		Devices []struct{ ID string }
	}
	if err := json.Unmarshal([]byte(out), &shown); err != nil || len(shown.Devices) != 1 {
		return "", fmt.Errorf("the desk shows %q (%w)", out, err)
	}
	return shown.Devices[0].ID, nil
}
