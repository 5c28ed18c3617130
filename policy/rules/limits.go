// SPDX-License-Identifier: Apache-2.0

package rules

const (
	// MaxText bounds a file of rules: some hundred rules, which officers still
	// can read.
	MaxText = 256 << 10

	// MaxRules bounds the rules of a file: each is evaluated for each route.
	MaxRules = 256

	// maxID bounds a rule's name; it stands in audit streams.
	maxID = 64

	// maxDepth bounds the nesting of brackets in a file: the parser calls itself for each.
	maxDepth = 64
)
