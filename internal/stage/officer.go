// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// An Officer is a security officer, an administrator or an auditor with a card of
// their own, whose slot 9c signs.
type Officer struct {
	Name    string
	Address string
	Role    string
	Home    string
	Card    *Card

	stage *Stage
}

// NewOfficer prepares a person; NewMinistry makes them an officer.
func (s *Stage) NewOfficer(name, address, role string, card *Card) *Officer {
	return &Officer{Name: name, Address: address, Role: role, Home: filepath.Join(s.Dir, "officer-"+name), Card: card, stage: s}
}

// Run runs `valise officer` as this person.
func (o *Officer) Run(ctx context.Context, args ...string) (string, error) {
	env := append([]string{"XDG_RUNTIME_DIR=" + o.Home}, o.Card.Reader.Env...)
	return Output(ctx, env, o.stage.command("valise"), append([]string{"--home", o.Home, "officer"}, args...)...)
}

// Desk is Run for a command that opens the desk: the PIN is in a file.
func (o *Officer) Desk(ctx context.Context, args ...string) (string, error) {
	return o.Run(ctx, append(args, "--pin-file", o.stage.pinFile())...)
}

// Sign is Desk for a command that signs something: nobody is asked whether.
func (o *Officer) Sign(ctx context.Context, args ...string) (string, error) {
	return o.Desk(ctx, append(args, "--yes")...)
}

// SignBundle signs a policy bundle, a folder or another officer's file, and hands that in.
func (o *Officer) SignBundle(ctx context.Context, bundle, out string) (string, error) {
	env := append([]string{"XDG_RUNTIME_DIR=" + o.Home}, o.Card.Reader.Env...)
	return Output(ctx, env, o.stage.command("valise"), "--home", o.Home, "policy", "sign", bundle, "--out", out, "--pin-file", o.stage.pinFile(), "--yes")
}

func (o *Officer) apply(ctx context.Context, ceremony, file string) error {
	_, err := o.Run(ctx, "apply", o.Address, file, "--role", o.Role, "--for-ceremony", ceremony, "--default-management-key",
		"--card", fmt.Sprintf("piv:?serial=%d", o.Card.Serial), "--pin-file", o.stage.pinFile())
	return err
}

func (o *Officer) setup(ctx context.Context, a *Authority) error {
	_, err := o.Run(ctx, "setup", "--url", a.URL, "--root", a.Root, "--card", fmt.Sprintf("piv:9c?serial=%d", o.Card.Serial),
		"--certificate", filepath.Join(a.data(), "officers", o.Address+".pem"))
	return err
}

// A Request is a device that waits for approvals, as `valise officer requests` lists it.
type Request struct {
	ID      string
	Address string
	Device  string
	State   string
}

// Requests lists what waits for approvals.
func (o *Officer) Requests(ctx context.Context) (all []Request, err error) {
	out, err := o.Desk(ctx, "requests", "--json")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(out) {
		var r Request
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		all = append(all, r)
	}
	return all, nil
}

// Waiting waits until somebody with this address waits for approvals.
func (o *Officer) Waiting(ctx context.Context, address string) (Request, error) {
	return Poll(ctx, "a request of "+address, func() (Request, bool, error) {
		all, err := o.Requests(ctx)
		for _, r := range all {
			if r.Address == address {
				return r, true, nil
			}
		}
		return Request{}, false, err
	})
}

// Agree signs everything that another officer has proposed.
func (o *Officer) Agree(ctx context.Context) error {
	out, err := o.Desk(ctx, "proposals", "--json")
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		var p struct{ Proposal struct{ Digest string } }
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		if _, err := o.Sign(ctx, "approve", p.Proposal.Digest); err != nil {
			return err
		}
	}
	return nil
}

// NewMinistry founds an authority in a ceremony: the officers apply with their cards,
// the root key is made in a token of its own, which the daemon never opens, and
// two officers sign the roster. Evidence under the attestation roots (PEM files) is
// accepted besides the vendors'.
func (s *Stage) NewMinistry(ctx context.Context, name, domain string, roster []string, officers []*Officer, attestationRoots ...string) (*Authority, error) {
	a, port, err := s.prepare(ctx, name, domain)
	if err != nil {
		return nil, err
	}
	a.Officers = officers
	if a.RootToken, err = s.NewTokenBeside(ctx, a.Token, name+"-root"); err != nil {
		return nil, err
	}
	text := a.toml(port, nil)
	if a.RootToken != a.Token {
		text += fmt.Sprintf("\n[root-token]\nuri = \"pkcs11:token=%s?module-path=%s\"\npin-source = %q\n",
			a.RootToken.Label, a.RootToken.Module, s.pinFile())
	}
	if s.cfg.TokenServers {
		// The HTTPS key is apart, so that the desk stays open while the HSM is away.
		tls, err := s.newTokenIn(ctx, a.Token, name+"-tls")
		if err != nil {
			return nil, err
		}
		text += fmt.Sprintf("\n[tls-token]\nuri = \"pkcs11:token=%s?module-path=%s\"\npin-source = %q\n", tls.Label, tls.Module, s.pinFile())
	}
	if err := os.WriteFile(a.config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	dir := filepath.Dir(a.config)
	ceremony := "Founding of " + domain
	for _, o := range officers {
		if err := o.apply(ctx, ceremony, filepath.Join(dir, o.Name+".json")); err != nil {
			return nil, err
		}
	}
	plan := filepath.Join(dir, "ceremony.toml")
	if err := os.WriteFile(plan, []byte(a.plan(ceremony, attestationRoots)), 0o600); err != nil {
		return nil, err
	}
	if _, err := a.run(ctx, "init", "--ceremony", plan); err != nil {
		return nil, err
	}
	if err := a.Start(ctx); err != nil {
		return nil, err
	}
	for _, o := range officers {
		if err := o.setup(ctx, a); err != nil {
			return nil, err
		}
	}
	return a, a.signRoster(ctx, filepath.Join(dir, "people.csv"), roster)
}

func (a *Authority) plan(ceremony string, roots []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "name = %q\ndate = %q\ndomain = %q\n\n[tokens]\nroot = %q\nissuing = %q\n",
		ceremony, time.Now().Format(time.DateOnly), a.Domain, a.RootToken.Label, a.Token.Label)
	for _, o := range a.Officers {
		fmt.Fprintf(&b, "\n[[officers]]\naddress = %q\nrole = %q\napplication = %q\n", o.Address, o.Role, o.Name+".json")
	}
	fmt.Fprintf(&b, "\n[[profiles]]\nname = \"device\"\n\n[endorsements]\nroots = [%s]\n", quoted(roots))
	// Virtual cards say that they have firmware 5.4.3; below 5.7.0 only configured
	// roots are accepted, never a vendor's.
	fmt.Fprintf(&b, "\n[appraisal]\nmin_firmware = \"5.4.3\"\n\n[officer-appraisal]\nmin_firmware = \"5.4.3\"\n")
	return b.String()
}

// signRoster has two officers sign the people on the roster.
func (a *Authority) signRoster(ctx context.Context, file string, people []string) error {
	lines := append([]string{"address,name,unit,clearance"}, people...)
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	for _, o := range a.deciders() {
		if _, err := o.Sign(ctx, "roster", "import", file); err != nil {
			return err
		}
	}
	return nil
}

// deciders are two of role "officer".
func (a *Authority) deciders() []*Officer {
	var two []*Officer
	for _, o := range a.Officers {
		if o.Role == "officer" && len(two) < 2 {
			two = append(two, o)
		}
	}
	return two
}

// Approve has two officers approve what a person waits for; each signs with their
// own card.
func (a *Authority) Approve(ctx context.Context, address string) error {
	for _, o := range a.deciders() {
		r, err := o.Waiting(ctx, address)
		if err != nil {
			return err
		}
		if _, err := o.Sign(ctx, "approve", r.ID); err != nil {
			return err
		}
	}
	return nil
}
