// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"time"

	"valise/statement"
)

// Bounds on what strangers and officers may ask of this package.
const (
	// SessionLife is how long a token opens the desk.
	SessionLife = 15 * time.Minute

	// maxStatement bounds a statement's body; it is package statement's bound.
	maxStatement = statement.MaxLargeSize

	// maxSession bounds a session statement, which strangers may send.
	maxSession = statement.MaxSize

	// maxApplication bounds an applicant's file: an attestation object with its
	// certificates, in base64.
	maxApplication = 128 << 10

	// maxSegment bounds identifiers in paths and queries.
	maxSegment = 400

	// maxRequests, maxProposals and maxStandings bound lists: nobody decides
	// on more at a time.
	maxRequests  = 500
	maxProposals = 256
	maxStandings = 1000

	// maxPage bounds a page of the roster, some 300 octets each.
	maxPage = 500

	// maxItems and maxItemOctets bound a page of the ledger, whose largest
	// payload has 1 MiB.
	maxItems      = 256
	maxItemOctets = 4 << 20

	// maxListedBody bounds the body of a proposal that stands in a list; longer
	// ones are fetched one by one.
	maxListedBody = 8 << 10

	// requestLimit bounds the work on one request, bodyLimit the time in which
	// its body must arrive if Config says nothing else, answerLimit that in
	// which the answer must be taken.
	requestLimit = 20 * time.Second
	bodyLimit    = 10 * time.Second
	answerLimit  = 40 * time.Second
)
