// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"encoding/base64"
	"fmt"
	"time"

	"valise/mls"
)

// A tsMember is a device on ts-mls.
type tsMember struct {
	device
	peer *peer
}

func (m *tsMember) do(q request) (*answer, error) {
	m.t.Helper()
	q.Client = m.name
	return m.peer.do(m.t, q)
}

func (m *tsMember) must(q request) *answer {
	m.t.Helper()
	a, err := m.do(q)
	if err != nil {
		m.t.Fatalf("%s of %s: %v", q.Do, m.name, err)
	}
	return a
}

// request describes the device to the peer. Its keys are handed in: ts-mls's
// own ECDSA keys are compressed points, against RFC 9420, Section 5.1.1.
func (m *tsMember) request() request {
	m.t.Helper()
	now := time.Now()
	private, public := m.raw()
	psks := make(map[string][]byte)
	for id, psk := range m.psks {
		psks[base64.StdEncoding.EncodeToString([]byte(id))] = psk
	}
	q := request{
		Do: "new", Suite: uint16(m.suite), SignKey: private, PublicKey: public, Root: m.root.cert.Raw, PSKs: psks,
		NotBefore: now.Add(-time.Hour).Unix(), NotAfter: now.Add(time.Hour).Unix(),
	}
	if m.cred.Type == mls.CredentialX509 {
		q.Certificates = m.cred.Certificates
	} else {
		q.Identity = string(m.cred.Identity)
	}
	return q
}

func (m *tsMember) keyPackage() []byte {
	m.t.Helper()
	return m.must(m.request()).Message
}

func (m *tsMember) found(group []byte) {
	m.t.Helper()
	m.keyPackage()
	required := "basic"
	if m.cred.Type == mls.CredentialX509 {
		required = "x509"
	}
	m.must(request{Do: "create", Group: group, Required: required})
}

func (m *tsMember) join(welcome, tree []byte) error {
	m.t.Helper()
	_, err := m.do(request{Do: "join", Message: welcome, Tree: tree})
	return err
}

func (m *tsMember) info(withTree bool) (info, tree []byte) {
	m.t.Helper()
	a := m.must(request{Do: "info", WithTree: withTree})
	return a.Message, a.Tree
}

func (m *tsMember) external(info, tree []byte, resync bool) ([]byte, error) {
	m.t.Helper()
	m.keyPackage()
	a, err := m.do(request{Do: "external", Message: info, Tree: tree, Resync: resync, Data: []byte("from outside")})
	if err != nil {
		return nil, err
	}
	return a.Message, nil
}

func (c change) request(do string) request {
	return request{Do: do, Add: c.add, Remove: c.remove, PSK: c.psk, Private: c.private, WithTree: c.tree, Data: c.data}
}

func (m *tsMember) commit(c change) (committed, error) {
	m.t.Helper()
	a, err := m.do(c.request("commit"))
	if err != nil {
		return committed{}, err
	}
	return committed{a.Message, a.Welcome, a.Tree}, nil
}

func (m *tsMember) propose(c change) []byte {
	m.t.Helper()
	return m.must(c.request("propose")).Message
}

func (m *tsMember) encrypt(text, data []byte) []byte {
	m.t.Helper()
	return m.must(request{Do: "encrypt", Text: text, Data: data}).Message
}

func (m *tsMember) receive(message []byte) (received, error) {
	m.t.Helper()
	a, err := m.do(request{Do: "receive", Message: message})
	if err != nil {
		return received{}, err
	}
	if a.Kind == "applicationMessage" {
		return received{mls.ContentApplication, a.Text}, nil
	}
	return received{}, nil
}

func (m *tsMember) status() status {
	m.t.Helper()
	a := m.must(request{Do: "status", Label: exportLabel, Data: exportContext})
	return status{
		epoch: a.Epoch, authenticator: fmt.Sprintf("%x", a.Authenticator), exported: fmt.Sprintf("%x", a.Exported),
		keys: keyList(a.Keys), leaf: a.Leaf, active: a.Active,
	}
}
