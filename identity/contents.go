// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
)

// ReadDevice reads what a device's certificate says, and checks nothing of who
// issued it: for the record of what an authority decided to sign, where there is
// no signature yet. Everybody else calls [Trust.Device]. ID, Address, Tier,
// Clearance, Appraisal and Leaf are set.
func ReadDevice(cert *x509.Certificate) (*Device, error) {
	if err := checkUsage(cert, x509.ExtKeyUsageClientAuth, OIDDeviceUsage); err != nil {
		return nil, err
	}
	address, id, err := deviceNames(cert)
	if err != nil {
		return nil, err
	}
	appraisal, err := leafAppraisal(cert)
	if err != nil {
		return nil, err
	}
	clearance, err := leafClearance(cert)
	if err != nil {
		return nil, err
	}
	return &Device{ID: id, Address: address, Tier: appraisal.Tier, Clearance: clearance, Appraisal: appraisal, Leaf: cert}, nil
}

// ReadOfficer is ReadDevice for an officer's certificate. Address, Key, Role,
// Tier, Appraisal and Leaf are set.
func ReadOfficer(cert *x509.Certificate) (*Officer, error) {
	if err := checkOfficerUsage(cert); err != nil {
		return nil, err
	}
	address, id, err := deviceNames(cert)
	if err != nil {
		return nil, err
	}
	appraisal, err := leafAppraisal(cert)
	if err != nil {
		return nil, err
	}
	role, err := leafRole(cert)
	if err != nil {
		return nil, err
	}
	return &Officer{Address: address, Key: id, Role: role, Tier: appraisal.Tier, Appraisal: appraisal, Leaf: cert}, nil
}

// SerialHash is how a statement names a card, so that no serial number leaves the
// authority: the SHA-256 of "FORMAT:SERIAL", in hexadecimal.
func SerialHash(format string, serial uint64) string {
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%s:%d", format, serial)))
}
