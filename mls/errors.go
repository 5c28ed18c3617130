// SPDX-License-Identifier: Apache-2.0

package mls

import "errors"

// Errors that callers act on. All others mean that the input is refused and
// that nothing has changed.
var (
	// ErrMalformed: the bytes are not a canonical encoding of what was expected.
	ErrMalformed = errors.New("mls: malformed encoding")
	// ErrWrongGroup: the message belongs to another group.
	ErrWrongGroup = errors.New("mls: message is for another group")
	// ErrFutureEpoch: the message belongs to an epoch that this member has not
	// reached: a commit is missing. Fetch it, or rejoin by external commit.
	ErrFutureEpoch = errors.New("mls: message is from a later epoch; a commit is missing")
	// ErrPastEpoch: the message belongs to an epoch whose keys are gone, or it
	// is a handshake message that came too late.
	ErrPastEpoch = errors.New("mls: message is from an epoch that is over")
	// ErrOwnMessage: this member sent the message itself. An own commit is
	// applied from its PendingCommit, never from the wire.
	ErrOwnMessage = errors.New("mls: message was sent by this member itself")
	// ErrUsedKey: the message's key was used and deleted (a repeated delivery),
	// or lies too far behind.
	ErrUsedKey = errors.New("mls: key of this message was already used and deleted")
	// ErrTooFarAhead: the message skips more generations than the bound allows.
	ErrTooFarAhead = errors.New("mls: message skips too many generations of its sender")
	// ErrDecrypt: the ciphertext does not open: it was altered, or is not ours.
	ErrDecrypt = errors.New("mls: ciphertext does not open")
	// ErrSignature: a signature does not verify.
	ErrSignature = errors.New("mls: signature does not verify")
	// ErrCredential: the Authenticator, or the certificate's key, refused a credential.
	ErrCredential = errors.New("mls: credential refused")
	// ErrLifetime: a KeyPackage is used outside of its lifetime.
	ErrLifetime = errors.New("mls: leaf node is outside of its lifetime")
	// ErrStale: the staged change starts from another state than the present one.
	ErrStale = errors.New("mls: staged change does not start from the present state")
	// ErrRemoved: this member is no longer in the group.
	ErrRemoved = errors.New("mls: this member was removed from the group")
	// ErrReInit: the group was closed by a ReInit proposal.
	ErrReInit = errors.New("mls: group is closed; it continues as its successor")
	// ErrNotForUs: the Welcome holds nothing for this KeyPackage.
	ErrNotForUs = errors.New("mls: welcome is not for this key package")
	// ErrNeedTree: the ratchet tree is neither in the message nor given.
	ErrNeedTree = errors.New("mls: ratchet tree is missing; fetch it and pass it in")
	// ErrUnknownPSK: a pre-shared key that the change needs is not known here.
	ErrUnknownPSK = errors.New("mls: pre-shared key is not known")
	// ErrUnknownProposal: a commit refers to a proposal that was not received.
	ErrUnknownProposal = errors.New("mls: commit refers to a proposal that was not received")
	// ErrSuite: the cipher suite is not supported, or not the group's.
	ErrSuite = errors.New("mls: cipher suite is not supported here")
	// ErrInvalidCommit: the proposals or the path of a commit break a rule.
	ErrInvalidCommit = errors.New("mls: commit is not valid")
	// ErrInvalidTree: the ratchet tree breaks a rule.
	ErrInvalidTree = errors.New("mls: ratchet tree is not valid")
	// ErrInvalidLeaf: a leaf node or key package breaks a rule.
	ErrInvalidLeaf = errors.New("mls: leaf node is not valid")
)
