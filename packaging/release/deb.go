// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"valise/packaging"
)

// nfpm returns a built nfpm, the version that packaging/nfpm.mod pins.
func nfpm(ctx context.Context, root, dir string) (string, error) {
	path := filepath.Join(dir, "nfpm")
	_, err := output(ctx, root, []string{"CGO_ENABLED=0"}, "go", "build", "-modfile="+filepath.Join("packaging", "nfpm.mod"), "-o", path, "github.com/goreleaser/nfpm/v2/cmd/nfpm")
	return path, err
}

// debs makes the packages of a filled stage and returns their paths.
func (s *stage) debs(ctx context.Context, nfpm, out string, which ...program) ([]string, error) {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return nil, err
	}
	env := []string{"VERSION=" + s.version, "ARCH=" + runtime.GOARCH, "SOURCE_DATE_EPOCH=" + strconv.FormatInt(s.time.Unix(), 10)}
	var all []string
	for _, p := range which {
		deb := filepath.Join(out, fmt.Sprintf("%s_%s_%s.deb", p.name, s.version, runtime.GOARCH))
		if _, err := output(ctx, s.dir, env, nfpm, "package", "--config", filepath.Join("nfpm", p.name+".yaml"), "--packager", "deb", "--target", deb); err != nil {
			return nil, err
		}
		all = append(all, deb)
	}
	return all, nil
}

// moduleLicences finds the folder of a module of a vendored source, and Go's own.
func moduleLicences(ctx context.Context, vendor string) (func(string) string, error) {
	goroot, err := output(ctx, "", nil, "go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	return func(module string) string {
		if module == "std" {
			return strings.TrimSpace(goroot)
		}
		return filepath.Join(vendor, filepath.FromSlash(module))
	}, nil
}

type packageCommand struct {
	Out     string `default:"dist" type:"path" help:"Folder for the packages."`
	Lintian bool   `default:"true" negatable:"" help:"Have lintian look at them; what it finds is an error."`
}

// Run builds the packages of the newest commit.
func (c *packageCommand) Run(ctx context.Context) error {
	work, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	r := &release{root: ".", work: work}
	debs, err := r.packages(ctx, c.Out)
	if err != nil {
		return err
	}
	for _, deb := range debs {
		fmt.Println(deb)
	}
	if !c.Lintian {
		return nil
	}
	return lintian(ctx, debs...)
}

// A release is one run, from sources to packages.
type release struct {
	root   string // of this module
	work   string // folder for what is in between
	source *source
	stage  *stage
}

// packages exports, builds and packs.
func (r *release) packages(ctx context.Context, out string, env ...string) (debs []string, err error) {
	if r.source, err = exportSource(ctx, r.root, filepath.Join(r.work, "source")); err != nil {
		return nil, err
	}
	bin := filepath.Join(r.work, "bin")
	if err := r.source.build(ctx, bin, env...); err != nil {
		return nil, err
	}
	tool, err := nfpm(ctx, r.root, r.work)
	if err != nil {
		return nil, err
	}
	modules, err := moduleLicences(ctx, filepath.Join(r.source.dir, "vendor"))
	if err != nil {
		return nil, err
	}
	r.stage = &stage{dir: filepath.Join(r.work, "stage"), source: r.source.dir, bin: bin, version: packaging.Version(), time: r.source.time, modules: modules}
	if err := r.stage.fill(); err != nil {
		return nil, err
	}
	out, err = filepath.Abs(out)
	if err != nil {
		return nil, err
	}
	return r.stage.debs(ctx, tool, out, programs...)
}

// errLintian: Debian's checker found something.
var errLintian = errors.New("lintian finds fault")

// lintian has Debian's checker look at packages; anything that it says is an error.
func lintian(ctx context.Context, debs ...string) error {
	args := append([]string{"--fail-on", "error,warning", "--tag-display-limit", "0", "--allow-root"}, debs...)
	out, err := output(ctx, "", nil, "lintian", args...)
	for lines := bufio.NewScanner(strings.NewReader(out)); lines.Scan(); {
		if text := lines.Text(); strings.HasPrefix(text, "E:") || strings.HasPrefix(text, "W:") {
			return fmt.Errorf("%w:\n%s", errLintian, out)
		}
	}
	return err
}
