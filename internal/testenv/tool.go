// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"os"
	"path"
	"strings"
	"testing"
)

// Tool compiles a program of somebody else's that tools.mod pins, and returns the
// path of the binary. It is missing where its modules cannot be had.
func Tool(t testing.TB, pkg string) string {
	t.Helper()
	flags := strings.TrimSpace(os.Getenv("GOFLAGS") + " -modfile=tools.mod")
	binary, err := build(Root(t), pkg, []string{"GOFLAGS=" + flags})
	if err != nil {
		missing(t, path.Base(pkg), err.Error())
	}
	return binary
}
