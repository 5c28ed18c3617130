// SPDX-License-Identifier: Apache-2.0

package check

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A report says what it found, in text and in JSON, and fails if a line says FAIL.
func TestReport(t *testing.T) {
	r := new(Report)
	r.OK("disk", "%d MiB", 7)
	r.Warn("clock", "clock_alone", "run chrony", "alone")
	var out bytes.Buffer
	if err := r.Write(&out, false); err != nil {
		t.Errorf("a warning fails: %v", err)
	}
	r.Fail("hsm", "pin_wrong", "correct it", "two\nlines")
	out.Reset()
	if err := r.Write(&out, false); !errors.Is(err, ErrFailed) {
		t.Errorf("got %v", err)
	}
	for _, want := range []string{"ok    disk           7 MiB\n", "[clock_alone]", "FAIL  hsm            two; lines [pin_wrong]\n", "-> correct it", "1 ok, 1 to look at, 1 FAIL\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	out.Reset()
	if err := r.Write(&out, true); !errors.Is(err, ErrFailed) {
		t.Errorf("got %v", err)
	}
	var s summary
	if err := json.Unmarshal(out.Bytes(), &s); err != nil || len(s.Lines) != 3 || s.OK+s.Warn+s.Fail != 3 || s.Lines[2].Reason != "pin_wrong" {
		t.Errorf("%v: %s", err, out.String())
	}
}

// broken signs something else than it was asked to.
type broken struct{ crypto.Signer }

func (b broken) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	digest = bytes.Clone(digest)
	digest[0] ^= 1
	return b.Signer.Sign(r, digest, opts)
}

// A key that does not sign what it is asked to, or is not the certificate's, is found.
func TestSign(t *testing.T) {
	small, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	large, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		key         crypto.Signer
		certificate *x509.Certificate
		want        string
	}{
		"P-256":       {small, &x509.Certificate{PublicKey: small.Public()}, ""},
		"P-384":       {large, nil, ""},
		"Ed25519":     {edwards, nil, ""},
		"other key":   {small, &x509.Certificate{PublicKey: large.Public()}, "key_not_certified"},
		"broken":      {broken{small}, nil, "key_unusable"},
		"broken 384":  {broken{large}, nil, "key_unusable"},
		"broken 2551": {broken{edwards}, nil, "key_unusable"},
	} {
		r := new(Report)
		Sign(r, name, c.key, c.certificate)
		if l := r.Lines()[0]; l.Reason != c.want || (l.Result == OK) != (c.want == "") {
			t.Errorf("%s: %+v", name, l)
		}
	}
}

func TestExpiry(t *testing.T) {
	now := time.Now()
	for left, want := range map[time.Duration]string{
		60 * time.Hour: "", 20 * time.Hour: "certificate_expires", -time.Second: "certificate_expired", 101 * time.Hour: "certificate_early",
	} {
		r := new(Report)
		Expiry(r, "it", &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: now.Add(left), NotBefore: now.Add(left - 100*time.Hour)}, now, "renew it")
		if l := r.Lines()[0]; l.Reason != want {
			t.Errorf("%v: %+v", left, l)
		}
	}
	const years = 8766 * time.Hour
	r := new(Report)
	Expiry(r, "a root", &x509.Certificate{NotBefore: now.Add(-years), NotAfter: now.Add(19 * years)}, now, "")
	if l := r.Lines()[0]; l.Result != OK {
		t.Errorf("a root's twenty years: %+v", l)
	}
}

// Files that hold secrets, or decide about trust, belong to one user.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "pin")
	if err := os.WriteFile(secret, []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[os.FileMode]string{0o600: "", 0o400: "", 0o640: "secret_open", 0o604: "secret_open"} {
		if err := os.Chmod(secret, mode); err != nil {
			t.Fatal(err)
		}
		r := new(Report)
		Secret(r, "pin", secret)
		if l := r.Lines()[0]; l.Reason != want {
			t.Errorf("%v: %+v", mode, l)
		}
	}
	for mode, want := range map[os.FileMode]string{0o600: "", 0o644: "", 0o620: "config_writable", 0o602: "config_writable"} {
		if err := os.Chmod(secret, mode); err != nil {
			t.Fatal(err)
		}
		r := new(Report)
		if ok := Configuration(r, secret, nil); ok != (want == "") || r.Lines()[0].Reason != want {
			t.Errorf("%v: %+v", mode, r.Lines())
		}
	}
	for mode, want := range map[os.FileMode]string{0o700: "", 0o750: "directory_open", 0o770: "directory_writable"} {
		sub := filepath.Join(dir, "data")
		if err := errors.Join(os.MkdirAll(sub, 0o700), os.Chmod(sub, mode)); err != nil {
			t.Fatal(err)
		}
		r := new(Report)
		Directory(r, "data", sub)
		if l := r.Lines()[0]; l.Reason != want {
			t.Errorf("%v: %+v", mode, l)
		}
	}
	r := new(Report)
	Directory(r, "data", filepath.Join(dir, "none"))
	Directory(r, "data", filepath.Join(dir, "none", "none"))
	Module(r, filepath.Join(dir, "none.so"))
	if l := r.Lines(); l[0].Result != Warn || l[1].Result != Fail || l[2].Reason != "module_missing" {
		t.Errorf("%+v", l)
	}
}

// A port is free, ours, or somebody else's.
func TestPorts(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	go func() { // somebody who does not talk to strangers
		for {
			c, err := taken.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	datagrams, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	ask := func(err error) func(_ context.Context, _ string) error {
		return func(context.Context, string) error { return err }
	}
	for name, c := range map[string]struct {
		port Port
		want string
	}{
		"free":       {Port{Network: "tcp", Address: "127.0.0.1:0"}, ""},
		"both":       {Port{Network: "udp", Address: "0.0.0.0:0"}, ""},
		"ours":       {Port{Network: "tcp", Address: taken.Addr().String(), Ours: ask(nil)}, ""},
		"another's":  {Port{Network: "tcp", Address: taken.Addr().String(), Ours: ask(errors.New("another"))}, "port_taken"},
		"whoever's":  {Port{Network: "udp", Address: datagrams.LocalAddr().String()}, "port_taken"},
		"no address": {Port{Network: "udp", Address: "192.0.2.1:4433"}, "port_no_address"},
		"malformed":  {Port{Network: "udp", Address: "127.0.0.1"}, "port_invalid"},
	} {
		r := new(Report)
		Ports(t.Context(), r, c.port)
		if l := r.Lines()[0]; l.Reason != c.want {
			t.Errorf("%s: %+v", name, l)
		}
	}
	r := new(Report)
	Ports(t.Context(), r, Port{Network: "tcp", Address: taken.Addr().String(), Ours: Healthz})
	if l := r.Lines()[0]; l.Reason != "port_taken" {
		t.Errorf("%+v", l)
	}
}
