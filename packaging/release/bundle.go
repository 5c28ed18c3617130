// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"valise/packaging"
)

type bundleCommand struct {
	Out     string   `default:"dist" type:"path" help:"Folder for the bundle."`
	Key     string   `required:"" placeholder:"URI" help:"The key that signs: a PKCS#11 URI with token and object, P-384 or P-256. It is made if it is not there."`
	PINFile string   `name:"pin-file" type:"path" placeholder:"FILE" help:"Read the token's PIN from a file that only you can read."`
	Debian  []string `default:"${debian}" help:"Debian's packages to bring along, with all that they need."`
}

// debianPackages is what targets need beside ours: reader and token, a database, a
// clock, and what checks the bundle.
const debianPackages = "adduser,pcscd,libccid,softhsm2,openssl,postgresql,chrony"

// Run builds everything from the newest commit and signs it.
func (c *bundleCommand) Run(ctx context.Context) error {
	work, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	key, err := openSigner(ctx, c.Key, c.PINFile)
	if err != nil {
		return err
	}
	defer key.close()
	r := &release{root: ".", work: work}
	debs, err := r.packages(ctx, filepath.Join(work, "debs"))
	if err != nil {
		return err
	}
	b := &bundle{name: "valise-" + packaging.Version() + "-bundle", dir: filepath.Join(work, "bundle"), source: r.source.dir, commit: r.source.name, time: r.source.time, debs: debs}
	if err := fetchDebian(ctx, filepath.Join(work, "apt"), filepath.Join(b.dir, "debian"), c.Debian...); err != nil {
		return err
	}
	if err := fetchDebian(ctx, filepath.Join(work, "apt"), filepath.Join(b.dir, "trial"), "vsmartcard-vpcd"); err != nil {
		return err
	}
	if err := dropTwice(filepath.Join(b.dir, "trial"), filepath.Join(b.dir, "debian")); err != nil {
		return err
	}
	if err := b.fill(ctx); err != nil {
		return err
	}
	if err := key.sign(b.dir, b.time); err != nil {
		return err
	}
	return b.hand(c.Out, key)
}

// A bundle is a folder that is handed to operators.
type bundle struct {
	name   string // of the folder, as it is unpacked
	dir    string
	source string // tree with vendor folder
	commit string
	time   time.Time
	debs   []string // ours
}

// fill lays everything beside what came from Debian, and lists it.
func (b *bundle) fill(ctx context.Context) error {
	for _, step := range []func(context.Context) error{b.packages, b.sources, b.documents, b.origin, b.index} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return writeSums(b.dir, b.time)
}

// place copies a file of the sources, or another one.
func (b *bundle) place(from, to string, mode os.FileMode) error {
	s := stage{dir: b.dir, time: b.time}
	return s.copyFile(from, to, mode)
}

// packages adds ours, and the bill of each program.
func (b *bundle) packages(ctx context.Context) error {
	for i, deb := range b.debs {
		if err := b.place(deb, filepath.Join("debian", filepath.Base(deb)), 0o644); err != nil {
			return err
		}
		name := programs[i].name + ".cdx.json"
		bill, err := output(ctx, "", nil, "sh", "-c", `dpkg-deb --fsys-tarfile "$1" | tar -xO "./usr/share/doc/$2/$2.cdx.json"`, "sh", deb, programs[i].name)
		if err != nil {
			return err
		}
		s := stage{dir: b.dir, time: b.time}
		if err := s.write(filepath.Join("sbom", name), []byte(bill), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// sources adds the tree with its modules, as one archive, and the script that builds it.
func (b *bundle) sources(context.Context) error {
	name := "valise-" + packaging.Version()
	if err := os.MkdirAll(filepath.Join(b.dir, "source"), 0o755); err != nil {
		return err
	}
	err := writeFile(filepath.Join(b.dir, "source", name+".tar.gz"), b.time, func(w io.Writer) error {
		return writeZipped(w, b.source, name, b.time)
	})
	if err != nil {
		return err
	}
	return b.place(filepath.Join(b.source, "packaging", "build.sh"), filepath.Join("source", "build.sh"), 0o755)
}

// documents adds what is read, and what decides: roots and policies.
func (b *bundle) documents(context.Context) error {
	s := stage{dir: b.dir, time: b.time}
	for from, to := range map[string]string{"docs": "docs", "spec": "spec", "attest/roots": "roots"} {
		if _, err := os.Stat(filepath.Join(b.source, from)); errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := s.copyTree(filepath.Join(b.source, filepath.FromSlash(from)), to); err != nil {
			return err
		}
	}
	policies, err := filepath.Glob(filepath.Join(b.source, "policies", "*.xml"))
	if err != nil {
		return err
	}
	for _, p := range policies {
		if err := b.place(p, filepath.Join("policies", filepath.Base(p)), 0o644); err != nil {
			return err
		}
	}
	for _, name := range []string{"README.md", "DESIGN.md", "PROMISES.md", "CHANGELOG.md", "LICENSE"} {
		if err := b.place(filepath.Join(b.source, name), name, 0o644); err != nil {
			return err
		}
	}
	text, err := os.ReadFile(filepath.Join(b.source, "packaging", "bundle", "README.txt"))
	if err != nil {
		return err
	}
	if err := s.write("README.txt", []byte(strings.ReplaceAll(string(text), "@VERSION@", packaging.Version())), 0o644); err != nil {
		return err
	}
	for _, name := range []string{"install.sh", "first-hour.sh"} {
		if err := b.place(filepath.Join(b.source, "packaging", "bundle", name), name, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// origin says what the programs were built with: the same gives the same bytes.
func (b *bundle) origin(ctx context.Context) error {
	text := "commit " + b.commit + "\n"
	for _, command := range [][]string{{"go", "version"}, {"gcc", "--version"}, {"ld", "--version"}} {
		out, err := output(ctx, "", nil, command[0], command[1:]...)
		if err != nil {
			return err
		}
		first, _, _ := strings.Cut(out, "\n")
		text += first + "\n"
	}
	s := stage{dir: b.dir, time: b.time}
	return s.write("BUILD", []byte(text), 0o644)
}

// hand writes the bundle as one archive, and the key beside it.
func (b *bundle) hand(out string, key *signer) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	file := filepath.Join(out, b.name+".tar")
	if err := writeFile(file, b.time, func(w io.Writer) error { return writeTar(w, b.dir, b.name, b.time) }); err != nil {
		return err
	}
	public := filepath.Join(out, "release.pub")
	if err := os.WriteFile(public, key.pem, 0o644); err != nil {
		return err
	}
	fmt.Printf("%s\n%s (sha256 %s): give it to operators another way than the bundle\n", file, public, key.fingerprint)
	return nil
}
