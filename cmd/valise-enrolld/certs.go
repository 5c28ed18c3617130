// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"text/tabwriter"
	"time"

	"valise/attest"
	"valise/identity"
	"valise/internal/store/authority"
)

type gatewayCmd struct {
	common
	CSR  string   `name:"csr" required:"" type:"existingfile" placeholder:"FILE" help:"The gateway's certificate signing request, PEM or DER."`
	Name []string `required:"" placeholder:"NAME" help:"DNS names or IP addresses of the gateway, separated by commas."`

	Evidence     string `type:"existingfile" placeholder:"FILE" help:"The HSM's statement about the key, as Google Cloud HSM hands it out."`
	Certificates string `type:"existingfile" placeholder:"FILE" help:"The certificates that came with --evidence, PEM."`
}

// maxCSRFile bounds the file; a CSR has below 1 KiB.
const maxCSRFile = 64 << 10

// Run issues with tier "hardware" on an HSM's evidence. Without, the tier is
// "witnessed": whoever runs it has seen that the gateway's key is in its token.
func (cmd *gatewayCmd) Run(ctx context.Context) (err error) {
	csr, err := readCSR(cmd.CSR)
	if err != nil {
		return err
	}
	evidence, err := cmd.evidence()
	if err != nil {
		return err
	}
	o, err := openOffice(ctx, cmd.Config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	tier := identity.TierWitnessed
	if evidence != nil {
		tier = identity.TierHardware
	}
	attrs := []slog.Attr{slog.Any("names", cmd.Name), slog.String("tier", string(tier))}
	if err := o.audit.Event(ctx, "issuing", attrs...); err != nil {
		return err
	}
	i, err := o.ca.IssueGatewayOn(ctx, csr, cmd.Name, evidence)
	if err != nil {
		return err
	}
	attrs = append(attrs, slog.String("serial", hex.EncodeToString(i.Serial)), slog.Int64("leaf", i.Leaf))
	if err := o.audit.Event(ctx, "certificate issued", attrs...); err != nil {
		return err
	}
	_, err = os.Stdout.Write(encodePEM(append([][]byte{i.Certificate}, o.ca.Chain()...)...))
	return err
}

// evidence reads the HSM's files; nil if there are none.
func (cmd *gatewayCmd) evidence() (*attest.Evidence, error) {
	if (cmd.Evidence == "") != (cmd.Certificates == "") {
		return nil, errors.New("--evidence and --certificates go together: the HSM's statement and the certificates that came with it")
	}
	if cmd.Evidence == "" {
		return nil, nil
	}
	var files [2][]byte
	for i, path := range []string{cmd.Evidence, cmd.Certificates} {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if info.Size() > attest.MaxFileSize {
			return nil, fmt.Errorf("%s is larger than %d bytes", path, attest.MaxFileSize)
		}
		if files[i], err = os.ReadFile(path); err != nil {
			return nil, err
		}
	}
	certs, err := attest.ParseFile(files[1])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cmd.Certificates, err)
	}
	return &attest.Evidence{Format: attest.FormatMarvell, Chain: append([][]byte{files[0]}, certs...)}, nil
}

func readCSR(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxCSRFile {
		return nil, fmt.Errorf("%s is too large for a CSR", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(data); block != nil {
		if block.Type != "CERTIFICATE REQUEST" {
			return nil, fmt.Errorf("%s holds a %s, want a CERTIFICATE REQUEST", path, block.Type)
		}
		return block.Bytes, nil
	}
	return data, nil
}

type rootCmd struct{ common }

func (cmd *rootCmd) Run(context.Context) error {
	cfg, err := loadConfig(cmd.Config)
	if err != nil {
		return err
	}
	chain, err := readChain(cfg.path(chainFile))
	if err != nil {
		return err
	}
	if _, err := os.Stdout.Write(encodePEM(chain[1].Raw)); err != nil {
		return err
	}
	_, err = fmt.Fprintf(os.Stderr, "sha256 %s\n", identity.Fingerprint(chain[1]))
	return err
}

type listCmd struct{ common }

func (cmd *listCmd) Run(ctx context.Context) (err error) {
	o, err := openDesk(ctx, cmd.Config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	var all []authority.Issuance
	err = o.store.View(ctx, func(tx *authority.Tx) (err error) { all, err = tx.Issuances(); return err })
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "LEAF\tKIND\tSUBJECT\tSERIAL\tISSUED\tUNTIL\tSTATE")
	for _, i := range all {
		state := "issued"
		if !i.Done() {
			state = "not signed yet"
		} else if time.Now().After(i.NotAfter) {
			state = "expired"
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%x\t%s\t%s\t%s\n", i.Leaf, i.Kind, i.Subject, i.Serial,
			i.Created.Format(time.RFC3339), i.NotAfter.Format(time.RFC3339), state)
	}
	return w.Flush()
}
