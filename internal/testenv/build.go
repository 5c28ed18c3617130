// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

var (
	builtMu sync.Mutex
	built   = make(map[string]string) // guarded by builtMu: package and environment to binary
)

// Build compiles a command of this module, once per test process, and returns
// the path of the binary: Build(t, "./cmd/valise"). Environment variables such
// as "CGO_ENABLED=0" may follow.
func Build(t testing.TB, pkg string, env ...string) string {
	t.Helper()
	path, err := build(Root(t), pkg, env)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func build(root, pkg string, env []string) (string, error) {
	builtMu.Lock()
	defer builtMu.Unlock()
	key := fmt.Sprint(root, pkg, env)
	if path := built[key]; path != "" {
		return path, nil
	}
	base, err := binaries()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(key))
	dir := filepath.Join(base, hex.EncodeToString(sum[:8]))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	// Another test process may build or run the same binary: it is
	// replaced as a whole, never written to.
	temp := filepath.Join(dir, fmt.Sprintf("build-%d", os.Getpid()))
	cmd := exec.Command("go", "build", "-o", temp, pkg)
	cmd.Dir, cmd.Env = root, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("testenv: build %s: %w\n%s", pkg, err, out)
	}
	path := filepath.Join(dir, filepath.Base(pkg))
	if err := os.Rename(temp, path); err != nil {
		return "", err
	}
	built[key] = path
	return path, nil
}

// binaries is a folder of this user's that outlives test processes, so that
// none of them leaves another copy of the binaries behind.
func binaries() (string, error) {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("valise-testenv-%d", os.Getuid()))
	if err := os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) {
		return "", err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if !info.IsDir() || info.Mode().Perm() != 0o700 || !owned(info) {
		return "", fmt.Errorf("testenv: %s belongs to somebody else: remove it, or set TMPDIR", dir)
	}
	return dir, nil
}
