// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"valise/identity"
	"valise/internal/jws"
	"valise/ledger"
	"valise/record"
)

// AuditCmd is `valise audit`: an authority's public record, checked by somebody
// who trusts nobody but the root.
type AuditCmd struct {
	Verify     AuditVerifyCmd     `cmd:"" help:"Check a copy of an authority's record. Exit status: 0 nothing is wrong, 1 something is, 2 it cannot be read."`
	Checkpoint AuditCheckpointCmd `cmd:"" help:"Print the newest checkpoint that this device was shown, for audit verify --checkpoint."`
}

// AuditCheckpointCmd is `valise audit checkpoint`.
type AuditCheckpointCmd struct {
	Evidence bool `help:"Print the checkpoint that contradicts it instead, if this device was shown one."`
}

// Run asks the agent.
func (c *AuditCheckpointCmd) Run(ctx context.Context, e *env, out io.Writer) error {
	agent, err := e.agent(ctx)
	if err != nil {
		return err
	}
	var st agentStatus
	if err := agent.Call(ctx, "/status", nil, &st); err != nil {
		return err
	}
	if !st.Unlocked {
		return errLocked(st.Why)
	}
	text := ""
	if r := st.Engine.Record; r != nil {
		text = r.Checkpoint
		if c.Evidence {
			text = r.Evidence
		}
	}
	if text == "" {
		return errors.New("this device was shown no such checkpoint")
	}
	_, err = io.WriteString(out, text)
	return err
}

// AuditVerifyCmd is `valise audit verify DIR --root SHA256|FILE`. It prints a
// line for each finding, "leaf N: CODE: what is wrong" or "copy: CODE: …", and
// last "audit: ok: …" or "audit: N findings". The codes are those of package
// record, and of auditcopy.go.
type AuditVerifyCmd struct {
	output
	Dir          string   `arg:"" help:"The copy: a folder with checkpoint, entries, payloads and tiles."`
	Root         string   `required:"" placeholder:"SHA256|FILE" help:"The root that you pin: its certificate's SHA-256 in hex, or its certificate."`
	Checkpoint   []string `sep:"none" placeholder:"FILE" help:"A checkpoint that somebody else kept; give it again for more."`
	Certificates string   `placeholder:"DIR" help:"Certificates that were seen in the world: each must stand in the record."`
}

// Bounds on what is read beside the copy.
const (
	maxCertificateFile = 1 << 20 // some hundred certificates in PEM
	maxCertificates    = 100_000 // files in one folder
)

// Run prints to out and returns nil when nothing is wrong.
func (c *AuditVerifyCmd) Run(ctx context.Context, e *env, out io.Writer) error {
	a, err := c.open()
	if err != nil {
		return &statusError{exitUnreadable, err}
	}
	if err := a.run(ctx); err != nil {
		return &statusError{exitUnreadable, err}
	}
	if err := a.report(out, e.json); err != nil {
		return err
	}
	if n := len(a.findings); n > 0 {
		return &statusError{exitRefused, fmt.Errorf("the record is not in order: %d findings", n)}
	}
	return nil
}

// open reads all that is given, but for the record itself.
func (c *AuditVerifyCmd) open() (*audit, error) {
	copied, err := ledger.OpenCopy(c.Dir)
	if err != nil {
		return nil, err
	}
	a := newAudit(copied)
	if a.root, err = c.root(copied); err != nil {
		return nil, err
	}
	for _, name := range c.Checkpoint {
		text, err := readUpTo(name, ledger.MaxCheckpoint)
		if err != nil {
			return nil, err
		}
		a.mark(name, text)
	}
	if c.Certificates == "" {
		return a, nil
	}
	files, err := os.ReadDir(c.Certificates)
	if err != nil {
		return nil, err
	}
	if len(files) > maxCertificates {
		return nil, fmt.Errorf("%s: %d files, at most %d are read", c.Certificates, len(files), maxCertificates)
	}
	for _, f := range files {
		if f.IsDir() {
			continue
		}
		if err := a.certificates(filepath.Join(c.Certificates, f.Name())); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// root finds the certificate that the auditor pins. Under its hash alone it is
// looked for in the record, where every document of the root has it.
func (c *AuditVerifyCmd) root(copied *ledger.Copy) (*x509.Certificate, error) {
	data, err := readUpTo(c.Root, identity.MaxCertificateSize*2)
	if err == nil {
		list, err := parseCertificates(c.Root, data)
		if err == nil && len(list) != 1 {
			err = fmt.Errorf("%s: %d certificates, the root is one", c.Root, len(list))
		}
		if err != nil {
			return nil, err
		}
		return list[0], nil
	}
	var pin [sha256.Size]byte
	if len(c.Root) != hex.EncodedLen(len(pin)) {
		return nil, err
	}
	if _, notHex := hex.Decode(pin[:], []byte(strings.ToLower(c.Root))); notHex != nil {
		return nil, err
	}
	for item, err := range copied.Items() {
		if err != nil {
			return nil, err
		}
		if item.Entry.Kind != ledger.KindFounding && item.Entry.Kind != ledger.KindManifest {
			continue
		}
		m, err := jws.Parse(item.Payload, ledger.MaxPayload)
		if err == nil && len(m.Header.X5C) == 1 && sha256.Sum256(m.Header.X5C[0]) == pin {
			return x509.ParseCertificate(m.Header.X5C[0])
		}
	}
	return nil, &hintError{"no document in this record is of the root " + c.Root, "check the hash, or give the root's certificate as a file", ""}
}

// parseCertificates reads PEM or one certificate in DER.
func parseCertificates(name string, data []byte) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	rest := data
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%s: a %.40q where a certificate should be", name, block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list = append(list, cert)
	}
	if len(list) > 0 {
		if len(bytes.TrimSpace(rest)) > 0 {
			return nil, fmt.Errorf("%s: something that is not PEM after %d certificates", name, len(list))
		}
		return list, nil
	}
	cert, err := x509.ParseCertificate(data)
	if err != nil {
		return nil, fmt.Errorf("%s: neither PEM nor DER of a certificate: %w", name, err)
	}
	return []*x509.Certificate{cert}, nil
}

// certificates reads the certificates of one file.
func (a *audit) certificates(name string) error {
	data, err := readUpTo(name, maxCertificateFile)
	if err != nil {
		return err
	}
	list, err := parseCertificates(name, data)
	for _, cert := range list {
		a.outside = append(a.outside, outside{filepath.Base(name), cert})
	}
	return err
}

// report prints the findings, by leaf, and the last line.
func (a *audit) report(out io.Writer, asJSON bool) error {
	slices.SortStableFunc(a.findings, func(x, y record.Finding) int { return int(x.Index - y.Index) })
	var err error
	line := func(format string, args ...any) {
		_, wrote := fmt.Fprintln(out, printable(fmt.Sprintf(format, args...)))
		err = errors.Join(err, wrote)
	}
	for _, f := range a.findings {
		switch {
		case asJSON:
			data, bad := jsonLine(f)
			_, wrote := out.Write(data)
			err = errors.Join(err, bad, wrote)
		case f.Index < 0:
			line("copy: %s: %s", f.Reason, f.Detail)
		default:
			line("leaf %d: %s: %s", f.Index, f.Reason, f.Detail)
		}
	}
	if asJSON {
		data, bad := jsonLine(map[string]any{
			"ok": len(a.findings) == 0, "leaves": a.tree.Size(), "certificates": a.issued, "statements": a.statements,
			"findings": len(a.findings), "lone": a.lone,
		})
		_, wrote := out.Write(data)
		return errors.Join(err, bad, wrote)
	}
	if a.lone {
		line("audit: note: the authority was founded without officers; nothing in this record needed an approval")
	}
	if n := len(a.findings); n > 0 {
		line("audit: %d findings", n)
		return err
	}
	line("audit: ok: %d leaves, %d certificates, %d statements, 0 findings", a.tree.Size(), a.issued, a.statements)
	return err
}
