// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// npmTime bounds the installation of a Node project's packages.
const npmTime = 4 * time.Minute

var (
	installMu  sync.Mutex
	installErr = make(map[string]error) // guarded by installMu: what failed once is not tried again
)

// Node prepares a Node project of this module, such as "interop/node", and
// returns the command line that runs a script of it; the script's name and its
// arguments follow. The packages in the project's lock file are installed once
// per user into a cache folder, and never into the project; after that, no
// network is needed. The project is run from a copy in t.TempDir.
func Node(t testing.TB, project string) []string {
	t.Helper()
	node := Need(t, "node", "nodejs")
	npm := Need(t, "npm", "npm")
	flags, err := nodeFlags(node)
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(Root(t), project)
	modules, err := nodeModules(npm, source)
	if err != nil {
		missing(t, "npm", err.Error())
	}
	dir := t.TempDir()
	scripts, err := filepath.Glob(filepath.Join(source, "*.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range scripts {
		if err := copyFile(filepath.Join(dir, filepath.Base(name)), name); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	return append(append([]string{"env", "-C", dir, node}, flags...), "--")
}

// nodeFlags asks Node for its version: 18, which is Debian 12's, has
// WebCrypto, but shows it only on request.
func nodeFlags(node string) ([]string, error) {
	out, err := exec.Command(node, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("testenv: %s --version: %w", node, err)
	}
	version := strings.TrimSpace(string(out))
	major, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	switch n, err := strconv.Atoi(major); {
	case err != nil:
		return nil, fmt.Errorf("testenv: node is of version %q", version)
	case n < 18:
		return nil, fmt.Errorf("testenv: node %s is too old: install 18 or newer", version)
	case n < 20:
		return []string{"--experimental-global-webcrypto"}, nil
	}
	return nil, nil
}

// nodeModules installs what the lock file of a project pins, unless a folder
// of that content is there already, and returns its node_modules.
func nodeModules(npm, source string) (string, error) {
	installMu.Lock()
	defer installMu.Unlock()
	base, err := cacheDir()
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	names := []string{"package.json", "package-lock.json"}
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%d %s", len(data), data)
	}
	dir := filepath.Join(base, "node-"+hex.EncodeToString(sum.Sum(nil)[:8]))
	modules := filepath.Join(dir, "node_modules")
	if _, err := os.Stat(modules); err == nil {
		return modules, nil
	}
	if err := installErr[dir]; err != nil {
		return "", err
	}
	// Another test process may install the same: whoever is first puts its
	// complete folder in place.
	temp, err := os.MkdirTemp(base, "install-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	for _, name := range names {
		if err := copyFile(filepath.Join(temp, name), filepath.Join(source, name)); err != nil {
			return "", err
		}
	}
	if err := npmInstall(npm, temp); err != nil {
		installErr[dir] = err
		return "", err
	}
	if err := os.Rename(temp, dir); err != nil {
		if _, statErr := os.Stat(modules); statErr != nil {
			return "", err
		}
	}
	return modules, nil
}

// npmInstall runs npm ci, which takes exactly what the lock file says and
// checks each package's hash. No package may run a script.
func npmInstall(npm, dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), npmTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error",
		"--fetch-retries=2", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000")
	cmd.Dir, cmd.WaitDelay = dir, 10*time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci fails (%w); it needs its registry once: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// cacheDir is a folder of this user's that outlives test processes.
func cacheDir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return binaries()
	}
	dir := filepath.Join(cache, "valise-testenv")
	return dir, os.MkdirAll(dir, 0o700)
}

func copyFile(to, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, fs.FileMode(0o600))
}
