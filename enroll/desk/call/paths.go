// SPDX-License-Identifier: Apache-2.0

package call

import (
	"encoding/hex"
	"fmt"
	"time"

	"valise/identity"
	"valise/statement"
)

// Paths below the authority's URL.
const (
	Path             = "/desk/v1/"
	PathNonce        = "/desk/v1/nonce"
	PathSession      = "/desk/v1/session"
	PathRequests     = "/desk/v1/requests"
	PathRoster       = "/desk/v1/roster"
	PathDevices      = "/desk/v1/devices"
	PathRules        = "/desk/v1/rules"
	PathProfiles     = "/desk/v1/profiles"
	PathOfficers     = "/desk/v1/officers"
	PathProposals    = "/desk/v1/proposals"
	PathStandings    = "/desk/v1/standings"
	PathLedger       = "/desk/v1/ledger"
	PathStatements   = "/desk/v1/statements"
	PathNonces       = "/desk/v1/nonces"
	PathApplications = "/desk/v1/applications"
)

// ContentStatement is the media type of a compact JWS (RFC 7515, Section
// 9.2.1).
const ContentStatement = "application/jose"

// A Nonce is what a session statement or an application is made over.
type Nonce struct {
	Nonce  string `json:"nonce"`
	Server string `json:"server"`
}

// A Session is an open desk.
type Session struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
	Officer Officer   `json:"officer"`
}

// A List is an answer with many of one type.
type List[T any] struct {
	List []T    `json:"list"`
	Next string `json:"next,omitempty"` // the "after" of the next page
}

// ParseTarget reads a target as officers name it: a device by its id, a person
// or an officer by address, a card by the hash of its serial number, a vendor's
// root by its fingerprint.
func ParseTarget(kind, name string) (statement.Target, error) {
	t := statement.Target{Kind: kind}
	var err error
	switch kind {
	case statement.TargetDevice:
		t.Device, err = identity.ParseDeviceID(name)
	case statement.TargetPerson, statement.TargetOfficer:
		t.Address, err = identity.ParseAddress(name)
	case statement.TargetSerial, statement.TargetRoot:
		var sum identity.DeviceID // 64 lower-case hexadecimal digits
		sum, err = identity.ParseDeviceID(name)
		if kind == statement.TargetSerial {
			t.Serial = hex.EncodeToString(sum[:])
		} else {
			t.Root = sum
		}
	default:
		return t, fmt.Errorf("target %.40q: want device, person, serial, root or officer", kind)
	}
	if err != nil {
		return t, fmt.Errorf("target %s: %w", kind, err)
	}
	return t, nil
}
