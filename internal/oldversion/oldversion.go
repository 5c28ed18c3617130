// SPDX-License-Identifier: Apache-2.0

package oldversion

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// ErrNoHistory is returned where the repository does not have the commit.
var ErrNoHistory = errors.New("oldversion: this clone does not have that commit: git fetch --unshallow, or clone without --depth")

// A Config says what to build. Without Commit it is the tree that Root is in, and then
// there must be an Overlay.
type Config struct {
	// Commit is a name in the repository, as [Last].
	Commit string
	// Overlay exchanges files of the present tree, or adds some: contents by their
	// path from the root of the module.
	Overlay map[string][]byte
	// Programs are packages from the root of the module; nil means all below cmd.
	Programs []string
	// Root is any folder of the repository; "" is the working directory.
	Root string
	// Cache is where builds are kept; "" is below the user's cache directory.
	Cache string
	// Log takes what git and the compiler say; nil: nobody.
	Log io.Writer
}

// Build returns the folder with the programs.
func Build(ctx context.Context, cfg Config) (dir string, err error) {
	if (cfg.Commit == "") == (len(cfg.Overlay) == 0) {
		return "", errors.New("oldversion: name a commit, or an overlay of the present tree")
	}
	if cfg.Log == nil {
		cfg.Log = io.Discard
	}
	if cfg.Programs == nil {
		cfg.Programs = []string{"./cmd/..."}
	}
	if cfg.Cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("oldversion: %w", err)
		}
		cfg.Cache = filepath.Join(user, "valise-oldversion")
	}
	top, err := cfg.output(ctx, "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return "", err
	}
	cfg.Root = top // of a folder below it git would archive that folder alone
	if cfg.Commit == "" {
		return cfg.overlaid(ctx, top)
	}
	hash, err := cfg.output(ctx, "git", "rev-parse", "--verify", "--quiet", cfg.Commit+"^{commit}")
	if err != nil {
		return "", fmt.Errorf("%w (%s)", ErrNoHistory, cfg.Commit)
	}
	return cfg.kept(hash, func(into string) error { return cfg.earlier(ctx, hash, into) })
}

// kept returns what was built under this name before, or builds it.
func (cfg *Config) kept(name string, build func(into string) error) (string, error) {
	if err := os.MkdirAll(cfg.Cache, 0o755); err != nil {
		return "", fmt.Errorf("oldversion: %w", err)
	}
	key := sha256.Sum256([]byte(strings.Join(cfg.Programs, "\n")))
	dir := filepath.Join(cfg.Cache, fmt.Sprintf("%s-%x", name, key[:4]))
	lock, err := os.OpenFile(dir+".lock", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return "", fmt.Errorf("oldversion: %w", err)
	}
	defer lock.Close() // and the lock ends
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("oldversion: %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	part, err := os.MkdirTemp(cfg.Cache, "part-*")
	if err != nil {
		return "", fmt.Errorf("oldversion: %w", err)
	}
	defer os.RemoveAll(part)
	if err := build(part); err != nil {
		return "", err
	}
	return dir, os.Rename(part, dir)
}

// earlier unpacks a commit and builds it with the modules that it names.
func (cfg *Config) earlier(ctx context.Context, hash, into string) (err error) {
	source, err := os.MkdirTemp(cfg.Cache, "source-*")
	if err != nil {
		return fmt.Errorf("oldversion: %w", err)
	}
	defer os.RemoveAll(source)
	archive := filepath.Join(source, ".tar")
	if err := cfg.run(ctx, cfg.Root, "git", "archive", "--format=tar", "-o", archive, hash); err != nil {
		return err
	}
	if err := cfg.run(ctx, source, "tar", "-xf", archive); err != nil {
		return err
	}
	return cfg.compile(ctx, source, into)
}

func (cfg *Config) compile(ctx context.Context, source, into string, flags ...string) error {
	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-o", into + string(filepath.Separator)}, flags...)
	return cfg.run(ctx, source, "go", append(args, cfg.Programs...)...)
}

// overlaid builds the present tree with other files in it. It is built anew each time:
// the compiler keeps what did not change.
func (cfg *Config) overlaid(ctx context.Context, top string) (string, error) {
	if err := os.MkdirAll(cfg.Cache, 0o755); err != nil {
		return "", fmt.Errorf("oldversion: %w", err)
	}
	dir, err := os.MkdirTemp(cfg.Cache, "overlay-*")
	if err != nil {
		return "", fmt.Errorf("oldversion: %w", err)
	}
	files := make(map[string]string)
	for i, name := range slices.Sorted(maps.Keys(cfg.Overlay)) {
		if !filepath.IsLocal(name) {
			return "", fmt.Errorf("oldversion: %s is not in the module", name)
		}
		at := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(at, cfg.Overlay[name], 0o644); err != nil {
			return "", fmt.Errorf("oldversion: %w", err)
		}
		files[filepath.Join(top, name)] = at
	}
	list, err := json.Marshal(map[string]any{"Replace": files})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, list, 0o644); err != nil {
		return "", fmt.Errorf("oldversion: %w", err)
	}
	return dir, cfg.compile(ctx, top, dir, "-overlay", overlay)
}

func (cfg *Config) run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, cfg.Log, cfg.Log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("oldversion: %s %s: %w", name, strings.Join(args, " "), err)
	}
	return nil
}

func (cfg *Config) output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stderr = cfg.Root, cfg.Log
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("oldversion: %s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
