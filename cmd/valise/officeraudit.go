// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"iter"

	"valise/enroll/desk/call"
	"valise/identity"
	"valise/ledger"
	"valise/record"
	"valise/statement"
)

// OfficerAuditCmd is `valise officer audit`.
type OfficerAuditCmd struct {
	officerFlags
	From int64  `default:"0" help:"Begin at this leaf."`
	Copy string `type:"path" placeholder:"DIR" help:"Copy the whole record to a new folder, for: valise audit verify DIR."`
}

// Run reads the record. It shows what stands there and checks nothing: that is what
// valise audit verify is for, on a copy and from outside.
func (cmd *OfficerAuditCmd) Run(ctx context.Context, e *env) error {
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		if cmd.Copy != "" {
			return b.copyRecord(ctx, cmd.Copy)
		}
		for from := cmd.From; ; {
			page, err := b.desk.Items(ctx, from)
			if err != nil || len(page.Items) == 0 {
				return err
			}
			for i := range page.Items {
				item, err := parseItem(&page.Items[i], from)
				if err != nil {
					return err
				}
				if err := b.showItem(item); err != nil {
					return err
				}
				from++
			}
		}
	})
}

func parseItem(i *call.Item, want int64) (ledger.Item, error) {
	if i.Index != want {
		return ledger.Item{}, fmt.Errorf("the desk sends leaf %d in the place of leaf %d", i.Index, want)
	}
	entry, err := ledger.ParseEntry(i.Entry)
	if err != nil {
		return ledger.Item{}, fmt.Errorf("leaf %d: %w", i.Index, err)
	}
	if !entry.Records(i.Payload) {
		return ledger.Item{}, fmt.Errorf("leaf %d is not of the payload beside it", i.Index)
	}
	return ledger.Item{Index: i.Index, Entry: entry, Payload: i.Payload}, nil
}

// showItem tells a leaf in words; those of a statement are what its signer saw.
func (b *bureau) showItem(i ledger.Item) error {
	var words []string
	kind, by := i.Entry.Kind.String(), ""
	switch i.Entry.Kind {
	case ledger.KindStatement:
		if s, err := statement.Parse(i.Payload); err == nil {
			kind, words, by = string(s.Body.Kind()), s.Body.Words(), signerName(s.Chain[0])
		}
	case ledger.KindIssuance:
		words = certificateWords(i.Payload)
	}
	if b.json {
		return b.print(map[string]any{"leaf": i.Index, "time": i.Entry.Time, "kind": kind, "by": by, "words": words})
	}
	b.say("leaf %d, %s: %s %s", i.Index, moment(i.Entry.Time), kind, line(by))
	for _, text := range words {
		b.say("    %s", text)
	}
	return nil
}

// signerName is the address in a certificate that nobody verified here.
func signerName(der []byte) string {
	cert, err := x509.ParseCertificate(der)
	if err == nil {
		if o, err := identity.ReadOfficer(cert); err == nil {
			return "by " + o.Address.String()
		}
	}
	return "by somebody whose certificate cannot be read"
}

// certificateWords tells what a certificate says. Nobody verified it here.
func certificateWords(tbs []byte) []string {
	cert, err := record.ReadCertificate(tbs)
	if err != nil {
		return []string{"a certificate that cannot be read: " + err.Error()}
	}
	var words []string
	if o, err := identity.ReadOfficer(cert); err == nil {
		words = []string{"card of " + o.Address.String() + ", " + string(o.Role), "key: " + o.Key.String()}
	} else if d, err := identity.ReadDevice(cert); err == nil {
		words = []string{"device of " + d.Address.String(), "device: " + d.ID.String(), "tier: " + string(d.Tier)}
		if d.Clearance != nil {
			words = append(words, "clearance: "+d.Clearance.Text())
		}
	} else {
		words = []string{fmt.Sprintf("for %q %q %q", cert.Subject.String(), cert.DNSNames, cert.IPAddresses)}
	}
	return append(words, fmt.Sprintf("serial: %x", cert.SerialNumber), "valid from "+moment(cert.NotBefore)+" until "+moment(cert.NotAfter))
}

// copyRecord writes a copy as ledger.WriteCopy has it.
func (b *bureau) copyRecord(ctx context.Context, dir string) error {
	first, err := b.desk.Items(ctx, 0)
	if err != nil {
		return err
	}
	_, head, err := ledger.ParseCheckpoint([]byte(first.Checkpoint))
	if err != nil {
		return err
	}
	if err := ledger.WriteCopy(dir, []byte(first.Checkpoint), b.items(ctx, head.N)); err != nil {
		return err
	}
	return b.say("%d leaves copied; now run: valise audit verify %s --root %s", head.N, dir, b.Root)
}

// items are the first n leaves.
func (b *bureau) items(ctx context.Context, n int64) iter.Seq2[ledger.Item, error] {
	return func(yield func(ledger.Item, error) bool) {
		for from := int64(0); from < n; {
			page, err := b.desk.Items(ctx, from)
			if err == nil && len(page.Items) == 0 {
				err = fmt.Errorf("the desk has %d leaves, its checkpoint covers %d", from, n)
			}
			if err != nil {
				yield(ledger.Item{}, err)
				return
			}
			for i := range page.Items {
				if from == n {
					return
				}
				item, err := parseItem(&page.Items[i], from)
				if !yield(item, err) || err != nil {
					return
				}
				from++
			}
		}
	}
}
