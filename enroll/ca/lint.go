// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"fmt"
	"sort"
	"strings"
	"sync"

	"github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3/lint"
	_ "github.com/zmap/zlint/v3/lints/rfc" // the lints themselves
)

// A LintError says which rules of the RFCs a certificate would break.
type LintError struct{ Lints []string }

func (e *LintError) Error() string {
	return "ca: the certificate would break a rule: " + strings.Join(e.Lints, ", ")
}

// rfcLints are the rules of RFC 5280 and its relatives. Those of the CA/Browser
// Forum are for the public web and wrong for an authority of one's own.
var rfcLints = sync.OnceValue(func() []*lint.CertificateLint {
	var all []*lint.CertificateLint
	for _, l := range lint.GlobalRegistry().CertificateLints().Lints() {
		switch l.Source {
		case lint.RFC3279, lint.RFC5280, lint.RFC5480, lint.RFC5891, lint.RFC8813:
			all = append(all, l)
		}
	}
	return all
})

// lintCertificate refuses a certificate of which a rule says "error" or worse.
func lintCertificate(der []byte) error {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("ca: lint: %w", err)
	}
	cfg := lint.NewEmptyConfig()
	var broken []string
	for _, l := range rfcLints() {
		if r := l.Execute(cert, cfg); r.Status >= lint.Error {
			broken = append(broken, l.Name)
		}
	}
	if len(broken) > 0 {
		sort.Strings(broken)
		return &LintError{broken}
	}
	return nil
}
