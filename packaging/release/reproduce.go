// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"valise/packaging"
)

type reproducibleCommand struct{}

// Run builds everything twice from the newest commit and compares what came of it. The
// second time other things are so that must not matter: where it is built, for how long
// the clock has run, the caches, the time zone, the language, the umask.
func (c *reproducibleCommand) Run(ctx context.Context) error {
	work, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	first, second := filepath.Join(work, "first"), filepath.Join(work, "in", "another", "place")
	if err := buildOnce(ctx, first, "TZ=UTC", "LC_ALL=C"); err != nil {
		return err
	}
	old := syscall.Umask(0o077)
	err = buildOnce(ctx, second, "TZ=Pacific/Kiritimati", "LC_ALL=C.UTF-8", "GOMAXPROCS=1")
	syscall.Umask(old)
	if err != nil {
		return err
	}
	for _, part := range []string{"bin", "debs", "bundle", "archive"} {
		differ, err := compare(filepath.Join(first, part), filepath.Join(second, part))
		if err != nil {
			return err
		}
		if len(differ) > 0 {
			return fmt.Errorf("not reproducible: %s: %q", part, differ)
		}
		files, err := list(filepath.Join(first, part))
		if err != nil {
			return err
		}
		fmt.Printf("%s: %d files, the same bytes\n", part, len(files))
	}
	fmt.Println("reproducible: ok")
	return nil
}

// buildOnce builds programs, packages and an unsigned bundle of ours in a folder, with
// an empty build cache.
func buildOnce(ctx context.Context, dir string, env ...string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	r := &release{root: ".", work: dir}
	debs, err := r.packages(ctx, filepath.Join(dir, "debs"), append(env, "GOCACHE="+filepath.Join(dir, "cache"))...)
	if err != nil {
		return err
	}
	b := &bundle{name: "valise-" + packaging.Version() + "-bundle", dir: filepath.Join(dir, "bundle"), source: r.source.dir, commit: r.source.name, time: r.source.time, debs: debs}
	if err := b.fill(ctx); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, "archive"), 0o755); err != nil {
		return err
	}
	file := filepath.Join(dir, "archive", b.name+".tar")
	return writeFile(file, b.time, func(w io.Writer) error { return writeTar(w, b.dir, b.name, b.time) })
}

type rebuildCommand struct {
	Bundle string `arg:"" type:"existingdir" help:"Folder of an unpacked bundle."`
}

// Run builds the programs from a bundle's sources, without a network, and compares them
// with those in its packages.
func (c *rebuildCommand) Run(ctx context.Context) error {
	work, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	dir, err := filepath.Abs(c.Bundle)
	if err != nil {
		return err
	}
	shipped, built := filepath.Join(work, "shipped"), filepath.Join(work, "built")
	archives, err := filepath.Glob(filepath.Join(dir, "source", "valise-*.tar.gz"))
	if err != nil || len(archives) != 1 {
		return errors.Join(fmt.Errorf("%s: want one archive of sources, there are %d", dir, len(archives)), err)
	}
	if err := errors.Join(os.Mkdir(shipped, 0o755), os.Mkdir(built, 0o755)); err != nil {
		return err
	}
	if _, err := output(ctx, work, nil, "tar", "-xzf", archives[0], "--one-top-level=source", "--strip-components=1"); err != nil {
		return err
	}
	for _, p := range programs {
		debs, err := filepath.Glob(filepath.Join(dir, "debian", p.name+"_*.deb"))
		if err != nil || len(debs) != 1 {
			return errors.Join(fmt.Errorf("%s: want one package of %s, there are %d", dir, p.name, len(debs)), err)
		}
		if _, err := output(ctx, work, nil, "dpkg-deb", "--extract", debs[0], filepath.Join(work, p.name)); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(work, p.name, "usr", "bin", p.name), filepath.Join(shipped, p.name)); err != nil {
			return err
		}
	}
	// An empty cache of builds and one of modules: what is not in the sources is not there.
	env := []string{"GOCACHE=" + filepath.Join(work, "cache"), "GOMODCACHE=" + filepath.Join(work, "modules")}
	if _, err := output(ctx, work, env, filepath.Join(dir, "source", "build.sh"), filepath.Join(work, "source"), built); err != nil {
		return err
	}
	differ, err := compare(shipped, built)
	if err != nil {
		return err
	}
	if len(differ) > 0 {
		return fmt.Errorf("rebuilt from the bundle's sources, these are other programs: %q (BUILD says which Go and compiler it takes)", differ)
	}
	fmt.Println("rebuild: ok: the programs in the packages are those of the sources")
	return nil
}
