// SPDX-License-Identifier: Apache-2.0

package record

import (
	"errors"
	"fmt"
)

// A Reason says in one word what is wrong. The words never change: they stand in
// audit streams and auditors' reports.
type Reason string

// What can be wrong with a leaf as such.
const (
	OutOfOrder    Reason = "out_of_order"    // not the next leaf
	WrongPayload  Reason = "wrong_payload"   // the entry is of another payload
	TimeBackwards Reason = "time_backwards"  // earlier than the leaf before
	NoTime        Reason = "no_time"         // an entry of version 1 in an authority with officers
	NoFounding    Reason = "no_founding"     // before the founding record
	BadFounding   Reason = "bad_founding"    // not this root's, or the second one
	BadManifest   Reason = "bad_manifest"    // not this root's, or not the next one
	BadRecord     Reason = "bad_record"      // a kind of leaf that means nothing
	Rewritten     Reason = "rewritten_leaf"  // the leaves do not make up the tree that was signed
	Truncated     Reason = "truncated"       // the signed tree has more leaves
	Unsigned      Reason = "beyond_the_head" // leaves that the signed tree does not have
)

// What can be wrong with a statement.
const (
	BadStatement     Reason = "bad_statement"           // not a statement, or none for the ledger
	BadSignature     Reason = "bad_signature"           // not by the key of the certificate in it
	BadChain         Reason = "bad_chain"               // not an officer's certificate of this authority
	OfficerExpired   Reason = "officer_expired"         // the officer's certificate was not valid then
	NotInStanding    Reason = "officer_not_in_standing" // suspended, dismissed, never appointed, or with another key
	WrongAuthority   Reason = "wrong_authority"         // for another root
	StatementExpired Reason = "statement_expired"       // handed in too late, or dated ahead
	WrongRole        Reason = "wrong_role"              // this role does not sign this
	Replayed         Reason = "replayed"                // recorded before
	SameOfficerTwice Reason = "same_officer_twice"      // by address or by key
	OwnEnrollment    Reason = "own_enrollment"          // an officer approves their own
	OwnMatter        Reason = "own_matter"              // an officer signs what concerns themselves
	StaleChange      Reason = "stale_change"            // not a change of what holds now
	NotSuspended     Reason = "not_suspended"           // nothing to resume, or revoked for ever
	KeyTaken         Reason = "key_taken"               // the key was somebody else's
	RoleTaken        Reason = "role_taken"              // the person has another role
	WrongDomain      Reason = "wrong_domain"            // an address of elsewhere
	BadRule          Reason = "bad_rule"                // a rule that cannot be followed
	TooFewApprovals  Reason = "too_few_approvals"       // a rule by which one could issue alone
	TooFewLeft       Reason = "too_few_left"            // the last two administrators stay
	KnownInvitation  Reason = "known_invitation"        // a key's name stands for two invitations
)

// What can be wrong with a certificate, or keep one from being issued.
const (
	NoApproval          Reason = "no_approval"          // too few approvals of what is in it
	Refused             Reason = "refused"              // an officer refused the request
	NotOnRoster         Reason = "not_on_roster"        // never, or not any more
	RaisedClearance     Reason = "raised_clearance"     // more than the signed roster gives
	DeviceSuspended     Reason = "device_suspended"     //
	DeviceRevoked       Reason = "device_revoked"       //
	PersonSuspended     Reason = "person_suspended"     //
	PersonRevoked       Reason = "person_revoked"       //
	CardSuspended       Reason = "card_suspended"       // by its serial number
	CardRevoked         Reason = "card_revoked"         //
	RootSuspended       Reason = "root_suspended"       // the vendor's
	RootRevoked         Reason = "root_revoked"         //
	WrongProfile        Reason = "wrong_profile"        // no such profile, or another version
	WrongTier           Reason = "wrong_tier"           // a tier that the profile does not take
	WrongValidity       Reason = "wrong_validity"       // longer than approved, or at another time
	NotInvited          Reason = "not_invited"          // no officer invited this account's owner
	BadCertificate      Reason = "bad_certificate"      // not a certificate of any of our kinds
	NotAppointed        Reason = "not_appointed"        // an officer's certificate without an appointment
	RepeatedCertificate Reason = "repeated_certificate" // the serial number or the certificate stands there twice
	WrongIssuer         Reason = "wrong_issuer"         // names an issuer that no manifest knows
	DeviceTaken         Reason = "device_taken"         // the key is another person's
)

// Against reports whether a reason is one for which a certificate is not issued: of
// the record, and not of the evidence.
func Against(r Reason) bool {
	switch r {
	case NoApproval, Refused, NotOnRoster, RaisedClearance, DeviceSuspended, DeviceRevoked, PersonSuspended, PersonRevoked,
		CardSuspended, CardRevoked, RootSuspended, RootRevoked, WrongProfile, WrongValidity, NotInvited, DeviceTaken,
		Rewritten, WrongPayload, NotInStanding, WrongDomain:
		return true
	}
	return false
}

// A Finding says what is wrong, and with which leaf. As an error of a query, its
// Index is -1.
type Finding struct {
	Index  int64  `json:"index"`
	Reason Reason `json:"reason"`
	Detail string `json:"detail"`
}

func (f *Finding) Error() string {
	if f.Index < 0 {
		return fmt.Sprintf("record: %s: %s", f.Reason, f.Detail)
	}
	return fmt.Sprintf("record: leaf %d: %s: %s", f.Index, f.Reason, f.Detail)
}

// ReasonOf returns the reason of a Finding or a MissingError, "" for other errors.
func ReasonOf(err error) Reason {
	if f, ok := errors.AsType[*Finding](err); ok {
		return f.Reason
	}
	if _, ok := errors.AsType[*MissingError](err); ok {
		return NoApproval
	}
	return ""
}

func find(reason Reason, format string, args ...any) *Finding {
	return &Finding{Index: -1, Reason: reason, Detail: fmt.Sprintf(format, args...)}
}
