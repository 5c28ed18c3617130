// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"context"
	"errors"

	"valise/enroll/desk/call"
	"valise/identity"
	"valise/statement"
)

// ErrNonce says that a nonce is unknown, expired or was used before.
var ErrNonce = errors.New("desk: the nonce is unknown, expired or was used before")

// A Backend knows the record and decides. Every method that refuses returns a
// *Refusal, or an error that wraps a *statement.Error; any other error is the
// authority's own trouble: it is logged, and the officer sees that it was not
// their fault. What it returns is sent as it is.
type Backend interface {
	// NewNonce, CheckNonce and UseNonce are those of the ACME front: nonces of
	// this authority, single use across all its processes. What UseNonce returns
	// for one that was used, or is none, is ErrNonce or wraps it.
	NewNonce() string
	CheckNonce(nonce string) error
	UseNonce(ctx context.Context, nonce string) error

	// Officer returns who holds this key of slot 9c, if the record has them
	// appointed and in good standing now; otherwise it refuses. It is asked
	// for every request, so that a dismissed officer reads nothing more.
	Officer(ctx context.Context, key identity.DeviceID) (call.Officer, error)

	// Requests lists the orders that wait for approvals, oldest first, at most
	// limit. A lone authority has none.
	Requests(ctx context.Context, limit int) ([]call.Request, error)
	// Request returns one with everything set, in whatever state it is.
	Request(ctx context.Context, id string) (call.Request, error)

	// Roster lists people in the order of their addresses, those after the
	// address given, at most limit.
	Roster(ctx context.Context, after string, limit int) ([]call.Person, error)
	// Person returns one with their devices. Someone who was never on the
	// roster is no error: State is "unknown" and Previous empty.
	Person(ctx context.Context, a identity.Address) (call.Person, error)
	// Devices finds the devices behind a person, a card's serial number or a
	// vendor's root, ascending, at most statement.MaxDevices.
	Devices(ctx context.Context, t statement.Target) ([]identity.DeviceID, error)

	// Nonce draws a nonce for an application to an appointment; it is good for
	// call.ApplicationLife. Application takes the file that was made with it
	// (package ceremony), appraises it under the officers' policy, keeps the
	// evidence, and returns the Appointment that administrators would sign.
	// What the policy does not accept is refused.
	Nonce(ctx context.Context) (string, error)
	Application(ctx context.Context, file []byte) (call.Application, error)

	Rules(ctx context.Context) (call.Rules, error)
	Profiles(ctx context.Context) ([]call.Profile, error)
	Officers(ctx context.Context) ([]call.Officer, error)
	// Proposals lists what has a signature and needs another one.
	Proposals(ctx context.Context, limit int) ([]call.Proposal, error)
	// Standings lists suspensions and revocations in force, newest first.
	Standings(ctx context.Context, limit int) ([]call.Standing, error)

	// Items returns leaves of the ledger from an index on, at most limit, and
	// the latest checkpoint.
	Items(ctx context.Context, from int64, limit int) (call.Items, error)

	// Submit verifies a statement as of now, looks whether its signer may sign
	// it, and records it, alone or with the others that it needed. A statement
	// that was handed in before has the same outcome again. It refuses
	// statement.KindSession.
	Submit(ctx context.Context, raw []byte) (call.Outcome, error)
}
