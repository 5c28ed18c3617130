// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
)

// maxPrivate bounds a private file: a connection string, at most.
const maxPrivate = 4 << 10

// ReadPrivate reads a short text from a file that nobody but its owner can read.
func ReadPrivate(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no plain file", path)
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return "", fmt.Errorf("others can read %s (mode %04o): chmod 600", path, mode)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxPrivate+1))
	if err != nil {
		return "", err
	}
	if len(data) > maxPrivate {
		return "", fmt.Errorf("%s has more than %d bytes", path, maxPrivate)
	}
	return strings.TrimSpace(string(data)), nil
}
