// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// A DeviceProfile is what varies in a device's certificate. Everything else is
// fixed: version 3, empty subject, digitalSignature, clientAuth and our device
// usage, and a critical subjectAltName of exactly one rfc822Name and one URI.
type DeviceProfile struct {
	Address      Address
	PublicKey    crypto.PublicKey // ECDSA on P-256 or P-384
	Clearance    *Clearance       // nil: none
	Tier         Tier
	EvidenceHash [32]byte
	PolicyHash   [32]byte
	Serial       *big.Int // positive, at most 20 octets
	NotBefore    time.Time
	NotAfter     time.Time
}

// Template returns the certificate for x509.CreateCertificate, to be signed
// with p.PublicKey as the subject's key.
func (p *DeviceProfile) Template() (*x509.Certificate, error) {
	if p.Address.IsZero() {
		return nil, errors.New("device certificate: no address")
	}
	template, err := baseTemplate(p.PublicKey, p.Serial, p.NotBefore, p.NotAfter)
	if err != nil {
		return nil, fmt.Errorf("device certificate: %w", err)
	}
	id, err := DeviceIDOf(p.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("device certificate: %w", err)
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	template.UnknownExtKeyUsage = []asn1.ObjectIdentifier{OIDDeviceUsage}
	template.EmailAddresses = []string{p.Address.String()}
	template.URIs = []*url.URL{id.URL()}
	if err := addAppraisal(template, Appraisal{p.Tier, p.EvidenceHash, p.PolicyHash}); err != nil {
		return nil, fmt.Errorf("device certificate: %w", err)
	}
	if p.Clearance != nil {
		value, err := marshalDirectoryAttributes(p.Clearance)
		if err != nil {
			return nil, fmt.Errorf("device certificate: %w", err)
		}
		template.ExtraExtensions = append(template.ExtraExtensions,
			pkix.Extension{Id: oidDirectoryAttributes, Value: value})
	}
	return template, nil
}

// A GatewayProfile is what varies in a gateway's certificate: serverAuth and
// our gateway usage are fixed, and names stand in the subjectAltName only.
type GatewayProfile struct {
	Name         string   // DNS name or IP address
	More         []string // further names of the same kinds
	PublicKey    crypto.PublicKey
	Tier         Tier
	EvidenceHash [32]byte
	PolicyHash   [32]byte
	Serial       *big.Int
	NotBefore    time.Time
	NotAfter     time.Time
}

// Template returns the certificate for x509.CreateCertificate.
func (p *GatewayProfile) Template() (*x509.Certificate, error) {
	template, err := baseTemplate(p.PublicKey, p.Serial, p.NotBefore, p.NotAfter)
	if err != nil {
		return nil, fmt.Errorf("gateway certificate: %w", err)
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	template.UnknownExtKeyUsage = []asn1.ObjectIdentifier{OIDGatewayUsage}
	names := append([]string{p.Name}, p.More...)
	if len(names) > MaxGatewayNames {
		return nil, fmt.Errorf("gateway certificate: %d names, at most %d are allowed", len(names), MaxGatewayNames)
	}
	for _, name := range names {
		if addr, err := netip.ParseAddr(name); err == nil && addr.Zone() == "" {
			template.IPAddresses = append(template.IPAddresses, addr.AsSlice())
		} else if err := CheckDomain(name); err == nil {
			template.DNSNames = append(template.DNSNames, name)
		} else {
			return nil, fmt.Errorf("gateway certificate: %q is neither an IP address nor a DNS name in lower case", clip(name))
		}
	}
	if err := addAppraisal(template, Appraisal{p.Tier, p.EvidenceHash, p.PolicyHash}); err != nil {
		return nil, fmt.Errorf("gateway certificate: %w", err)
	}
	return template, nil
}

// A CAProfile is what varies in the certificates of an authority's own keys.
type CAProfile struct {
	Domain    string
	PublicKey crypto.PublicKey
	Serial    *big.Int
	NotBefore time.Time
	NotAfter  time.Time
}

// RootTemplate returns the template of the self-signed root that clients pin:
// it may sign certificates, one level of issuers below it.
func RootTemplate(p CAProfile) (*x509.Certificate, error) {
	return caTemplate(p, "Valise Root", 1, x509.KeyUsageCertSign|x509.KeyUsageCRLSign)
}

// IssuerTemplate returns the template of the key that signs devices' and
// gateways' certificates, revocation lists and OCSP answers.
func IssuerTemplate(p CAProfile) (*x509.Certificate, error) {
	return caTemplate(p, "Valise Issuer", 0, x509.KeyUsageCertSign|x509.KeyUsageCRLSign|x509.KeyUsageDigitalSignature)
}

// Fingerprint returns the SHA-256 of a certificate in DER as hexadecimal, the
// form in which an invitation names the authority's root.
func Fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

func caTemplate(p CAProfile, name string, below int, usage x509.KeyUsage) (*x509.Certificate, error) {
	if err := CheckDomain(p.Domain); err != nil {
		return nil, fmt.Errorf("authority's certificate: %w", err)
	}
	template, err := baseTemplate(p.PublicKey, p.Serial, p.NotBefore, p.NotAfter)
	if err != nil {
		return nil, fmt.Errorf("authority's certificate: %w", err)
	}
	template.Subject = caName(p.Domain, name)
	template.KeyUsage = usage
	template.IsCA = true
	template.MaxPathLen = below
	template.MaxPathLenZero = below == 0
	return template, nil
}

// caName writes a domain as domain components, most significant first (RFC
// 2247, Section 2), which unlike organization has room for any domain.
func caName(domain, common string) pkix.Name {
	labels := strings.Split(domain, ".")
	var name pkix.Name
	for i := len(labels) - 1; i >= 0; i-- {
		name.ExtraNames = append(name.ExtraNames, pkix.AttributeTypeAndValue{
			Type:  oidDomainComponent,
			Value: asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte(labels[i])},
		})
	}
	name.ExtraNames = append(name.ExtraNames, pkix.AttributeTypeAndValue{
		Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: common,
	})
	return name
}

func baseTemplate(key crypto.PublicKey, serial *big.Int, notBefore, notAfter time.Time) (*x509.Certificate, error) {
	spki, err := marshalKey(key)
	if err != nil {
		return nil, err
	}
	if err := checkSerial(serial); err != nil {
		return nil, err
	}
	notBefore, notAfter = notBefore.UTC().Truncate(time.Second), notAfter.UTC().Truncate(time.Second)
	if notBefore.IsZero() || !notAfter.After(notBefore) {
		return nil, fmt.Errorf("validity from %v to %v is empty", notBefore, notAfter)
	}
	id := sha256.Sum256(spki)
	return &x509.Certificate{
		PublicKey:             key,
		SerialNumber:          serial,
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		SubjectKeyId:          id[:20], // RFC 7093, Section 2, method 4
		BasicConstraintsValid: true,
	}, nil
}

// checkSerial applies RFC 5280, Section 4.1.2.2.
func checkSerial(serial *big.Int) error {
	if serial == nil || serial.Sign() <= 0 || serial.BitLen() > 8*maxSerialOctets-1 {
		return fmt.Errorf("the serial number must be positive and fit %d octets", maxSerialOctets)
	}
	return nil
}

func addAppraisal(template *x509.Certificate, result Appraisal) error {
	value, err := result.Marshal()
	if err != nil {
		return err
	}
	template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: OIDAppraisal, Value: value})
	return nil
}
