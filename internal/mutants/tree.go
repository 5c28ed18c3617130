// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// A tree is a copy of the project that one mutant at a time may change.
type tree struct {
	origin, dir string
	files       []string // what the copy holds, relative
}

// listFiles names what git tracks or would track; outside of git (an unpacked
// archive) every file below the root.
func listFiles(ctx context.Context, root string) ([]string, error) {
	out, err := exec.CommandContext(ctx, "git", "-C", root, "ls-files", "-z", "-co", "--exclude-standard").Output()
	if err == nil && len(out) > 0 {
		var files []string
		for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
			// A tracked file may be deleted in the working tree.
			if info, err := os.Lstat(filepath.Join(root, name)); err == nil && info.Mode().IsRegular() {
				files = append(files, name)
			}
		}
		return files, nil
	}
	var files []string
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			name, _ := filepath.Rel(root, path)
			files = append(files, name)
		}
		return err
	})
	return files, err
}

// sync makes the folder hold exactly the files named. Files that are the same
// already are left alone, so that Go finds them in its cache by time and size.
func (t *tree) sync() error {
	want := make(map[string]bool, len(t.files))
	for _, name := range t.files {
		want[name] = true
		if err := t.restore(name); err != nil {
			return err
		}
	}
	return filepath.WalkDir(t.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if name, _ := filepath.Rel(t.dir, path); !want[name] {
			return os.Remove(path)
		}
		return nil
	})
}

// restore copies one file from the origin, or removes it where the origin has none.
func (t *tree) restore(name string) error {
	from, to := filepath.Join(t.origin, name), filepath.Join(t.dir, name)
	data, err := os.ReadFile(from)
	if errors.Is(err, fs.ErrNotExist) {
		return os.RemoveAll(to)
	}
	if err != nil {
		return err
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if have, err := os.ReadFile(to); err == nil && bytes.Equal(have, data) {
		return os.Chmod(to, info.Mode().Perm())
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(to, data, info.Mode().Perm()); err != nil {
		return err
	}
	return os.Chmod(to, info.Mode().Perm())
}

// git runs git apply in the copy, which belongs to no repository.
func (t *tree) git(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"apply", "-p1"}, args...)...)
	cmd.Dir = t.dir
	cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(t.dir))
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%s", firstLine(exit.Stderr))
	}
	return out, err
}

// apply patches the copy, and returns what puts it back.
func (t *tree) apply(ctx context.Context, patch string) (undo func() error, err error) {
	stat, err := t.git(ctx, "--numstat", "-z", patch)
	if err != nil {
		return nil, fmt.Errorf("not a patch: %w", err)
	}
	var touched []string
	for entry := range strings.SplitSeq(strings.TrimRight(string(stat), "\x00"), "\x00") {
		if fields := strings.SplitN(entry, "\t", 3); len(fields) == 3 && filepath.IsLocal(fields[2]) {
			touched = append(touched, fields[2])
		}
	}
	if len(touched) == 0 {
		return nil, errors.New("changes no file")
	}
	if _, err := t.git(ctx, "--check", patch); err != nil {
		return nil, fmt.Errorf("does not apply: %w", err)
	}
	if _, err := t.git(ctx, patch); err != nil {
		return nil, fmt.Errorf("does not apply: %w", err)
	}
	return func() error {
		var failed error
		for _, name := range touched {
			failed = errors.Join(failed, t.restore(name))
		}
		return failed
	}, nil
}

func firstLine(text []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return line
}

// lockFolder makes a folder in the user's cache and locks it. Copies stand at
// the same path in every run, so that Go's build cache knows them again.
func lockFolder(key string) (dir string, lock *os.File, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = filepath.Join(os.TempDir(), fmt.Sprintf("valise-%d", os.Getuid()))
	}
	dir = filepath.Join(cache, "valise-mutants", key)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, err
	}
	lock, err = os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return "", nil, fmt.Errorf("another run works in %s: %w", dir, err)
	}
	return dir, lock, nil
}
