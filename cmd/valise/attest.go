// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/BurntSushi/toml"

	"valise/attest"
)

// AttestCmd is `valise attest`: evidence, looked at without any authority.
type AttestCmd struct {
	Show AttestShowCmd `cmd:"" help:"Print what evidence claims, its chain and its appraisal. Exit status: 0 accepted, 1 refused, 2 unreadable."`
}

// AttestShowCmd is `valise attest show FILE…`. The files together hold the
// evidence of one card: certificates in PEM, DER or a certs-only PKCS #7; or an
// HSM's statement and the certificates that came with it; or one attestation
// object, as it was sent to an authority, which is how a TPM's evidence is kept.
//
// Freshness cannot be shown: a stored attestation answers no challenge. What
// is printed as accepted could be enrolled if its card were at hand.
type AttestShowCmd struct {
	Files  []string `arg:"" name:"file" help:"Certificates of one card (PEM, DER or certs-only PKCS #7), an HSM's statement with its certificates, or an attestation object."`
	Roots  string   `placeholder:"FILE" help:"Use the roots and intermediates in this PEM file instead of the built-in ones."`
	Policy string   `placeholder:"FILE" help:"Appraise with the policy in this TOML file instead of the default one."`
	JSON   bool     `help:"Print one JSON object."`
}

// Exit statuses of `valise attest show`.
const (
	exitRefused    = 1
	exitUnreadable = 2
)

// A statusError carries the exit status that main ends with.
type statusError struct {
	Status int
	Err    error
}

func (e *statusError) Error() string { return e.Err.Error() }
func (e *statusError) Unwrap() error { return e.Err }

// ExitCode is what kong and main ask for.
func (e *statusError) ExitCode() int { return e.Status }

// showing is what the command found out; it is printed as text or JSON.
type showing struct {
	Verdict      attest.Verdict `json:"verdict"`
	Reason       attest.Reason  `json:"reason,omitempty"`
	Error        string         `json:"error,omitempty"`
	Claims       *attest.Claims `json:"claims,omitempty"`
	Rules        []attest.Rule  `json:"rules,omitempty"`
	PolicyHash   string         `json:"policy_sha256,omitempty"`
	EvidenceHash string         `json:"evidence_sha256,omitempty"`
}

// Run prints to out and returns nil when the evidence is accepted.
func (c *AttestShowCmd) Run(out io.Writer) error {
	endorsements, err := c.endorsements()
	if err != nil {
		return &statusError{exitUnreadable, err}
	}
	policy, err := c.policy()
	if err != nil {
		return &statusError{exitUnreadable, err}
	}
	evidence, err := readEvidence(c.Files)
	if err != nil {
		if attest.ReasonOf(err) != attest.ReasonUnknownFormat {
			return &statusError{exitUnreadable, err}
		}
		return c.report(out, &showing{Verdict: attest.Refused, Reason: attest.ReasonOf(err), Error: err.Error()})
	}
	return c.report(out, appraise(evidence, endorsements, policy))
}

func appraise(evidence attest.Evidence, endorsements *attest.Endorsements, policy *attest.AppraisalPolicy) *showing {
	hash := evidence.Hash()
	s := &showing{EvidenceHash: hex.EncodeToString(hash[:])}
	claims, err := attest.Verify(evidence, nil, endorsements, time.Now())
	if err != nil {
		s.Verdict, s.Reason, s.Error = attest.Refused, attest.ReasonOf(err), err.Error()
		return s
	}
	result := policy.Appraise(claims, attest.Input{Archived: true, Now: time.Now()})
	s.Verdict, s.Reason, s.Rules, s.Claims = result.Verdict, result.Reason(), result.Reasons, claims
	s.PolicyHash = hex.EncodeToString(result.PolicyHash[:])
	return s
}

// endorsements reads --roots, or takes the built-in ones.
func (c *AttestShowCmd) endorsements() (*attest.Endorsements, error) {
	if c.Roots == "" {
		return attest.BuiltIn(), nil
	}
	data, err := readBounded(c.Roots)
	if err != nil {
		return nil, err
	}
	endorsements, err := attest.Configured(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Roots, err)
	}
	return endorsements, nil
}

// policy reads --policy. The default one for showing takes every slot that
// Valise uses, and one key alone, since a file often holds just that.
func (c *AttestShowCmd) policy() (*attest.AppraisalPolicy, error) {
	policy := new(attest.AppraisalPolicy)
	if c.Policy == "" {
		policy.KeyManagement, policy.TPM = attest.KeyManagementOptional, true
		policy.Slots = append([]string{"9a", "9c", "9d"}, attest.RetiredSlots()...)
		return policy, nil
	}
	data, err := readBounded(c.Policy)
	if err != nil {
		return nil, err
	}
	meta, err := toml.Decode(string(data), policy)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Policy, err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return nil, fmt.Errorf("%s: unknown key %q", c.Policy, unknown[0].String())
	}
	if err := policy.Check(); err != nil {
		return nil, fmt.Errorf("%s: %w", c.Policy, err)
	}
	return policy, nil
}

func readEvidence(files []string) (attest.Evidence, error) {
	var certs [][]byte
	var statement []byte
	for _, name := range files {
		data, err := readBounded(name)
		if err != nil {
			return attest.Evidence{}, err
		}
		if o, err := attest.ParseAttestationObject(data); err == nil && len(files) == 1 {
			return o.Evidence(), nil
		}
		if statement == nil && attest.IsHSMStatement(data) {
			statement = data
			continue
		}
		more, err := attest.ParseFile(data)
		if err != nil {
			return attest.Evidence{}, fmt.Errorf("%s: %w", name, err)
		}
		certs = append(certs, more...)
	}
	if statement != nil {
		return attest.Evidence{Format: attest.FormatMarvell, Chain: append([][]byte{statement}, certs...)}, nil
	}
	return attest.Assemble(certs)
}

// readBounded reads a file of at most attest.MaxFileSize bytes.
func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, attest.MaxFileSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > attest.MaxFileSize {
		return nil, fmt.Errorf("%s: larger than %d bytes", name, attest.MaxFileSize)
	}
	return data, nil
}

func (c *AttestShowCmd) report(out io.Writer, s *showing) error {
	var text bytes.Buffer
	if c.JSON {
		line, err := jsonLine(s)
		if err != nil {
			return err
		}
		if err := json.Indent(&text, line, "", "  "); err != nil {
			return err
		}
	} else {
		s.print(&text)
	}
	if _, err := out.Write(text.Bytes()); err != nil {
		return err
	}
	if s.Verdict == attest.Accepted {
		return nil
	}
	if s.Error != "" {
		return &statusError{exitRefused, errors.New(s.Error)}
	}
	return &statusError{exitRefused, fmt.Errorf("evidence refused (%s)", s.Reason)}
}

func (s *showing) print(w io.Writer) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-15s %s\n", name, printable(fmt.Sprintf(format, args...)))
	}
	if s.EvidenceHash != "" {
		line("evidence", "SHA-256 %s", s.EvidenceHash)
	}
	if s.Claims != nil {
		printKey(line, "key", &s.Claims.Key)
		if s.Claims.KeyManagement != nil {
			printKey(line, "key management", s.Claims.KeyManagement)
			line("same card", "%v", s.Claims.SameCard)
		}
		if s.Claims.Format == attest.FormatTPM {
			line("activated", "%v: only the authority that sent the secret can tell that this TPM made it", s.Claims.Activated)
		}
		line("fresh", "%v: stored evidence answers no challenge", s.Claims.Fresh)
		line("roots", "%s", s.Claims.Endorsements)
		line("policy", "SHA-256 %s", s.PolicyHash)
	}
	for _, rule := range s.Rules {
		outcome := "ok"
		if !rule.Passed {
			outcome = "REFUSED " + string(rule.Reason)
		}
		line("  "+outcome, "%s: %s", rule.Name, rule.Detail)
	}
	if s.Error != "" {
		line("error", "%s", s.Error)
	}
	if s.Reason != "" {
		line("verdict", "%s: %s", s.Verdict, s.Reason)
	} else {
		line("verdict", "%s", s.Verdict)
	}
}

func printKey(line func(name, format string, args ...any), title string, k *attest.KeyClaims) {
	if k.Hardware.Said {
		printHardwareKey(line, title, k)
		return
	}
	line(title, "slot %v, %s, generated in the hardware: %v", k.Slot, k.Algorithm, k.Generated)
	line("  card", "serial number %v, firmware %v, %v, FIPS: %v, CSPN: %v", k.Serial, k.Firmware, k.FormFactor, k.FIPS, k.CSPN)
	line("  asks for", "PIN %v, touch %v", k.PINPolicy, k.TouchPolicy)
	for i, link := range k.Path {
		line("  "+roleInPath(i, len(k.Path)), "%s", link.Subject)
		line("", "SHA-256 %s", link.Fingerprint)
	}
}

// printHardwareKey prints what TPMs and HSMs say.
func printHardwareKey(line func(name, format string, args ...any), title string, k *attest.KeyClaims) {
	line(title, "%s, generated in the hardware: %v", k.Algorithm, k.Generated)
	line("  hardware", "%v, FIPS: %v", k.Hardware, k.FIPS)
	line("  can leave it", "%v, and never could: %v", k.Extractable, k.NeverExtractable)
	if k.Sensitive != attest.Unstated || k.AlwaysSensitive != attest.Unstated {
		line("  is sensitive", "%v, and always was: %v", k.Sensitive, k.AlwaysSensitive)
	}
	for _, path := range [][]attest.Link{k.Path, k.OwnerPath} {
		for i, link := range path {
			line(map[bool]string{true: "  certified", false: "  by"}[i == 0], "%s", link.Subject)
			line("", "SHA-256 %s", link.Fingerprint)
		}
	}
}

func roleInPath(i, length int) string {
	switch i {
	case 0:
		return "slot"
	case 1:
		return "card"
	case length - 1:
		return "root"
	}
	return "issuer"
}

// printable keeps names out of strangers' certificates from steering the
// terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}
