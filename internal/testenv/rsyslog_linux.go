// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
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

// A Collector is rsyslog with nothing but its RFC 5424 parser: what that does not
// understand, it does not write. It takes messages at a datagram socket, over TCP and
// over TLS, and writes what it understood, as JSON.
type Collector struct {
	Unix, TCP, TLS string // as syslog.Config.Server has them
	Roots          string // PEM file, of TLS

	program, dir, conf, out string
	cmd                     *exec.Cmd
	done                    chan struct{}
}

// A Collected message is what rsyslog understood.
type Collected struct {
	Severity   string `json:"severity"`
	Facility   string `json:"facility"`
	Time       string `json:"time"`
	Host       string `json:"host"`
	Program    string `json:"program"`
	Process    string `json:"process"`
	ID         string `json:"id"`
	Structured string `json:"structured"`
	Message    string `json:"message"`
}

// Rsyslog starts a collector, which is stopped at the end of the test.
func Rsyslog(t testing.TB) *Collector {
	t.Helper()
	c := &Collector{program: Need(t, "rsyslogd", "rsyslog"), dir: ShortDir(t)}
	Need(t, "/usr/lib*/*/rsyslog/lmnsd_ossl.so", "rsyslog-openssl")
	var ports [2]int
	for i := range ports {
		port, err := freeport.Take()
		if err != nil {
			t.Fatal(err)
		}
		ports[i] = port
	}
	c.conf, c.out, c.Roots = filepath.Join(c.dir, "conf"), filepath.Join(c.dir, "out"), filepath.Join(c.dir, "cert.pem")
	socket := filepath.Join(c.dir, "log")
	c.Unix, c.TCP, c.TLS = "unix://"+socket, fmt.Sprintf("tcp://127.0.0.1:%d", ports[0]), fmt.Sprintf("tls://127.0.0.1:%d", ports[1])
	key := c.certify(t)
	text := fmt.Sprintf(`global(workDirectory=%q maxMessageSize="16k" parser.escapeControlCharactersOnReceive="off"
	defaultNetstreamDriverCAFile=%q defaultNetstreamDriverCertFile=%q defaultNetstreamDriverKeyFile=%q)
module(load="imuxsock" SysSock.Use="off")
module(load="imtcp")
template(name="json" type="list" option.jsonf="on") {
	property(outname="severity" name="syslogseverity-text" format="jsonf")
	property(outname="facility" name="syslogfacility" format="jsonf")
	property(outname="time" name="timereported" dateFormat="rfc3339" format="jsonf")
	property(outname="host" name="hostname" format="jsonf")
	property(outname="program" name="app-name" format="jsonf")
	property(outname="process" name="procid" format="jsonf")
	property(outname="id" name="msgid" format="jsonf")
	property(outname="structured" name="structured-data" format="jsonf")
	property(outname="message" name="msg" format="jsonf")
}
ruleset(name="strict" parser="rsyslog.rfc5424") { action(type="omfile" file=%q template="json") }
input(type="imuxsock" socket=%q useSpecialParser="off" parseHostname="on" useSysTimeStamp="off" ruleset="strict")
input(type="imtcp" address="127.0.0.1" port="%d" ruleset="strict")
input(type="imtcp" address="127.0.0.1" port="%d" ruleset="strict" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="anon")
`, c.dir, c.Roots, c.Roots, key, c.out, socket, ports[0], ports[1])
	if err := os.WriteFile(c.conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Start(t)
	t.Cleanup(func() { c.end(syscall.SIGKILL) })
	return c
}

// certify makes the collector's certificate, which is its own root.
func (c *Collector) certify(t testing.TB) (keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "collector"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	keyFile = filepath.Join(c.dir, "key.pem")
	for path, block := range map[string]*pem.Block{c.Roots: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return keyFile
}

// Start starts the collector, again after Stop; it returns when its sockets are there.
func (c *Collector) Start(t testing.TB) {
	t.Helper()
	cmd := exec.Command(c.program, "-n", "-f", c.conf, "-i", filepath.Join(c.dir, "pid"))
	var diag bytes.Buffer
	cmd.Stderr = &diag
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c.cmd, c.done = cmd, make(chan struct{})
	if err := startLocked(cmd, func(error) {}, c.done); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", c.TLS[len("tls://"):])
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-c.done:
			t.Fatalf("testenv: rsyslogd ended at once: %s", diag.String())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("testenv: rsyslogd does not answer: %v", err)
		}
	}
}

// Stop ends the collector in order: it writes what it has received.
func (c *Collector) Stop(t testing.TB) { t.Helper(); c.end(syscall.SIGTERM) }

func (c *Collector) end(signal syscall.Signal) {
	if c.cmd == nil {
		return
	}
	_ = c.cmd.Process.Signal(signal)
	<-c.done
	c.cmd = nil
}

// Output is the file with what the collector has understood.
func (c *Collector) Output() string { return c.out }

// Messages are those that the collector has understood so far.
func (c *Collector) Messages(t testing.TB) (all []Collected) {
	t.Helper()
	data, err := os.ReadFile(c.out)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // it is being written
		}
		var m Collected
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatalf("testenv: %v: %s", err, line)
		}
		all = append(all, m)
	}
	return all
}
