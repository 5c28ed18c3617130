// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"os"
	"os/exec"
	"testing"
)

// Windows gets a program that says what it cannot do, rather than none.
func TestBuildsWithoutCgo(t *testing.T) {
	for _, system := range []string{"windows", "darwin", "linux"} {
		cmd := exec.Command("go", "build", "-o", os.DevNull, ".")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", system, err, out)
		}
	}
}
