// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"valise/internal/freeport"
)

// The object store of tests, as its authors publish it, pinned in objects.mod. It is
// somebody else's program that speaks S3 and keeps its objects in a folder.
const (
	objectsPackage = "github.com/versity/versitygw/cmd/versitygw"
	objectsModFile = "internal/testenv/objects.mod"
)

// An ObjectStore is a running S3-compatible server with one bucket, over TLS.
type ObjectStore struct {
	Endpoint       string
	Bucket         string
	Access, Secret string
	CA             string // file with the certificate to trust
	Roots          *x509.CertPool
	Dir            string // where the bucket's objects lie

	t       testing.TB
	program string
	port    string
	process *exec.Cmd
	out     bytes.Buffer
}

// Objects starts an object store for one test. The first time on a machine it is compiled,
// which takes about a minute, and kept in the user's cache directory.
func Objects(t testing.TB) *ObjectStore {
	t.Helper()
	program, err := objectsProgram(Root(t))
	if err != nil {
		missing(t, "versitygw", err.Error())
	}
	dir := t.TempDir()
	s := &ObjectStore{Bucket: "valise", Access: "valise", Secret: rand.Text(), CA: filepath.Join(dir, "cert.pem"), Dir: filepath.Join(dir, "objects", "valise"), t: t, program: program}
	port, err := freeport.Take()
	if err == nil {
		err = os.MkdirAll(s.Dir, 0o700)
	}
	if err == nil {
		err = s.certify(filepath.Join(dir, "key.pem"))
	}
	if err != nil {
		t.Fatal(err)
	}
	s.port = fmt.Sprint("127.0.0.1:", port)
	s.Endpoint = "https://" + s.port
	t.Cleanup(s.Kill)
	s.Start()
	return s
}

// Start starts it again where it was.
func (s *ObjectStore) Start() {
	s.t.Helper()
	key := filepath.Join(filepath.Dir(s.CA), "key.pem")
	s.process = exec.Command(s.program, "--port", s.port, "--quiet", "--cert", s.CA, "--key", key, "posix", filepath.Dir(s.Dir))
	s.process.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+s.Access, "ROOT_SECRET_KEY="+s.Secret)
	s.process.Stdout, s.process.Stderr = &s.out, &s.out
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		c, err := tls.Dial("tcp", s.port, &tls.Config{RootCAs: s.Roots})
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(deadline) {
			s.Kill()
			s.t.Fatalf("the object store does not answer: %v\n%s", err, s.out.String())
		}
	}
}

// Kill ends it at once.
func (s *ObjectStore) Kill() {
	if s.process == nil {
		return
	}
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
	s.process = nil
}

// certify makes the server's certificate.
func (s *ObjectStore) certify(keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	s.Roots = x509.NewCertPool()
	s.Roots.AppendCertsFromPEM(certificate)
	if err := os.WriteFile(s.CA, certificate, 0o600); err != nil {
		return err
	}
	return os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600)
}

// objectsProgram compiles the object store unless that was done before.
func objectsProgram(root string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "valise-testenv")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "list", "-modfile="+objectsModFile, "-m", "-f", "{{.Version}}", "github.com/versity/versitygw")
	cmd.Dir = root
	version, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("the object store's version: %w", err)
	}
	program := filepath.Join(dir, "versitygw-"+string(bytes.TrimSpace(version)))
	lock, err := os.OpenFile(program+".lock", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close() // and the lock ends
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	build := exec.Command("go", "build", "-modfile="+objectsModFile, "-trimpath", "-ldflags=-s -w", "-o", program+".new", objectsPackage)
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile the object store: %w\n%s", err, out)
	}
	return program, os.Rename(program+".new", program)
}
