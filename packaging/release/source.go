// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A source is a tree that packages are built from, and when it was committed.
type source struct {
	dir  string
	time time.Time
	name string // of the commit
}

// exportSource lays the newest commit of this module into dir, with its modules.
func exportSource(ctx context.Context, root, dir string) (*source, error) {
	out, err := output(ctx, root, nil, "git", "log", "-1", "--format=%ct %H")
	if err != nil {
		return nil, fmt.Errorf("which commit this is: %w", err)
	}
	seconds, name, _ := strings.Cut(strings.TrimSpace(out), " ")
	at, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return nil, err
	}
	if changed, err := output(ctx, root, nil, "git", "status", "--porcelain"); err != nil {
		return nil, err
	} else if changed != "" {
		fmt.Fprintln(os.Stderr, "release: what is not committed is left out")
	}
	archive := exec.CommandContext(ctx, "git", "-C", root, "archive", "--format=tar", "HEAD")
	pipe, err := archive.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := archive.Start(); err != nil {
		return nil, err
	}
	if err := errors.Join(unpack(pipe, dir), archive.Wait()); err != nil {
		return nil, err
	}
	if _, err := output(ctx, dir, nil, "go", "mod", "vendor"); err != nil {
		return nil, err
	}
	return &source{dir: dir, time: time.Unix(at, 0).UTC(), name: name}, nil
}

// unpack writes the plain files and folders of an archive that git made.
func unpack(r io.Reader, dir string) error {
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		switch h.Typeflag {
		case tar.TypeXGlobalHeader:
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o755)
		case tar.TypeReg:
			err = unpackFile(archive, path, h.FileInfo().Mode().Perm()&0o111)
		default:
			err = fmt.Errorf("%s is neither a file nor a folder", h.Name)
		}
		if err != nil {
			return err
		}
	}
}

// unpackFile writes one file, whatever the umask; execute has the bits for running it.
func unpackFile(r io.Reader, path string, execute os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Chmod(0o644|execute), f.Close())
}

// build builds the programs with the script that the bundle brings along.
func (s *source) build(ctx context.Context, out string, env ...string) error {
	_, err := output(ctx, s.dir, env, filepath.Join(s.dir, "packaging", "build.sh"), s.dir, out)
	return err
}

// output runs a command to its end; what it complained about is in the error.
func output(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(name), strings.Join(args, " "), err, &complaints, &out)
	}
	return out.String(), nil
}
