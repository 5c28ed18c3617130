// SPDX-License-Identifier: Apache-2.0

// Package handbook reads the documents in docs/ as a machine can: what commands
// stand in them, on whose machine, what they are said to print, and which files a
// reader is told to write.
//
//	blocks, err := handbook.Read("docs/install.md")
//	steps, err := handbook.Steps(blocks)
//	match := handbook.Compile(step.Expect, values)
//
// The convention is what a reader sees anyway. A block of the language "console" is a
// transcript: NAME$ COMMAND is typed on NAME's machine, NAME# COMMAND by that
// machine's administrator, and what follows is printed. An ellipsis stands for what
// differs, and alone on a line for any number of lines. A word in capitals that
// docs/README.md lists is a value: whatever stands there the first time stands there
// each time. A line that begins with "> " is typed after such a prompt; ^C and ^D are
// the keys. A block that begins without a prompt goes on with the command that still
// runs on the machine that its info string names. A block of another language with
// NAME:/PATH in its info string is a file on NAME's machine.
//
// A block that no test can run stands below a comment with the reason:
//
//	<!-- not run: the reason -->
//
// Whoever reads documents with this package must run what [Steps] gives or say why
// not: never let a block pass unseen.
package handbook
