// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"valise/client"
	"valise/client/vault"
	"valise/hsm"
	"valise/identity"
	"valise/internal/keys"
)

// EnrollCmd is `valise enroll`.
type EnrollCmd struct {
	output
	Invitation string   `arg:"" help:"The code that a security officer gave you, or the name of a file with it (@FILE)."`
	Gateway    []string `required:"" placeholder:"HOST:PORT" help:"The gateway that carries your messages; several times for one with several nodes."`

	GatewayTCP           []string `name:"gateway-tcp" placeholder:"HOST:PORT" help:"Where the gateway is reached over TCP, from networks that drop UDP, if that is another address than --gateway; one for each of them."`
	GatewayName          string   `placeholder:"NAME" help:"The name in the gateway's certificate, if it is not HOST."`
	Card                 string   `default:"piv:" placeholder:"URI" help:"The card: piv:, piv:?serial=NUMBER, tpm: for this computer's TPM, or a PKCS#11 URI."`
	Slot                 string   `placeholder:"SLOT" help:"Use the key that is in this slot, or make one there. Default: make one in 9a."`
	VaultSlot            string   `placeholder:"SLOT" help:"The same for the key that opens the vault. Default: make one in 9d."`
	Algorithm            string   `enum:"p384,p256" default:"p384" help:"Kind of keys to make: p384 or p256."`
	PINFile              string   `name:"pin-file" type:"path" placeholder:"FILE" help:"Read the PIN from a file that only you can read."`
	ManagementKeyFile    string   `type:"path" placeholder:"FILE" help:"The card's management key in hexadecimal, which making keys needs."`
	Witnessed            bool     `help:"The card cannot attest its keys: two officers see them made in it, and say so. Only where the authority accepts that."`
	DefaultManagementKey bool     `help:"The card still has the management key that it was delivered with."`
}

// Run enrolls. It can be repeated after a failure: keys that it made are used again.
func (cmd *EnrollCmd) Run(ctx context.Context, e *env) error {
	inv, err := cmd.invitation()
	if err != nil {
		return err
	}
	if err := cmd.checkAddresses(); err != nil {
		return err
	}
	if err := makeHome(e.home); err != nil {
		return err
	}
	unlock, err := takeLock(e.home)
	if err != nil {
		return err
	}
	defer unlock()
	p, err := readProfile(e.home)
	switch {
	case errors.Is(err, errNotEnrolled):
		p = new(profile)
	case err != nil:
		return err
	case len(p.Chain) > 0:
		return &hintError{text: fmt.Sprintf("this home is enrolled as %s already", p.Address), hint: "choose another home with --home"}
	}
	c, err := cmd.prepare(ctx, e, p)
	if err != nil {
		return err
	}
	defer c.logout()
	return cmd.enroll(ctx, e, p, c, inv)
}

// checkAddresses refuses what is no address before a card is touched.
func (cmd *EnrollCmd) checkAddresses() error {
	for _, address := range append(slices.Clone(cmd.Gateway), cmd.GatewayTCP...) {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return &hintError{text: fmt.Sprintf("%q is not a gateway's address", address), hint: "write it as HOST:PORT, as your security officer gave it"}
		}
	}
	if n := len(cmd.GatewayTCP); n > 0 && n != len(cmd.Gateway) {
		return &hintError{
			text: fmt.Sprintf("%d gateway addresses, and %d over TCP", len(cmd.Gateway), n),
			hint: "give --gateway-tcp once for each --gateway, in the same order, or not at all",
		}
	}
	return nil
}

// endpoints are the gateway's nodes.
func (cmd *EnrollCmd) endpoints() []client.Endpoint {
	all := make([]client.Endpoint, len(cmd.Gateway))
	for i, address := range cmd.Gateway {
		all[i].Gateway = address
		if len(cmd.GatewayTCP) > 0 {
			all[i].GatewayTCP = cmd.GatewayTCP[i]
		}
	}
	return all
}

func (cmd *EnrollCmd) invitation() (*identity.Invitation, error) {
	code := cmd.Invitation
	if name, ok := strings.CutPrefix(code, "@"); ok {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		code = string(data)
	}
	inv, err := identity.ParseInvitation(code)
	return &inv, err
}

// prepare opens or makes the two keys, and remembers them: a second attempt finds
// them again.
func (cmd *EnrollCmd) prepare(ctx context.Context, e *env, p *profile) (*card, error) {
	pin := askOnce(cmd.PINFile)
	if p.Card != "" {
		p.Witnessed = cmd.Witnessed
		c, err := openCard(ctx, p, pin)
		if err == nil && c.id != p.Device {
			err = errors.Join(&hintError{text: "this is another card than the one with which this enrollment began", hint: "insert that card, or choose another home with --home"}, c.close())
		}
		return c, err
	}
	token, err := keys.OpenToken(ctx, cmd.Card, pin)
	if err != nil {
		return nil, err
	}
	c := &card{token: token}
	info := token.Info()
	e.say("card: %s, serial %s", info.Label, info.Serial)
	p.Sign, p.Seal = cmd.Slot, cmd.VaultSlot
	if c.sign, err = cmd.key(ctx, e, token, &p.Sign, "9a", "signing key"); err != nil {
		return nil, errors.Join(err, c.close())
	}
	if c.seal, err = cmd.key(ctx, e, token, &p.Seal, "9d", "key for the vault"); err != nil {
		return nil, errors.Join(err, c.close())
	}
	if err := c.finish(); err != nil {
		return nil, err
	}
	p.Card, p.Device, p.Witnessed = cmd.Card, c.id, cmd.Witnessed
	if info.Kind == "piv" && !strings.Contains(cmd.Card, "serial=") {
		p.Card = "piv:?serial=" + info.Serial
	}
	return c, p.save(e.home)
}

// key finds a key in a slot that was named, or makes one in the slot that is usual.
func (cmd *EnrollCmd) key(ctx context.Context, e *env, token hsm.Token, ref *string, usual, what string) (hsm.Key, error) {
	named := *ref != ""
	if !named {
		*ref = usual
	}
	k, err := token.Key(ctx, *ref)
	switch {
	case err == nil && named:
		e.say("%s: the one in %s", what, *ref)
		return k, nil
	case err == nil:
		flag := map[string]string{"9a": "--slot", "9d": "--vault-slot"}[usual]
		return nil, errors.Join(&hintError{
			text: fmt.Sprintf("there is a key in slot %s already", usual),
			hint: fmt.Sprintf("to use it: %s %s; to make another one: %s 82 (or up to 95). Nothing is overwritten", flag, usual, flag),
		}, k.Close())
	case !errors.Is(err, hsm.ErrNoKey):
		return nil, err
	}
	o := hsm.GenerateOptions{Algorithm: hsm.P384, Name: "valise", Agree: usual == "9d"}
	if cmd.Algorithm == "p256" {
		o.Algorithm = hsm.P256
	}
	if o.ManagementKey, err = cmd.managementKey(token.Info().Kind); err != nil {
		return nil, err
	}
	e.say("%s: making one in %s (%s); it can never leave the card", what, *ref, o.Algorithm)
	return token.Generate(ctx, *ref, o)
}

func (cmd *EnrollCmd) managementKey(kind string) ([]byte, error) {
	switch {
	case cmd.ManagementKeyFile != "":
		text, err := os.ReadFile(cmd.ManagementKeyFile)
		if err != nil {
			return nil, err
		}
		key, err := hex.DecodeString(string(bytes.TrimSpace(text)))
		if err != nil {
			return nil, fmt.Errorf("%s: the management key must be hexadecimal digits", cmd.ManagementKeyFile)
		}
		return key, nil
	case cmd.DefaultManagementKey || kind != "piv":
		return nil, nil
	}
	return nil, &hintError{
		text: "making keys in a card needs its management key",
		hint: "give it with --management-key-file, or say --default-management-key if it was never changed; or use keys that are there with --slot and --vault-slot",
	}
}

func (cmd *EnrollCmd) enroll(ctx context.Context, e *env, p *profile, c *card, inv *identity.Invitation) error {
	v, err := openOrCreateVault(ctx, e.home, c)
	if err != nil {
		return err
	}
	defer v.Lock()
	account, err := accountKey(ctx, v)
	if err != nil {
		return err
	}
	n := &client.Enrollment{
		URL: inv.URL, Root: inv.Root, Invitation: inv, Account: account,
		Progress: func(step string) { e.say("%s", step) },
	}
	if err := c.prove(ctx, n, p.Witnessed); err != nil {
		return err
	}
	e.say("fingerprint of this device, to read out to an officer: %s", c.id)
	if p.Witnessed {
		e.say("this card is not asked for evidence: two officers must see it now, and say so when they approve")
	}
	done, err := n.Do(ctx)
	if err != nil {
		return err
	}
	at := cmd.endpoints()
	p.Address, p.Gateway, p.GatewayTCP, p.Nodes, p.GatewayName = done.Device.Address, at[0].Gateway, at[0].GatewayTCP, at[1:], cmd.GatewayName
	p.Authority, p.RootHash, p.Root, p.Chain = inv.URL, inv.Root[:], done.Root.Raw, done.Chain
	if err := pinProfile(ctx, v, p); err != nil {
		return err
	}
	if done.Record {
		if err := pinRecord(ctx, v); err != nil {
			return err
		}
	}
	if err := p.save(e.home); err != nil {
		return err
	}
	if e.json {
		return e.print(map[string]any{"address": p.Address, "device": p.Device, "certificate_expires": done.Device.Leaf.NotAfter})
	}
	e.say("enrolled as %s; the certificate is valid until %s and renews itself", p.Address, done.Device.Leaf.NotAfter.Local().Format("2006-01-02 15:04"))
	e.say("next: valise unlock")
	return nil
}

func openOrCreateVault(ctx context.Context, home string, c *card) (*vault.Vault, error) {
	path := filepath.Join(home, vaultFile)
	v, err := vault.Open(ctx, path, c.id, c.agree)
	if errors.Is(err, vault.ErrNone) {
		return vault.Create(ctx, path, c.id, c.agree)
	}
	return v, err
}

// askOnce reads the PIN from a file, or asks for it once. A card that refuses it ends
// the command; nothing is tried a second time.
func askOnce(file string) hsm.PINFunc {
	ask := keys.PINPrompt(nil)
	if file != "" {
		ask = keys.PINFromFile(file)
	}
	var pin string
	return func(ctx context.Context, r hsm.PINRequest) (string, error) {
		if pin != "" {
			return pin, nil
		}
		var err error
		pin, err = ask(ctx, r)
		return pin, err
	}
}
