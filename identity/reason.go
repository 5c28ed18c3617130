// SPDX-License-Identifier: Apache-2.0

package identity

import "fmt"

// A Reason says, as one word for the audit stream, why a chain was refused.
type Reason string

// The reasons of a ChainError.
const (
	ReasonMalformed        Reason = "malformed_certificate"      // not DER, too large, or not our profile's encoding
	ReasonChainLength      Reason = "chain_length"               // empty, or more certificates than MaxChainLength
	ReasonChainOrder       Reason = "chain_order"                // a certificate's issuer is not the next one's subject
	ReasonSelfSigned       Reason = "self_signed"                // the leaf signed itself
	ReasonUnknownAuthority Reason = "unknown_authority"          // no root of ours stands above the chain
	ReasonBadSignature     Reason = "bad_signature"              // a signature does not verify
	ReasonAlgorithm        Reason = "algorithm"                  // a key or signature that is not ECDSA with P-256 or P-384
	ReasonNotCA            Reason = "not_a_ca"                   // a certificate above the leaf may not issue
	ReasonPathLength       Reason = "path_length"                // more CAs below one than it allows
	ReasonCritical         Reason = "unknown_critical_extension" // something critical that we do not process
	ReasonExpired          Reason = "expired"
	ReasonNotYetValid      Reason = "not_yet_valid"
	ReasonWrongUsage       Reason = "wrong_usage"  // key usages of another kind of certificate
	ReasonNoAddress        Reason = "no_address"   // no address where one must stand
	ReasonWrongDomain      Reason = "wrong_domain" // an address outside its authority's domain
	ReasonWrongDevice      Reason = "wrong_device" // the device URI is not the hash of the key
	ReasonWrongName        Reason = "wrong_name"   // a gateway's certificate for another name
	ReasonNoAppraisal      Reason = "no_appraisal" // no appraisal result
	ReasonNoRole           Reason = "no_role"      // an officer's certificate without one role that we know
)

// A ChainError says why a chain was refused, and which certificate of it.
type ChainError struct {
	Reason Reason
	Index  int   // position in the chain as given, leaf 0; len(chain) for the root
	Err    error // the cause; never nil
}

func (e *ChainError) Error() string {
	return fmt.Sprintf("certificate %d of the chain refused (%s): %v", e.Index, e.Reason, e.Err)
}

func (e *ChainError) Unwrap() error { return e.Err }

func refuse(index int, reason Reason, format string, args ...any) error {
	return &ChainError{Reason: reason, Index: index, Err: fmt.Errorf(format, args...)}
}
