// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// An Authority is one row of the table of trust: a domain and the roots that
// speak for it.
type Authority struct {
	Domain string
	Roots  []*x509.Certificate
}

// A Trust is the table of authorities. It holds one row for a network of its
// own and gains rows when domains are linked. It is safe for concurrent use.
type Trust struct {
	authorities []Authority

	mu    sync.Mutex
	cache map[[32]byte]*verified // guarded by mu; signatures checked, validity not
	// What stands above leaves, by the hash of the chain without its leaf; signatures
	// and places checked, validity not.
	issuers map[[32]byte]*path            // guarded by mu
	desk    map[[32]byte]*verifiedOfficer // guarded by mu; the same for officers
}

// verified is a chain all of whose checks but those of time passed.
type verified struct {
	chain  *path
	device Device
}

// A Device is what a device's chain proves. Its certificate and chain are
// shared with the Trust that returned it and must not be changed.
type Device struct {
	ID        DeviceID
	Address   Address
	Tier      Tier
	Clearance *Clearance // nil: none
	Appraisal Appraisal
	Leaf      *x509.Certificate
	Chain     [][]byte            // DER as given, leaf first
	Above     []*x509.Certificate // those above the leaf, the root last
}

// NewTrust returns the table of the given authorities.
func NewTrust(authorities ...Authority) *Trust {
	return &Trust{authorities: slices.Clone(authorities), cache: make(map[[32]byte]*verified), issuers: make(map[[32]byte]*path), desk: make(map[[32]byte]*verifiedOfficer)}
}

// For returns the table reduced to the authorities of one domain. Use it to
// check a gateway: a linked domain's authority must not speak for it.
func (t *Trust) For(domain string) *Trust {
	var rows []Authority
	for _, row := range t.authorities {
		if row.Domain == domain {
			rows = append(rows, row)
		}
	}
	return NewTrust(rows...)
}

// Device checks the chain of a device's certificate, DER, leaf first, the root
// with or without, as of the time at. The error is a *ChainError.
//
// The signatures of a chain are verified once and then remembered; validity is
// judged each time.
func (t *Trust) Device(chain [][]byte, at time.Time) (*Device, error) {
	return t.deviceAt(chain, nil, at)
}

// DeviceOf is Device for a chain that was parsed before, as crypto/tls does in a
// handshake: what it returns shares these certificates, which must not be changed.
func (t *Trust) DeviceOf(chain []*x509.Certificate, at time.Time) (*Device, error) {
	der := make([][]byte, len(chain))
	for i, cert := range chain {
		der[i] = cert.Raw
	}
	return t.deviceAt(der, chain, at)
}

func (t *Trust) deviceAt(chain [][]byte, parsed []*x509.Certificate, at time.Time) (*Device, error) {
	if err := checkSizes(chain); err != nil {
		return nil, err
	}
	key := chainKey(chain)
	t.mu.Lock()
	known := t.cache[key]
	t.mu.Unlock()
	if known == nil {
		var err error
		if known, err = t.verifyDevice(chain, parsed); err != nil {
			return nil, err
		}
		t.mu.Lock()
		if len(t.cache) >= maxCached {
			clear(t.cache)
		}
		t.cache[key] = known
		t.mu.Unlock()
	}
	if err := known.chain.validAt(at); err != nil {
		return nil, err
	}
	device := known.device
	return &device, nil
}

// Gateway checks the chain of a gateway's certificate and that it stands for
// name, a DNS name or an IP address, as of the time at. The error is a
// *ChainError.
func (t *Trust) Gateway(chain [][]byte, name string, at time.Time) (*x509.Certificate, error) {
	p, err := t.build(chain, nil)
	if err != nil {
		return nil, err
	}
	leaf := p.leaf()
	if err := checkUsage(leaf, x509.ExtKeyUsageServerAuth, OIDGatewayUsage); err != nil {
		return nil, err
	}
	if _, err := gatewayContents(leaf); err != nil {
		return nil, err
	}
	if !namesGateway(leaf, name) {
		return nil, refuse(0, ReasonWrongName, "the certificate is for %q and %q, not for %q", leaf.DNSNames, leaf.IPAddresses, clip(name))
	}
	if err := p.validAt(at); err != nil {
		return nil, err
	}
	return leaf, nil
}

// IssuedAt returns the time as of which a group member's chain is judged, its
// leaf's notBefore: expiry governs connections, not membership.
func IssuedAt(chain [][]byte) (time.Time, error) {
	if err := checkSizes(chain); err != nil {
		return time.Time{}, err
	}
	leaf, err := parseCertificate(0, chain[0])
	if err != nil {
		return time.Time{}, err
	}
	return leaf.NotBefore, nil
}

func (t *Trust) verifyDevice(chain [][]byte, parsed []*x509.Certificate) (*verified, error) {
	p, err := t.build(chain, parsed)
	if err != nil {
		return nil, err
	}
	leaf := p.leaf()
	if err := checkUsage(leaf, x509.ExtKeyUsageClientAuth, OIDDeviceUsage); err != nil {
		return nil, err
	}
	address, id, err := deviceNames(leaf)
	if err != nil {
		return nil, err
	}
	if address.Domain() != p.domain {
		return nil, refuse(0, ReasonWrongDomain, "address %s is outside %s, the domain of the authority that issued it", address, p.domain)
	}
	appraisal, err := leafAppraisal(leaf)
	if err != nil {
		return nil, err
	}
	clearance, err := leafClearance(leaf)
	if err != nil {
		return nil, err
	}
	return &verified{p, Device{
		ID: id, Address: address, Tier: appraisal.Tier, Clearance: clearance,
		Appraisal: appraisal, Leaf: leaf, Chain: p.given(len(chain)), Above: p.certs[1:],
	}}, nil
}

// deviceNames returns the address and the device id of a device's certificate
// and checks that they are its only names and that the id is its key's.
func deviceNames(leaf *x509.Certificate) (Address, DeviceID, error) {
	if len(leaf.EmailAddresses) == 0 {
		return Address{}, DeviceID{}, refuse(0, ReasonNoAddress, "the certificate holds no address")
	}
	address, err := ParseAddress(leaf.EmailAddresses[0])
	if err != nil {
		return Address{}, DeviceID{}, refuse(0, ReasonNoAddress, "%w", err)
	}
	id, err := DeviceIDOf(leaf.PublicKey)
	if err != nil {
		return Address{}, DeviceID{}, refuse(0, ReasonAlgorithm, "%w", err)
	}
	if sha256.Sum256(leaf.RawSubjectPublicKeyInfo) != id {
		return Address{}, DeviceID{}, refuse(0, ReasonMalformed, "the public key is not in its canonical encoding")
	}
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != id.URL().String() {
		return Address{}, DeviceID{}, refuse(0, ReasonWrongDevice, "the device URI is not that of the certificate's key, %s", id.URL())
	}
	if want, err := deviceAltName(address, id); err != nil || !hasExtension(leaf, oidSubjectAltName, true, want) {
		return Address{}, DeviceID{}, refuse(0, ReasonMalformed, "the subject alternative name must be critical and hold one address and one device URI only")
	}
	return address, id, nil
}

func leafAppraisal(leaf *x509.Certificate) (Appraisal, error) {
	for _, ext := range leaf.Extensions {
		if ext.Id.Equal(OIDAppraisal) {
			appraisal, err := ParseAppraisal(ext.Value)
			if err != nil {
				return Appraisal{}, refuse(0, ReasonNoAppraisal, "%w", err)
			}
			return appraisal, nil
		}
	}
	return Appraisal{}, refuse(0, ReasonNoAppraisal, "the certificate holds no appraisal result")
}

func leafClearance(leaf *x509.Certificate) (*Clearance, error) {
	for _, ext := range leaf.Extensions {
		if ext.Id.Equal(oidDirectoryAttributes) {
			clearance, err := parseDirectoryAttributes(ext.Value)
			if err != nil {
				return nil, refuse(0, ReasonMalformed, "%w", err)
			}
			return clearance, nil
		}
	}
	return nil, nil
}

func namesGateway(leaf *x509.Certificate, name string) bool {
	if addr, err := netip.ParseAddr(name); err == nil {
		return slices.ContainsFunc(leaf.IPAddresses, func(ip net.IP) bool {
			has, ok := netip.AddrFromSlice(ip)
			return ok && has.Unmap() == addr.Unmap()
		})
	}
	return slices.Contains(leaf.DNSNames, name)
}

// given returns the first n certificates of a path in DER: those that it was built from.
func (p *path) given(n int) [][]byte {
	chain := make([][]byte, n)
	for i := range chain {
		chain[i] = p.certs[i].Raw
	}
	return chain
}

// ReasonOf returns the reason of a refused chain, and "" for any other error.
func ReasonOf(err error) Reason {
	if chainErr, ok := errors.AsType[*ChainError](err); ok {
		return chainErr.Reason
	}
	return ""
}
