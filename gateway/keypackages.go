// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"math"

	"valise/gateway/group"
	"valise/gateway/mailbox"
	"valise/identity"
	"valise/mls"
	"valise/wire"
)

// checkKeyPackages takes KeyPackages of the sending device only: suite known,
// signatures right, lifetime running (RFC 9420, Section 10.1), the leaf's
// certificate that of the connection's key.
func (s *session) checkKeyPackages(sub *mailbox.Submission, req *wire.PutKeyPackages) error {
	for _, raw := range req.Packages {
		kp, err := mls.ParseKeyPackage(raw)
		if err != nil {
			return badPackage("malformed_key_package", err)
		}
		if !kp.Suite.Supported() {
			return badPackage("unknown_suite", nil)
		}
		if err := kp.Verify(ownLeaf{s}, s.g.now()); err != nil {
			return badPackage("invalid_key_package", err)
		}
		if kp.LastResort() != req.LastResort {
			return badPackage("last_resort_mismatch", nil)
		}
		// A time beyond what the store can hold is as good as none.
		expires := int64(min(kp.Leaf.Lifetime.NotAfter, math.MaxInt64))
		sub.KeyPackages = append(sub.KeyPackages, mailbox.KeyPackage{
			Device: s.device.ID, Suite: uint16(kp.Suite), LastResort: req.LastResort, Expires: expires, Package: raw,
		})
	}
	return nil
}

func badPackage(reason string, err error) error {
	return &group.Refusal{Code: wire.InvalidKeyPackage, Reason: reason, Err: err}
}

// ownLeaf authenticates leaves of the session's own device only.
type ownLeaf struct{ s *session }

type notOwnError struct{}

func (notOwnError) Error() string {
	return "the leaf's certificate is not that of the device that sends it"
}

// Authenticate implements mls.Authenticator.
func (o ownLeaf) Authenticate(c mls.Credential, _ []byte) error {
	if c.Type != mls.CredentialX509 {
		return notOwnError{}
	}
	at, err := identity.IssuedAt(c.Certificates)
	if err != nil {
		return err
	}
	device, err := o.s.g.cfg.Trust.Device(c.Certificates, at)
	if err != nil {
		return err
	}
	if device.ID != o.s.device.ID {
		return notOwnError{}
	}
	return nil
}
