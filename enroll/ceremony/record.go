// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"valise/identity"
)

// A Record is what happened at a ceremony, for those who were there to sign on
// paper. It names everything by its SHA-256, so that the paper holds against
// whoever changes the files later.
type Record struct {
	Plan     *Plan
	Time     time.Time
	Root     [32]byte // of the certificate, DER
	Issuing  [32]byte
	Founding [32]byte // of the file founding.jws
	Manifest [32]byte // of the file manifest.jws

	Tokens   []RecordToken
	Officers []RecordOfficer

	DevicePolicy, OfficerPolicy [32]byte
	Endorsements                string // their version

	LedgerSize int64
	LedgerRoot [32]byte
}

// A RecordToken is a token with the keys that were made in it.
type RecordToken struct {
	Label, Serial, Model, Firmware string
	Keys                           []RecordKey
}

// A RecordKey is a key of the authority.
type RecordKey struct {
	Use       string // "root", "issuing", …
	Label     string
	Algorithm string
	SPKI      [32]byte
}

// A RecordOfficer is an officer with the certificate that was issued.
type RecordOfficer struct {
	Address     identity.Address
	Role        identity.Role
	Key         identity.DeviceID
	Certificate [32]byte
	Evidence    [32]byte // attest.Evidence.Hash
	Application [32]byte // of the file
	Until       time.Time
}

const (
	ruler       = "----------------------------------------------------------------------\n"
	recordClose = "sha256 of everything above this line: "
)

// Text writes the record. Its last line holds the hash of all lines before.
func (r *Record) Text() []byte {
	var b bytes.Buffer
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-24s"+format+"\n", append([]any{name}, args...)...)
	}
	fmt.Fprintf(&b, "RECORD OF A CEREMONY\n%s\n%s", r.Plan.Name, ruler)
	line("domain", "%s", r.Plan.Domain)
	line("date of the plan", "%s", r.Plan.Date)
	line("founded at", "%s", r.Time.UTC().Format(time.RFC3339))
	line("sha256 of the plan", "%x", r.Plan.Hash)
	line("sha256 of the root", "%x", r.Root)
	line("  issuing certificate", "%x", r.Issuing)
	line("  founding.jws", "%x", r.Founding)
	line("  manifest.jws", "%x", r.Manifest)
	line("ledger", "%d leaves, root hash %x", r.LedgerSize, r.LedgerRoot)
	for _, t := range r.Tokens {
		fmt.Fprintf(&b, "\nToken %q, serial number %s (%s, firmware %s)\n", t.Label, t.Serial, t.Model, t.Firmware)
		for _, k := range t.Keys {
			line("  "+k.Use+" key", "%q, %s, %x", k.Label, k.Algorithm, k.SPKI)
		}
	}
	for _, o := range r.Officers {
		fmt.Fprintf(&b, "\n%s, %s, until %s\n", o.Address, o.Role, o.Until.UTC().Format(time.DateOnly))
		line("  key in slot 9c", "%s", o.Key)
		line("  certificate", "%x", o.Certificate)
		line("  evidence", "%x", o.Evidence)
		line("  application", "%x", o.Application)
	}
	b.WriteString("\nRules\n")
	for _, p := range r.Plan.Profiles {
		tiers := make([]string, len(p.Tiers))
		for i, t := range p.Tiers {
			tiers[i] = string(t)
		}
		line("  profile "+p.Name, "version %d: %d approvals, valid %v, grace %v, %s",
			p.Version, p.Approvals, p.Validity, p.Grace, strings.Join(tiers, ", "))
	}
	line("  appraisal, devices", "%x", r.DevicePolicy)
	line("  appraisal, officers", "%x", r.OfficerPolicy)
	line("  endorsements", "%s", r.Endorsements)
	b.WriteString("\nI was present, and what stands above is what happened.\n\n")
	for _, o := range r.Officers {
		fmt.Fprintf(&b, "%s\n\n    ______________________________________________\n\n", o.Address)
	}
	b.WriteString("witness\n\n    ______________________________________________\n\n")
	sum := sha256.Sum256(b.Bytes())
	fmt.Fprintf(&b, "%s%x\n", recordClose, sum)
	return b.Bytes()
}

// CheckRecord tells whether a record's last line is the hash of the others, and
// returns that hash: the one to compare with the paper.
func CheckRecord(text []byte) (string, error) {
	at := bytes.LastIndex(text, []byte(recordClose))
	if at < 0 {
		return "", errors.New("ceremony: this is no record: it has no last line with a hash")
	}
	sum := sha256.Sum256(text[:at])
	want := hex.EncodeToString(sum[:])
	if string(text[at:]) != recordClose+want+"\n" {
		return "", errors.New("ceremony: the record was changed: its hash is another one")
	}
	return want, nil
}
