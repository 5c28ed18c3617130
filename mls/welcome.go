// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"bytes"
	"fmt"
)

// A welcome is Welcome of RFC 9420, Section 12.4.3.1:
//
//	struct {
//	    CipherSuite cipher_suite;
//	    EncryptedGroupSecrets secrets<V>;
//	    opaque encrypted_group_info<V>;
//	} Welcome;
type welcome struct {
	suite     Suite
	secrets   []encryptedSecrets
	groupInfo []byte
}

// encryptedSecrets is EncryptedGroupSecrets of RFC 9420, Section 12.4.3.1.
type encryptedSecrets struct {
	newMember []byte // KeyPackageRef
	secrets   hpkeCiphertext
}

func readWelcome(r *reader) *welcome {
	return &welcome{Suite(r.u16()), readVector(r, func(r *reader) encryptedSecrets {
		return encryptedSecrets{r.opaque(), readHPKECiphertext(r)}
	}), r.opaque()}
}

func (w *welcome) append(b []byte) []byte {
	b = appendVector(appendU16(b, uint16(w.suite)), w.secrets, func(b []byte, e encryptedSecrets) []byte {
		return e.secrets.append(appendOpaque(b, e.newMember))
	})
	return appendOpaque(b, w.groupInfo)
}

// WelcomeRecipients returns the references of the KeyPackages that a Welcome is
// for, in its order: what a relay needs to deliver it. Compare with
// KeyPackage.Ref.
func WelcomeRecipients(message []byte) ([][]byte, error) {
	m, err := parseMessage(message)
	if err != nil {
		return nil, err
	}
	if m.welcome == nil {
		return nil, fmt.Errorf("%w: message is not a welcome", ErrMalformed)
	}
	var refs [][]byte
	for _, e := range m.welcome.secrets {
		refs = append(refs, e.newMember)
	}
	return refs, nil
}

// groupSecrets is GroupSecrets of RFC 9420, Section 12.4.3.1:
//
//	struct {
//	    opaque joiner_secret<V>;
//	    optional<PathSecret> path_secret;
//	    PreSharedKeyID psks<V>;
//	} GroupSecrets;
type groupSecrets struct {
	joiner  []byte
	path    []byte // nil if absent
	hasPath bool
	psks    []PSKID
}

func readGroupSecrets(r *reader) *groupSecrets {
	g := &groupSecrets{joiner: r.opaque()}
	if g.hasPath = r.optional(); g.hasPath {
		g.path = r.opaque()
	}
	g.psks = readVector(r, readPSKID)
	return g
}

func (g *groupSecrets) marshal() []byte {
	b := appendOptional(appendOpaque(nil, g.joiner), g.hasPath)
	if g.hasPath {
		b = appendOpaque(b, g.path)
	}
	return appendVector(b, g.psks, func(b []byte, p PSKID) []byte { return p.append(b) })
}

// seal and open the GroupInfo with keys of the welcome secret, RFC 9420,
// Section 12.4.3.1.
func (j *joiner) sealGroupInfo(info *groupInfo) []byte {
	k := j.welcomeKey()
	return j.suite.gcm(k.key).Seal(nil, k.nonce, info.append(nil), nil)
}

func (j *joiner) openGroupInfo(sealed []byte) (*groupInfo, error) {
	k := j.welcomeKey()
	plain, err := j.suite.gcm(k.key).Open(nil, k.nonce, sealed, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: group info of a welcome", ErrDecrypt)
	}
	return decode(plain, readGroupInfo)
}

func (j *joiner) welcomeKey() messageKey {
	return messageKey{
		j.suite.expandWithLabel(j.welcome, "key", nil, j.suite.nk),
		j.suite.expandWithLabel(j.welcome, "nonce", nil, nonceSize),
	}
}

// openSecrets finds and decrypts what a Welcome holds for a KeyPackage.
func (w *welcome) openSecrets(s *suiteParams, kp *KeyPackage, initKey *privKey) (*groupSecrets, error) {
	ref, err := kp.Ref()
	if err != nil {
		return nil, err
	}
	if w.suite != kp.Suite {
		return nil, fmt.Errorf("%w: welcome is for %v", ErrSuite, w.suite)
	}
	for _, e := range w.secrets {
		if !bytes.Equal(e.newMember, ref) {
			continue
		}
		plain, err := s.decryptWithLabel(initKey.key, "Welcome", w.groupInfo, e.secrets)
		if err != nil {
			return nil, err
		}
		return decode(plain, readGroupSecrets)
	}
	return nil, ErrNotForUs
}
