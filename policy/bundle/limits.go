// SPDX-License-Identifier: Apache-2.0

package bundle

const (
	// MaxSize bounds a signed bundle: some large SPIFs (100 KiB each), and the
	// statements.
	MaxSize = 16 << 20

	// maxFiles bounds the files in a bundle: policies with several editions each.
	maxFiles = 128

	// maxFile bounds one file; a SPIF of 10,000 categories has 2 MiB.
	maxFile = 4 << 20

	// maxName bounds a file's name.
	maxName = 64

	// maxStatements bounds the signatures: two are asked for.
	maxStatements = 8

	// maxStatement is that of package statement's small kinds.
	maxStatement = 64 << 10

	// maxTests bounds the decision tests: each takes some 10 µs at loading.
	maxTests = 10_000

	// maxRows bounds each list of the table of domains.
	maxRows = 1024
)
