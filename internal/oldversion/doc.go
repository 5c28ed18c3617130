// SPDX-License-Identifier: Apache-2.0

// Package oldversion builds the programs of earlier versions of Valise, out of the
// history of this repository: what an upgrade is tested with is the program that
// operators had, not a copy that somebody made to look like it.
//
//	dir, err := oldversion.Build(ctx, oldversion.Config{Commit: oldversion.Last, Log: os.Stderr})
//	old := filepath.Join(dir, "valise-gatewayd")
//
// A build takes minutes the first time and nothing afterwards: it is kept by its commit
// in the user's cache directory. Several processes may ask for the same one at once.
// With Overlay, Build makes programs of the present tree in which some files are others,
// which is how a version that does not exist yet is made.
//
// Never use it in make test: a clone may be shallow, and then there is no history
// (ErrNoHistory says how to get it).
package oldversion
