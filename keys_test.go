// SPDX-License-Identifier: Apache-2.0

package valise_test

import (
	"fmt"
	"go/ast"
	"slices"
	"strconv"
	"strings"
)

// softwareKeys are the calls that make or load a signing key in memory.
var softwareKeys = map[string][]string{
	"crypto/ecdsa":   {"GenerateKey", "ParseRawPrivateKey"},
	"crypto/ed25519": {"GenerateKey", "NewKeyFromSeed"},
	"crypto/rsa":     {"GenerateKey", "GenerateMultiPrimeKey"},
	"crypto/x509":    {"ParsePKCS8PrivateKey", "ParseECPrivateKey", "ParsePKCS1PrivateKey"},
	"crypto/tls":     {"X509KeyPair", "LoadX509KeyPair"},
}

// softwareMay lists the files of the product that may make or load such a key
// all the same, and why it identifies nobody. Whoever adds a line argues for
// it in the review.
var softwareMay = map[string]string{
	"enroll/ca/build.go":    "signs a certificate for the lint before the token does; thrown away with it",
	"cmd/valise/account.go": "the ACME account's key, sealed in the vault; it obtains nothing without a key in hardware",
}

// Not the product: what plays the hardware, the judges and the demo.
var notProduct = []string{
	"cmd/valise-testcard/...", "internal/testcard/...", "internal/testenv/...", "internal/stage/...", "enroll/enrolltest", "demo/...", "judges/...", "bench/...",
}

var keyRules = []rule{{
	"no software keys in the product", func(p project) []string { return checkKeys(p, softwareMay) },
	map[string]string{
		"client/a.go":            "package client\nimport \"crypto/ecdh\"\nvar k, _ = ecdh.P384().GenerateKey(nil)\n",
		"client/a_test.go":       "package client\nimport \"crypto/ecdsa\"\nvar k, _ = ecdsa.GenerateKey(nil, nil)\n",
		"internal/testcard/a.go": "package testcard\nimport \"crypto/ecdsa\"\nvar k, _ = ecdsa.GenerateKey(nil, nil)\n",
	},
	[]sabotage{
		{map[string]string{"client/b.go": "package client\nimport \"crypto/ecdsa\"\nvar k, _ = ecdsa.GenerateKey(nil, nil)\n"}, "client/b.go:3: ecdsa.GenerateKey"},
		{map[string]string{"cmd/valise/b.go": "package main\nimport e \"crypto/ed25519\"\nvar k = e.NewKeyFromSeed\n"}, "cmd/valise/b.go:3: ed25519.NewKeyFromSeed"},
		{map[string]string{"gateway/b.go": "package gateway\nimport \"crypto/tls\"\nvar k, _ = tls.LoadX509KeyPair(\"\", \"\")\n"}, "tls.LoadX509KeyPair"},
		{map[string]string{"gateway/b.go": "package gateway\nimport . \"crypto/rsa\"\n"}, "import crypto/rsa under a name"},
	},
}}

func checkKeys(p project, may map[string]string) (complaints []string) {
	used := make(map[string]bool)
	for f := range p.goFiles {
		if f.test || covers(notProduct, f.dir) {
			continue
		}
		names := make(map[string]string) // local name to import path
		for _, spec := range f.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			if softwareKeys[imported] == nil {
				continue
			}
			local := imported[strings.LastIndexByte(imported, '/')+1:]
			if spec.Name != nil {
				local = spec.Name.Name
			}
			if local == "." {
				complaints = append(complaints, fmt.Sprintf("%s: import %s under a name", f.at(spec), imported))
			}
			names[local] = imported
		}
		ast.Inspect(f.File, func(n ast.Node) bool {
			selector, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := selector.X.(*ast.Ident)
			if !ok || !slices.Contains(softwareKeys[names[pkg.Name]], selector.Sel.Name) {
				return true
			}
			if may[f.name] != "" {
				used[f.name] = true
				return true
			}
			imported := names[pkg.Name]
			complaints = append(complaints, fmt.Sprintf("%s: %s.%s: product code holds no software key; identity comes through crypto.Signer",
				f.at(n), imported[strings.LastIndexByte(imported, '/')+1:], selector.Sel.Name))
			return true
		})
	}
	if len(p.files) > 20 { // of this project, not of an invented one
		for name := range may {
			if !used[name] {
				complaints = append(complaints, name+" is allowed software keys and makes none: take it off the list")
			}
		}
	}
	return complaints
}
