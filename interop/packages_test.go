// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"encoding/json"
	"os"
	"testing"
)

// The packages of the peer are pinned with their hashes, without an address
// that one registry happens to have, and their licences are what DESIGN.md says.
func TestPeersPackages(t *testing.T) {
	data, err := os.ReadFile("node/package-lock.json")
	ok(t, err)
	var lock struct {
		Packages map[string]struct{ Version, Integrity, Resolved, License string }
	}
	ok(t, json.Unmarshal(data, &lock))
	pinned := map[string]string{"ts-mls": "1.6.4", "@noble/post-quantum": "0.7.1"}
	for name, version := range pinned {
		if got := lock.Packages["node_modules/"+name].Version; got != version {
			t.Errorf("%s is pinned to %q, not %s", name, got, version)
		}
	}
	for name, p := range lock.Packages {
		if name == "" {
			continue // the project itself
		}
		if p.Version == "" || p.Integrity == "" || p.Resolved != "" {
			t.Errorf("%s: version %q, integrity %q, resolved %q", name, p.Version, p.Integrity, p.Resolved)
		}
		if p.License != "MIT" {
			t.Errorf("%s has licence %q", name, p.License)
		}
	}
}
