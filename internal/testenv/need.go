// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Need skips the test when a part is missing, and says which Debian package
// brings it. The part is a program, or a file with an absolute path, which may
// hold * where architectures differ. Need returns the path.
func Need(t testing.TB, what, debianPackage string) string {
	t.Helper()
	path := find(what)
	if path == "" {
		missing(t, what, what+" is missing: apt-get install "+debianPackage)
	}
	return path
}

// Can skips the test when this machine does not allow what the test cannot do without,
// such as a network of its own; err is how the attempt ended.
func Can(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		missing(t, what, "this machine does not allow "+what+": "+err.Error())
	}
}

// missing skips, or fails where the part is required.
func missing(t testing.TB, what, text string) {
	t.Helper()
	if required(what) {
		t.Fatal(text)
	}
	t.Skip(text)
}

func required(what string) bool {
	list := strings.Split(os.Getenv("VALISE_REQUIRE"), ",")
	return slices.Contains(list, "all") && what != vectors || slices.Contains(list, what)
}

func find(what string) string {
	if filepath.IsAbs(what) {
		found, _ := filepath.Glob(what)
		if len(found) == 0 {
			return ""
		}
		return found[0]
	}
	for _, name := range []string{what, filepath.Join("/usr/sbin", what), filepath.Join("/sbin", what)} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// vectors is the name of the shared vectors in VALISE_REQUIRE. They are not
// part of "all", because a stranger's clone does not have them.
const vectors = "vectors"

// Vectors returns the path of shared test vectors, in the folder that the
// environment variable VALISE_VECTORS names, or ../shared/vectors beside the
// module.
func Vectors(t testing.TB, elem ...string) string {
	t.Helper()
	dir := os.Getenv("VALISE_VECTORS")
	if dir == "" {
		dir = filepath.Join(Root(t), "..", "shared", "vectors")
	}
	path := filepath.Join(append([]string{dir}, elem...)...)
	if _, err := os.Stat(path); err != nil {
		missing(t, vectors, "vectors: "+filepath.Join(elem...)+" is not at hand: set VALISE_VECTORS to the folder of the shared vectors")
	}
	return path
}

// Root returns the root folder of this module.
func Root(t testing.TB) string {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

var moduleRoot = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	return filepath.Dir(strings.TrimSpace(string(out))), err
})

// ShortDir returns a folder for unix sockets, whose paths may have 107 bytes
// only: t.TempDir with a long test name has more.
func ShortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "v")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
