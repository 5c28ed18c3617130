// SPDX-License-Identifier: Apache-2.0

package oldversion

// Commits whose programs upgrades are tested with.
const (
	// Single is the last version in which a gateway had its PostgreSQL database to
	// itself. Its programs know nothing of versions that come after them.
	Single = "6be3fa2613ac9d7e7875295b3126f8b15c497d6d"

	// Last is the version that upgrades are made from: the first one whose schema says
	// which programs can use it (relay 16, authority 7).
	Last = "3bf1bc6b6ab11411655c5370381d22ca9350ed07"
)
