// SPDX-License-Identifier: Apache-2.0

package record

import "time"

const (
	// MinApprovals is the fewest officers that a profile may ask for where there
	// are officers: nobody issues alone.
	MinApprovals = 2

	// MinAdministrators stay in office: with fewer, no rule could be changed and
	// nobody appointed any more.
	MinAdministrators = 2

	// backdate is how long before its leaf a certificate may begin, for the sake of
	// clocks that are behind.
	backdate = 5 * time.Minute

	// officerLife bounds the certificates of officers: a card's own life.
	officerLife = 5 * 366 * 24 * time.Hour

	// maxFindings bounds what Verify lists: a record that is rubbish throughout
	// needs no longer list.
	maxFindings = 10000
)
