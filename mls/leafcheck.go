// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"fmt"
	"slices"
	"time"
)

// checkLeaf validates one leaf by itself, RFC 9420, Section 7.3: its source
// (0 means that it stands in a tree), keys, signature, lifetime, credential and
// extensions. What concerns other leaves is checked by the tree.
func (s *suiteParams) checkLeaf(l *LeafNode, source LeafSource, auth Authenticator, groupID []byte, leaf LeafIndex, at time.Time) error {
	if err := s.checkLeafAlone(l, source, groupID, leaf, at); err != nil {
		return err
	}
	return authenticate(auth, l.Credential, l.SignatureKey)
}

// checkLeafAlone is checkLeaf without asking the caller about the credential.
func (s *suiteParams) checkLeafAlone(l *LeafNode, source LeafSource, groupID []byte, leaf LeafIndex, at time.Time) error {
	if source != 0 && l.Source != source {
		return fmt.Errorf("%w: source is %d, must be %d here", ErrInvalidLeaf, l.Source, source)
	}
	if err := s.checkHPKEKey(l.EncryptionKey); err != nil {
		return err
	}
	if err := s.checkSignatureKey(l.SignatureKey); err != nil {
		return err
	}
	if err := l.verify(s, groupID, leaf); err != nil {
		return err
	}
	if err := l.checkOwnCapabilities(s); err != nil {
		return err
	}
	if err := l.checkLifetime(source, at); err != nil {
		return err
	}
	return s.bindCredential(l.Credential, l.SignatureKey)
}

// checkOwnCapabilities: a leaf must list what it uses itself, RFC 9420,
// Sections 7.2 and 7.3.
func (l *LeafNode) checkOwnCapabilities(s *suiteParams) error {
	c := &l.Capabilities
	if !slices.Contains(c.Versions, versionMLS10) || !slices.Contains(c.Suites, s.id) {
		return fmt.Errorf("%w: capabilities lack this version or suite", ErrInvalidLeaf)
	}
	if !slices.Contains(c.Credentials, l.Credential.Type) {
		return fmt.Errorf("%w: capabilities lack the leaf's own credential type", ErrInvalidLeaf)
	}
	for _, e := range l.Extensions {
		if !c.extension(e.Type) {
			return fmt.Errorf("%w: capabilities lack the leaf's own extension 0x%04x", ErrInvalidLeaf, uint16(e.Type))
		}
	}
	return nil
}

// checkLifetime refuses a KeyPackage's leaf outside of its lifetime, or with
// a lifetime longer than MaxLifetime, RFC 9420, Sections 7.2 and 7.3. A leaf
// that stands in a tree may have expired: it was checked when it was added, and
// a member that has been quiet since must not lock joiners out.
func (l *LeafNode) checkLifetime(source LeafSource, at time.Time) error {
	if l.Source != LeafKeyPackage || at.IsZero() {
		return nil
	}
	now := at.Unix()
	late := source != 0 && uint64(now) > l.Lifetime.NotAfter
	if now < 0 || uint64(now) < l.Lifetime.NotBefore || late {
		return fmt.Errorf("%w: it is not valid at %s", ErrLifetime, at.UTC().Format(time.RFC3339))
	}
	if l.Lifetime.NotAfter-l.Lifetime.NotBefore > uint64(MaxLifetime/time.Second) {
		return fmt.Errorf("%w: it is longer than %d days", ErrLifetime, MaxLifetime/(24*time.Hour))
	}
	return nil
}

// checkParameters: a leaf must support what the group requires and uses, RFC
// 9420, Sections 7.3, 11.1 and 13.4.
func (l *LeafNode) checkParameters(ext []Extension, p *parameters) error {
	c := &l.Capabilities
	for _, e := range ext {
		if !c.extension(e.Type) {
			return fmt.Errorf("%w: capabilities lack group extension 0x%04x", ErrInvalidLeaf, uint16(e.Type))
		}
	}
	for _, t := range p.required.Extensions {
		if !c.extension(t) {
			return fmt.Errorf("%w: capabilities lack required extension 0x%04x", ErrInvalidLeaf, uint16(t))
		}
	}
	for _, t := range p.required.Proposals {
		if !c.proposal(t) {
			return fmt.Errorf("%w: capabilities lack required proposal 0x%04x", ErrInvalidLeaf, uint16(t))
		}
	}
	for _, t := range p.required.Credentials {
		if !slices.Contains(c.Credentials, t) {
			return fmt.Errorf("%w: capabilities lack required credential 0x%04x", ErrInvalidLeaf, uint16(t))
		}
	}
	return nil
}

// checkReplacedType is checkCredentialTypes where it held before and one leaf
// took the place of another: if that changes no type, it still holds.
func (t *tree) checkReplacedType(old, leaf *LeafNode) error {
	if old != nil && old.Credential.Type == leaf.Credential.Type &&
		slices.Equal(old.Capabilities.Credentials, leaf.Capabilities.Credentials) {
		return nil
	}
	return t.checkCredentialTypes()
}

// checkCredentialTypes: every member must support the credential types of all
// members, RFC 9420, Section 7.3. One pass collects the types, one compares.
func (t *tree) checkCredentialTypes() error {
	var used []CredentialType
	for _, l := range t.leaves() {
		if !slices.Contains(used, l.Credential.Type) {
			used = append(used, l.Credential.Type)
		}
	}
	for i, l := range t.leaves() {
		for _, ct := range used {
			if !slices.Contains(l.Capabilities.Credentials, ct) {
				return fmt.Errorf("%w: leaf %d does not support credential type %d of another member", ErrInvalidLeaf, i, ct)
			}
		}
	}
	return nil
}
