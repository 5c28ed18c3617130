// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"valise/attest"
	"valise/enroll/ceremony"
	"valise/hsm"
	"valise/identity"
	"valise/internal/keys"
)

// officerSlot is where officers' keys are.
const officerSlot = "9c"

// OfficerApplyCmd is `valise officer apply`.
type OfficerApplyCmd struct {
	output
	Address string `arg:"" help:"Who applies: name@domain."`
	File    string `arg:"" type:"path" help:"The application: a new file, for whoever holds the ceremony or appoints."`

	Role        string `required:"" enum:"officer,administrator,auditor" help:"officer, administrator or auditor: one person has one."`
	ForCeremony string `xor:"occasion" required:"" placeholder:"NAME" help:"The name of the ceremony at which the authority is founded."`
	ForNonce    string `xor:"occasion" required:"" placeholder:"NONCE" help:"What an administrator drew for your appointment (valise officer officers nonce)."`

	Card                 string `default:"piv:" placeholder:"URI" help:"The card: piv:, piv:?serial=NUMBER."`
	UseKey               bool   `help:"Use the key that is in slot 9c already."`
	Algorithm            string `enum:"p384,p256" default:"p384" help:"Kind of key to make: p384 or p256."`
	PINFile              string `name:"pin-file" type:"path" placeholder:"FILE" help:"Read the PIN from a file that only you can read."`
	ManagementKeyFile    string `type:"path" placeholder:"FILE" help:"The card's management key in hexadecimal, which making keys needs."`
	DefaultManagementKey bool   `help:"The card still has the management key that it was delivered with."`
}

// Run makes the key, has it sign for this occasion, and writes the file.
func (cmd *OfficerApplyCmd) Run(ctx context.Context, e *env) error {
	a, err := address(cmd.Address)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(cmd.File); err == nil {
		return &hintError{text: cmd.File + " exists", hint: "name a new file"}
	}
	occasion := ceremony.Founding(cmd.ForCeremony)
	if cmd.ForNonce != "" {
		occasion = ceremony.Appointment(cmd.ForNonce)
	}
	token, err := keys.OpenToken(ctx, cmd.Card, askOnce(cmd.PINFile))
	if err != nil {
		return err
	}
	defer token.Close()
	info := token.Info()
	e.say("card: %s, serial %s", info.Label, info.Serial)
	key, err := cmd.key(ctx, e, token)
	if err != nil {
		return err
	}
	defer key.Close()
	application, err := cmd.sign(ctx, occasion, a, key)
	if err != nil {
		return err
	}
	data, err := application.Marshal()
	if err != nil {
		return err
	}
	if err := replaceFile(cmd.File, data, 0o644); err != nil {
		return err
	}
	id, err := identity.DeviceIDOf(key.Public())
	if err != nil {
		return err
	}
	if e.json {
		return e.print(map[string]any{"address": a, "role": cmd.Role, "key": id, "serial": info.Serial, "file": cmd.File})
	}
	e.say("application of %s as %s, for the %s: %s", a, cmd.Role, occasion, cmd.File)
	e.say("key, to read out to whoever appoints you: %s", id)
	return nil
}

// key finds the key in 9c, or makes it. Nothing is overwritten.
func (cmd *OfficerApplyCmd) key(ctx context.Context, e *env, token hsm.Token) (hsm.Key, error) {
	k, err := token.Key(ctx, officerSlot)
	switch {
	case err == nil && cmd.UseKey:
		e.say("key: the one in %s", officerSlot)
		return k, nil
	case err == nil:
		return nil, errors.Join(&hintError{
			text: "there is a key in slot " + officerSlot + " already",
			hint: "to apply with it: --use-key; nothing is overwritten",
		}, k.Close())
	case !errors.Is(err, hsm.ErrNoKey):
		return nil, err
	case cmd.UseKey:
		return nil, &hintError{text: "there is no key in slot " + officerSlot, hint: "leave out --use-key to make one"}
	}
	o := hsm.GenerateOptions{Algorithm: hsm.P384, Name: "valise officer", TouchOffered: true}
	if cmd.Algorithm == "p256" {
		o.Algorithm = hsm.P256
	}
	management := EnrollCmd{ManagementKeyFile: cmd.ManagementKeyFile, DefaultManagementKey: cmd.DefaultManagementKey}
	if o.ManagementKey, err = management.managementKey(token.Info().Kind); err != nil {
		return nil, &hintError{
			text: err.Error(),
			hint: "give it with --management-key-file, or say --default-management-key if it was never changed",
		}
	}
	e.say("key: making one in %s (%s) that asks for the PIN every time; it can never leave the card", officerSlot, o.Algorithm)
	return token.Generate(ctx, officerSlot, o)
}

func (cmd *OfficerApplyCmd) sign(ctx context.Context, o ceremony.Occasion, a identity.Address, key hsm.Key) (*ceremony.Application, error) {
	evidence, err := key.Evidence(ctx)
	if err != nil {
		return nil, fmt.Errorf("what the card says of the key: %w", err)
	}
	return ceremony.Apply(o, a, identity.Role(cmd.Role), key, attest.Evidence{Format: evidence.Format, Chain: evidence.Chain})
}
