// SPDX-License-Identifier: Apache-2.0

package mls

import "crypto/hpke"

// epochSecrets are the secrets that an epoch keeps, RFC 9420, Section 8, Table
// 4. The encryption secret goes into the secret tree at once, and the joiner,
// welcome and epoch secrets are not kept at all (Section 9.2).
type epochSecrets struct {
	initSecret, senderData, exporter, external []byte
	confirmationKey, membershipKey             []byte
	resumption, authenticator                  []byte
}

// A joiner leads to one epoch: the joiner secret with the PSKs mixed in.
type joiner struct {
	suite   *suiteParams
	secret  []byte // joiner_secret
	member  []byte // Extract(joiner_secret, psk_secret)
	welcome []byte // welcome_secret
}

// newJoiner is the first half of the key schedule of RFC 9420, Section 8.
func (s *suiteParams) newJoiner(initSecret, commitSecret, pskSecret, context []byte) *joiner {
	secret := s.expandWithLabel(s.extract(initSecret, commitSecret), "joiner", context, s.nh())
	return s.joinerFrom(secret, pskSecret)
}

func (s *suiteParams) joinerFrom(secret, pskSecret []byte) *joiner {
	member := s.extract(secret, pskSecret)
	return &joiner{s, secret, member, s.deriveSecret(member, "welcome")}
}

// epoch is the second half of the key schedule of RFC 9420, Section 8.
func (j *joiner) epoch(context []byte) (*epochSecrets, []byte) {
	return j.suite.epochFrom(j.suite.expandWithLabel(j.member, "epoch", context, j.suite.nh()))
}

// epochFrom derives the secrets of an epoch and its encryption secret.
func (s *suiteParams) epochFrom(epoch []byte) (*epochSecrets, []byte) {
	d := func(label string) []byte { return s.deriveSecret(epoch, label) }
	return &epochSecrets{
		initSecret: d("init"), senderData: d("sender data"), exporter: d("exporter"), external: d("external"),
		confirmationKey: d("confirm"), membershipKey: d("membership"),
		resumption: d("resumption"), authenticator: d("authentication"),
	}, d("encryption")
}

// confirmationTag is the MAC of RFC 9420, Section 6.1.
func (e *epochSecrets) confirmationTag(s *suiteParams, confirmed []byte) []byte {
	return s.mac(e.confirmationKey, confirmed)
}

// export is MLS-Exporter of RFC 9420, Section 8.5.
func (e *epochSecrets) export(s *suiteParams, label string, context []byte, n int) []byte {
	return s.expandWithLabel(s.deriveSecret(e.exporter, label), "exported", s.sum(context), n)
}

// zero is the all-zero secret that stands in for what is absent.
func (s *suiteParams) zero() []byte { return make([]byte, s.nh()) }

const externalInitLabel = "MLS 1.0 external init secret"

// externalInit makes an init secret for a group from outside, RFC 9420,
// Section 8.3.
func (s *suiteParams) externalInit(externalPub []byte) (kemOutput, initSecret []byte, err error) {
	s.counts.add(opSeal, 0)
	pk, err := s.kem.NewPublicKey(externalPub)
	if err != nil {
		return nil, nil, err
	}
	enc, sender, err := hpke.NewSender(pk, s.kdf, s.aead, nil)
	if err != nil {
		return nil, nil, err
	}
	secret, err := sender.Export(externalInitLabel, s.nh())
	return enc, secret, err
}

// acceptExternalInit recovers that init secret inside of the group.
func (s *suiteParams) acceptExternalInit(externalSecret, kemOutput []byte) ([]byte, error) {
	k, err := s.deriveKeyPair(externalSecret)
	if err != nil {
		return nil, err
	}
	s.counts.add(opOpen, 0)
	rcpt, err := hpke.NewRecipient(kemOutput, k.key, s.kdf, s.aead, nil)
	if err != nil {
		return nil, err
	}
	return rcpt.Export(externalInitLabel, s.nh())
}

// externalPub is the group's external public key, RFC 9420, Section 8.
func (e *epochSecrets) externalPub(s *suiteParams) ([]byte, error) {
	k, err := s.deriveKeyPair(e.external)
	if err != nil {
		return nil, err
	}
	return k.public(), nil
}
