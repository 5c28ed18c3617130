// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"valise/bench/daemons"
	"valise/hsm"
	"valise/internal/keys"
	"valise/internal/stage"
)

// The yardstick: step-ca as its authors publish it, pinned in stepca.mod, with its
// issuing key in the same token and its database on PostgreSQL.
const (
	stepModule  = "github.com/smallstep/certificates"
	stepVersion = "v0.30.2"
	stepModFile = "bench/enroll/stepca.mod"
)

// buildStepCA builds step-ca from the versions that stepca.mod pins.
func (b *bench) buildStepCA(ctx context.Context) error {
	out, err := stage.Output(ctx, nil, "go", "list", "-modfile="+stepModFile, "-m", "-f", "{{.Version}}", stepModule)
	if err != nil {
		return err
	}
	if out != stepVersion+"\n" {
		return fmt.Errorf("%s pins %s %q, want %s", stepModFile, stepModule, out, stepVersion)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-modfile="+stepModFile, "-o", filepath.Join(b.bin, "step-ca"), stepModule+"/cmd/step-ca")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1") // its PKCS#11 part needs it
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build step-ca: %w\n%s", err, text)
	}
	return nil
}

// newStepCA starts step-ca on a cluster of its own. The root is made here and thrown
// away: step-ca signs with the intermediate, in the token.
func (b *bench) newStepCA(ctx context.Context, name string) (*server, error) {
	s := &server{name: name, curve: elliptic.P256()} // with P-384 its "step" format fails
	dir := filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if err := b.stepCertificates(ctx, dir, name); err != nil {
		return s, err
	}
	var err error
	if s.cluster, err = daemons.NewPostgres(ctx, dir+"-db"); err != nil {
		return s, err
	}
	port, err := daemons.FreePort()
	if err != nil {
		return s, err
	}
	config, err := b.stepConfig(s, dir, port)
	if err != nil {
		return s, err
	}
	env := append([]string{"STEPPATH=" + dir, "HOME=" + dir}, b.token.Env...)
	if s.daemon, err = daemons.Start(dir+".log", syscall.SIGTERM, nil, env, filepath.Join(b.bin, "step-ca"), config); err != nil {
		return s, err
	}
	if err := s.daemon.Accepts(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(port)); err != nil {
		return s, err
	}
	roots, err := pool(filepath.Join(dir, "root.pem"))
	if err != nil {
		return s, err
	}
	for i := range maxClients {
		c, err := newClient(ctx, fmt.Sprintf("https://localhost:%d/acme/acme/directory", port), roots, nil)
		if err != nil {
			return s, fmt.Errorf("account: %w", err)
		}
		card := newCard(b.vendor, s.curve, int64(20_000_001+i))
		s.clients = append(s.clients, &client{acme: c, card: card, identifier: strconv.FormatInt(card.serial, 10), wrapped: true})
	}
	return s, nil
}

// stepConfig writes ca.json. Everything that is not named keeps its default.
func (b *bench) stepConfig(s *server, dir string, port int) (string, error) {
	config := map[string]any{
		"root": filepath.Join(dir, "root.pem"), "crt": filepath.Join(dir, "issuing.pem"),
		"key":     "pkcs11:object=" + s.name + "-issuer",
		"address": "127.0.0.1:" + strconv.Itoa(port), "dnsNames": []string{"localhost"},
		"kms": map[string]any{"type": "pkcs11", "uri": fmt.Sprintf("pkcs11:module-path=%s;token=%s?pin-source=%s", b.token.Module, b.token.Label, b.pin)},
		"db":  map[string]any{"type": "postgresql", "dataSource": s.cluster.DSN("stepca"), "database": "stepca"},
		"authority": map[string]any{"provisioners": []any{map[string]any{
			"type": "ACME", "name": "acme", "challenges": []string{"device-attest-01"},
			"attestationFormats": []string{"step"}, "attestationRoots": b.vendor.PEM(),
		}}},
	}
	text, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "ca.json")
	return path, os.WriteFile(path, text, 0o600)
}

// stepCertificates makes the intermediate's key in the token, and its chain.
func (b *bench) stepCertificates(ctx context.Context, dir, name string) error {
	token, err := keys.OpenToken(ctx, fmt.Sprintf("pkcs11:token=%s?module-path=%s", b.token.Label, b.token.Module), keys.PINFromFile(b.pin))
	if err != nil {
		return err
	}
	defer token.Close()
	issuing, err := token.Generate(ctx, name+"-issuer", hsm.GenerateOptions{Algorithm: hsm.P256})
	if err != nil {
		return err
	}
	root, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	parent := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Yardstick Root"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	child := *parent
	child.SerialNumber, child.Subject = big.NewInt(2), pkix.Name{CommonName: "Yardstick Issuing"}
	child.MaxPathLenZero = true
	return errors.Join(
		writeCertificate(filepath.Join(dir, "root.pem"), parent, parent, root.Public(), root),
		writeCertificate(filepath.Join(dir, "issuing.pem"), &child, parent, issuing.Public(), root),
	)
}

func writeCertificate(path string, template, parent *x509.Certificate, key crypto.PublicKey, signer crypto.Signer) error {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, signer)
	if err != nil {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
}
