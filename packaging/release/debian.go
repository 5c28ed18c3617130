// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// fetchDebian downloads packages with all that they need into a folder, as if the
// machine that they are for had nothing: with this machine's sources and keys of apt,
// and without touching what apt knows here. It takes no rights.
func fetchDebian(ctx context.Context, work, dir string, names ...string) error {
	status := filepath.Join(work, "status")
	archives := filepath.Join(work, filepath.Base(dir))
	if err := errors.Join(
		os.MkdirAll(filepath.Join(work, "lists", "partial"), 0o755), os.MkdirAll(filepath.Join(archives, "partial"), 0o755), os.MkdirAll(dir, 0o755),
		os.WriteFile(status, nil, 0o644),
	); err != nil {
		return err
	}
	options := []string{
		"-q", "-y", "--no-install-recommends", "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=", "-o", "Acquire::Retries=3",
		"-o", "Dir::State=" + work, "-o", "Dir::State::lists=" + filepath.Join(work, "lists"), "-o", "Dir::State::status=" + status,
		"-o", "Dir::Cache=" + work, "-o", "Dir::Cache::archives=" + archives, "-o", "Acquire::Languages=none",
	}
	if _, err := output(ctx, "", nil, "apt-get", append(options, "update")...); err != nil {
		return err
	}
	if _, err := output(ctx, "", []string{"DEBIAN_FRONTEND=noninteractive"}, "apt-get", append(append(options, "--download-only", "install"), names...)...); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(archives, "*.deb"))
	if err != nil || len(debs) == 0 {
		return errors.Join(fmt.Errorf("apt fetched nothing for %q", names), err)
	}
	for _, deb := range debs {
		if err := os.Rename(deb, filepath.Join(dir, withoutEpoch(filepath.Base(deb)))); err != nil {
			return err
		}
	}
	return nil
}

var epoch = regexp.MustCompile(`_[0-9]+%3a`)

// withoutEpoch names a package's file as Debian's archive does.
func withoutEpoch(name string) string { return epoch.ReplaceAllString(name, "_") }

// dropTwice takes out of a folder what stands in another one too.
func dropTwice(dir, other string) error {
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range debs {
		if _, err := os.Stat(filepath.Join(other, filepath.Base(deb))); err != nil {
			continue
		}
		if err := os.Remove(deb); err != nil {
			return err
		}
	}
	return nil
}

// index makes the folder of packages one that apt can install from.
func (b *bundle) index(ctx context.Context) error {
	debian := filepath.Join(b.dir, "debian")
	text, err := output(ctx, debian, nil, "dpkg-scanpackages", "--multiversion", ".")
	if err != nil {
		return err
	}
	if strings.Count(text, "\nFilename: ") < len(b.debs) {
		return errors.New("dpkg-scanpackages does not list our packages")
	}
	s := stage{dir: b.dir, time: b.time}
	return s.write(filepath.Join("debian", "Packages"), []byte(text), 0o644)
}
