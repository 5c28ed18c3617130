// SPDX-License-Identifier: Apache-2.0

// Package packaging says which version of Valise this is, from the one place where
// it is written: debian/changelog, whose newest entry names the version of packages,
// bundle and programs.
//
//	fmt.Println(packaging.Version())
//
// Beside it lie what the packages are made of: units, maintainer scripts, example
// configuration, and release, the program that builds packages, bill of materials and
// the signed bundle. Never write a version anywhere else: a test compares.
package packaging

import (
	_ "embed"
	"strings"
)

//go:embed debian/changelog
var changelog string

// Version is that of the newest entry of the changelog, "0.0.0" if it cannot be read.
func Version() string {
	_, rest, _ := strings.Cut(changelog, "(")
	version, _, ok := strings.Cut(rest, ")")
	if !ok || version == "" || strings.ContainsAny(version, " \n") {
		return "0.0.0"
	}
	return version
}
