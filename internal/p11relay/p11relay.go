// SPDX-License-Identifier: Apache-2.0

// Package p11relay lets Ed25519 pass through p11-kit's remote protocol, so that a
// whole authority can stand on a token whose server is killed and started again.
// It is for tests and the demo.
//
// p11-kit 0.24 relays only the mechanisms that it knows to be without parameters,
// and knows nothing of Edwards curves. Two thin PKCS#11 modules, one on either
// side, give CKM_EC_EDWARDS_KEY_PAIR_GEN and CKM_EDDSA the numbers of two
// mechanisms that it does relay, and back. Everything else is the other module's
// own function, called directly:
//
//	program -> [Client] -> p11-kit-client.so -> socket -> p11-kit-server -> [Server] -> SoftHSM
//
// First call: [Build], once for each side.
package p11relay

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed relay.c.txt
var source string

// A Side says which way mechanisms are renamed.
type Side int

// The sides.
const (
	Client Side = iota // in front of p11-kit's client
	Server             // in front of the module that p11-kit's server loads
)

// Build compiles the module for one side in front of another module, and returns
// its path in dir. It needs a C compiler, as cgo does.
func Build(ctx context.Context, dir, module string, side Side) (string, error) {
	name := map[Side]string{Client: "relay-client.so", Server: "relay-server.so"}[side]
	path := filepath.Join(dir, name)
	text := fmt.Sprintf("#define MODULE %q\n#define SERVER %d\n", module, side) + source
	cmd := exec.CommandContext(ctx, compiler(), "-x", "c", "-", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", path, "-ldl")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("p11relay: compile: %w: install gcc\n%s", err, out)
	}
	return path, nil
}

func compiler() string {
	if cc := os.Getenv("CC"); cc != "" {
		return cc
	}
	return "cc"
}
