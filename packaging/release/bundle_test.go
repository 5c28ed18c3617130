// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"valise/internal/testenv"
)

// smallBundle signs a bundle of packages, without the modules beside the sources and
// without anything of Debian's.
func smallBundle(t *testing.T, debs ...string) (dir, public string) {
	t.Helper()
	root := testenv.Root(t)
	source := filepath.Join(t.TempDir(), "source")
	s := stage{dir: source, time: time.Unix(1_700_000_000, 0)}
	for _, name := range []string{"packaging/bundle", "packaging/build.sh", "policies", "README.md", "DESIGN.md", "PROMISES.md", "CHANGELOG.md", "LICENSE"} {
		from := filepath.Join(root, filepath.FromSlash(name))
		err := s.copyTree(from, name)
		if err != nil {
			t.Fatal(err)
		}
	}
	small := &bundle{name: "small", dir: filepath.Join(t.TempDir(), "bundle"), source: source, commit: "none", time: s.time, debs: debs}
	if err := small.fill(t.Context()); err != nil {
		t.Fatal(err)
	}
	token := testenv.SoftHSM(t)
	key, err := openSigner(t.Context(), token.URI("object=bundle"), token.PINFile)
	if err != nil {
		t.Fatal(err)
	}
	defer key.close()
	if err := key.sign(small.dir, small.time); err != nil {
		t.Fatal(err)
	}
	public = filepath.Join(t.TempDir(), "release.pub")
	if err := os.WriteFile(public, key.pem, 0o600); err != nil {
		t.Fatal(err)
	}
	return small.dir, public
}

// littlePackage is a package with a bill and nothing else: to be looked at many times.
func littlePackage(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	s := stage{dir: dir}
	if err := errors.Join(
		s.write("p/DEBIAN/control", []byte("Package: valise\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: little\n"), 0o644),
		s.write("p/usr/share/doc/valise/valise.cdx.json", []byte("{}\n"), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	deb := filepath.Join(dir, "valise_1_all.deb")
	if out, err := exec.Command(testenv.Need(t, "dpkg-deb", "dpkg"), "--build", filepath.Join(dir, "p"), deb).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return deb
}

// check runs the script of a bundle.
func check(ctx context.Context, dir, key string) (string, error) {
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "install.sh"), "--key", key, "--check").CombinedOutput()
	return string(out), err
}

// flip changes one bit in the middle of a file.
func flip(t *testing.T, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	one := make([]byte, 1)
	at := info.Size() / 2
	_, err = f.ReadAt(one, at)
	one[0] ^= 1
	_, writeErr := f.WriteAt(one, at)
	if err := errors.Join(err, writeErr, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// A bundle is refused when one bit of any file is another, when a file is missing, or
// when there is one that nobody signed; and under another key, or a key of its own.
func TestBundleRefused(t *testing.T) {
	testenv.Need(t, "openssl", "openssl")
	dir, key := smallBundle(t, littlePackage(t))
	if out, err := check(t.Context(), dir, key); err != nil || !strings.Contains(out, "all as they were signed") {
		t.Fatalf("the bundle as it was signed: %v\n%s", err, out)
	}
	files, err := list(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name := range files {
		if name == "install.sh" { // altered, it is not the one that is asked
			continue
		}
		file := filepath.Join(dir, name)
		flip(t, file)
		if out, err := check(t.Context(), dir, key); err == nil || !strings.Contains(out, "do not use the bundle") {
			t.Errorf("%s with one bit altered: %v\n%s", name, err, out)
		}
		flip(t, file)
	}
	added := filepath.Join(dir, "debian", "added.deb")
	for what, change := range map[string][2]func() error{
		"a file that nobody signed": {func() error { return os.WriteFile(added, nil, 0o600) }, func() error { return os.Remove(added) }},
		"a link":                    {func() error { return os.Symlink("/etc/passwd", added) }, func() error { return os.Remove(added) }},
		"a file less":               {func() error { return os.Rename(filepath.Join(dir, "BUILD"), key+"-") }, func() error { return os.Rename(key+"-", filepath.Join(dir, "BUILD")) }},
	} {
		if err := change[0](); err != nil {
			t.Fatal(err)
		}
		if out, err := check(t.Context(), dir, key); err == nil || !strings.Contains(out, "do not use the bundle") {
			t.Errorf("%s: %v\n%s", what, err, out)
		}
		if err := change[1](); err != nil {
			t.Fatal(err)
		}
	}
	other := filepath.Join(t.TempDir(), "other.pub")
	if out, err := exec.Command("sh", "-c", `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 | openssl pkey -pubout -out "$1"`, "sh", other).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := check(t.Context(), dir, other); err == nil || !strings.Contains(out, "not signed by this key") {
		t.Errorf("under a stranger's key: %v\n%s", err, out)
	}
	if out, err := check(t.Context(), dir, filepath.Join(dir, "LICENSE")); err == nil || !strings.Contains(out, "lies in the bundle") {
		t.Errorf("under a key of its own: %v\n%s", err, out)
	}
	if out, err := check(t.Context(), dir, key); err != nil {
		t.Errorf("put back as it was: %v\n%s", err, out)
	}
}

// From a signed bundle, on a machine without a route or a name server, to two enrolled
// devices that exchange messages; then an upgrade, a removal and a purge, which delete
// nothing that the daemons hold.
func TestInstall(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("install: installing packages takes root, in a layer over this machine's files too")
	}
	for what, from := range map[string]string{
		"unshare": "util-linux", "ip": "iproute2", "pcscd": "pcscd", "softhsm2-util": "softhsm2", "openssl": "openssl", "adduser": "adduser", "pgrep": "procps",
		"/usr/lib*/pcsc/drivers/serial/libifdvpcd.so": "vsmartcard-vpcd",
	} {
		testenv.Need(t, what, from)
	}
	dir, key := smallBundle(t, packages(t).debs...)
	tools := t.TempDir()
	data := filepath.Join(testenv.Root(t), "packaging", "release", "testdata")
	for from, to := range map[string]string{
		testenv.Build(t, "./cmd/valise-testcard", "CGO_ENABLED=0"): "valise-testcard", key: "release.pub", filepath.Join(data, "operate.sh"): "operate.sh",
	} {
		s := stage{dir: tools}
		if err := s.copyFile(from, to, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	cmd := exec.CommandContext(t.Context(), filepath.Join(data, "machine.sh"), dir, tools, "/media/operate.sh")
	cmd.Stdout, cmd.Stderr = &log, &log
	err := cmd.Run()
	if err != nil || !strings.Contains(log.String(), "first-hour: ok: two enrolled devices") || !strings.HasSuffix(log.String(), "operate: ok\n") {
		t.Fatalf("%v\n%s", err, &log)
	}
	t.Logf("%s", &log)
}
