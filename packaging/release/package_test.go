// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"valise/internal/testenv"
	"valise/packaging"
)

// built is a stage with the programs as tests build them, and the packages of it:
// made once, because packing three programs takes seconds.
type built struct {
	stage *stage
	debs  []string
}

var once struct {
	sync.Mutex
	built *built
	dir   string
}

// packages makes the packages of the working tree.
func packages(t *testing.T) *built {
	t.Helper()
	once.Lock()
	defer once.Unlock()
	if once.built != nil {
		return once.built
	}
	root := testenv.Root(t)
	s := &stage{dir: filepath.Join(once.dir, "stage"), source: root, bin: filepath.Join(once.dir, "bin"), version: packaging.Version(), time: time.Unix(1_700_000_000, 0).UTC(), plain: true, modules: downloaded(t)}
	if err := os.Mkdir(s.bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range programs {
		if err := os.Link(testenv.Build(t, "./cmd/"+p.name), filepath.Join(s.bin, p.name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.fill(); err != nil {
		t.Fatal(err)
	}
	tool, err := nfpm(t.Context(), root, once.dir)
	if err != nil {
		t.Fatal(err)
	}
	debs, err := s.debs(t.Context(), tool, filepath.Join(once.dir, "dist"), programs...)
	if err != nil {
		t.Fatal(err)
	}
	once.built = &built{s, debs}
	return once.built
}

// downloaded finds modules where Go keeps them.
func downloaded(t *testing.T) func(string) string {
	t.Helper()
	out, err := output(t.Context(), testenv.Root(t), nil, "go", "list", "-m", "-f", "{{.Path}} {{.Dir}}", "all")
	if err != nil {
		t.Fatal(err)
	}
	dirs := map[string]string{}
	for line := range strings.Lines(out) {
		module, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
		dirs[module] = dir
	}
	goroot, err := output(t.Context(), "", nil, "go", "env", "GOROOT")
	if err != nil {
		t.Fatal(err)
	}
	dirs["std"] = strings.TrimSpace(goroot)
	return func(module string) string { return dirs[module] }
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "vr")
	if err != nil {
		panic(err)
	}
	once.dir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// exposure has systemd judge a unit: 0 is safe, 10 is not.
func exposure(t *testing.T, unit string) float64 {
	t.Helper()
	tool := testenv.Need(t, "systemd-analyze", "systemd")
	out, err := exec.Command(tool, "security", "--offline=true", "--no-pager", unit).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("no level in:\n%s", out)
	}
	level, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return level
}

// maxExposure is the most that a unit may have.
const maxExposure = 3.0

// The units are closed as far as the daemons can live with, and systemd says so; the
// same unit without its restrictions is far above the bound.
func TestUnits(t *testing.T) {
	units, err := filepath.Glob(filepath.Join(testenv.Root(t), "packaging", "systemd", "*.service"))
	if err != nil || len(units) != 2 {
		t.Fatalf("units: %q, %v", units, err)
	}
	for _, unit := range units {
		if level := exposure(t, unit); level > maxExposure {
			t.Errorf("%s: exposure %.1f, want at most %.1f", filepath.Base(unit), level, maxExposure)
		}
	}
	text, err := os.ReadFile(units[0])
	if err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(t.TempDir(), "open.service")
	loose := regexp.MustCompile(`(?m)^(Protect|Private|Restrict|Capability|SystemCall|NoNew|Memory|Device|Lock).*\n`).ReplaceAll(text, nil)
	if err := os.WriteFile(open, loose, 0o600); err != nil {
		t.Fatal(err)
	}
	if level := exposure(t, open); level <= maxExposure {
		t.Errorf("a unit without restrictions has exposure %.1f", level)
	}
}

// What the programs are linked with is what their packages depend on: no library that
// is not named, and no newer C library than is asked for.
func TestDependencies(t *testing.T) {
	b := packages(t)
	provider := map[string]string{"libc.so.6": "libc6", "libpcsclite.so.1": "libpcsclite1"}
	for i, p := range programs {
		depends := field(t, b.debs[i], "Depends")
		file, err := elf.Open(filepath.Join(b.stage.bin, p.name))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		libraries, err := file.ImportedLibraries()
		if err != nil {
			t.Fatal(err)
		}
		for _, library := range libraries {
			if name := provider[library]; name == "" || !strings.Contains(depends, name) {
				t.Errorf("%s needs %s, and depends on %q", p.name, library, depends)
			}
		}
		symbols, err := file.ImportedSymbols()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range symbols {
			if version, ok := strings.CutPrefix(s.Version, "GLIBC_"); ok && newer(version, "2.34") {
				t.Errorf("%s: %s is of libc %s", p.name, s.Name, version)
			}
		}
	}
}

func newer(a, than string) bool {
	var major, minor, m, n int
	fmt.Sscanf(a, "%d.%d", &major, &minor)
	fmt.Sscanf(than, "%d.%d", &m, &n)
	return major > m || major == m && minor > n
}

func field(t *testing.T, deb, name string) string {
	t.Helper()
	out, err := exec.Command(testenv.Need(t, "dpkg-deb", "dpkg"), "--field", deb, name).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// One place says which version this is, and packages, programs and manual pages say
// the same. The virtual card is in none of them.
func TestVersion(t *testing.T) {
	b := packages(t)
	version := packaging.Version()
	if version == "0.0.0" {
		t.Fatal("the changelog has no version")
	}
	for i, p := range programs {
		if got := field(t, b.debs[i], "Version"); got != version {
			t.Errorf("%s: package %q", p.name, got)
		}
		out, err := exec.Command(filepath.Join(b.stage.bin, p.name), "--version").Output()
		if err != nil || strings.TrimSpace(string(out)) != version {
			t.Errorf("%s --version: %q, %v", p.name, out, err)
		}
		list, err := exec.Command("dpkg-deb", "--contents", b.debs[i]).Output()
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(list, []byte("testcard")) {
			t.Errorf("%s holds the virtual card", b.debs[i])
		}
		for line := range strings.Lines(string(list)) {
			if f := strings.Fields(line); f[1] != "root/root" || strings.Contains(f[0][5:], "w") {
				t.Errorf("%s: %s", p.name, line)
			}
		}
	}
}

// The same stage gives the same packages, whatever the clock and the umask.
func TestPackagesTwice(t *testing.T) {
	b := packages(t)
	dir := t.TempDir()
	s := *b.stage
	s.dir = filepath.Join(dir, "stage")
	if err := s.fill(); err != nil {
		t.Fatal(err)
	}
	debs, err := s.debs(t.Context(), filepath.Join(once.dir, "nfpm"), filepath.Join(dir, "dist"), programs[2])
	if err != nil {
		t.Fatal(err)
	}
	if same, err := sameFile(b.debs[2], debs[0]); err != nil || !same {
		t.Errorf("two packages of one stage differ: %v", err)
	}
}

// A module without a licence cannot be handed on.
func TestLicences(t *testing.T) {
	b := packages(t)
	s := *b.stage
	bom, err := s.bill(programs[0])
	if err != nil {
		t.Fatal(err)
	}
	text, err := s.licences(bom)
	if err != nil || bytes.Count(text, []byte("\n==== ")) < 20 {
		t.Errorf("%d licences, %v", bytes.Count(text, []byte("\n==== ")), err)
	}
	empty := t.TempDir()
	s.modules = func(string) string { return empty }
	if _, err := s.licences(bom); err == nil {
		t.Error("modules without a licence pass")
	}
}

// A package that Debian would not take is refused.
func TestLintian(t *testing.T) {
	testenv.Need(t, "lintian", "lintian")
	dir := t.TempDir()
	control := "Package: bad\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: bad\n"
	if err := errors.Join(
		os.MkdirAll(filepath.Join(dir, "bad", "DEBIAN"), 0o755),
		os.WriteFile(filepath.Join(dir, "bad", "DEBIAN", "control"), []byte(control), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	deb := filepath.Join(dir, "bad.deb")
	if out, err := exec.Command("dpkg-deb", "--build", filepath.Join(dir, "bad"), deb).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := lintian(t.Context(), deb); err == nil {
		t.Error("a package without copyright and changelog passes")
	}
}

// Every setting of the example files is one that the daemons know, and every path in
// them is one that package and unit make.
func TestExamples(t *testing.T) {
	for _, d := range []string{"enrolld", "gatewayd"} {
		text, err := os.ReadFile(filepath.Join(testenv.Root(t), "packaging", "etc", d+".toml"))
		if err != nil {
			t.Fatal(err)
		}
		program := testenv.Build(t, "./cmd/valise-"+d)
		for name, more := range map[string]string{"example": "", "unknown": "unheard_of = 1\n"} {
			file := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(file, append([]byte(more), text...), 0o600); err != nil {
				t.Fatal(err)
			}
			// Nothing is missing but what an operator makes: certificates and keys.
			args := map[string][]string{"enrolld": {"root"}, "gatewayd": {"csr"}}[d]
			out, err := exec.Command(program, append(args, "--config", file)...).CombinedOutput()
			if refused := bytes.Contains(out, []byte("configuration: ")); err == nil || refused != (more != "") {
				t.Errorf("%s %s: %v\n%s", d, name, err, out)
			}
		}
		for _, path := range regexp.MustCompile(`/(etc|var)/[a-z0-9/-]+`).FindAllString(string(text), -1) {
			if !slices.ContainsFunc([]string{"/etc/valise/" + d + "/", "/var/lib/valise-" + d, "/var/log/valise-" + d + "/"}, func(p string) bool { return strings.HasPrefix(path, p) }) {
				t.Errorf("%s.toml names %s, which no package makes", d, path)
			}
		}
	}
}
