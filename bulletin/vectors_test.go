// SPDX-License-Identifier: Apache-2.0

package bulletin_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"valise/bulletin"
	"valise/identity"
	"valise/internal/jws"
	"valise/internal/testenv/paper"
	"valise/manifest"
)

var update = flag.Bool("update", false, "write spec/vectors/bulletin.json anew")

// vectors is the file spec/vectors/bulletin.json.
type vectors struct {
	Root     string    `json:"root"`
	Founding vector    `json:"founding"`
	First    vector    `json:"first"`
	Second   vector    `json:"second"`
	Bulletin []vector  `json:"bulletins"`
	Refused  []refused `json:"refused"`
}

type vector struct {
	JWS     string `json:"jws"`
	Payload string `json:"payload"`
	Digest  string `json:"digest,omitempty"`
}

type refused struct {
	Document string `json:"document"`
	Why      string `json:"why"`
	JWS      string `json:"jws"`
}

// spec/bulletin.md, Section 9: what another implementation has to agree on.
func TestVectors(t *testing.T) {
	path := filepath.Join("..", "spec", "vectors", "bulletin.json")
	if *update {
		writeVectors(t, path)
	}
	data, err := os.ReadFile(path)
	var v vectors
	decoder := json.NewDecoder(bytes.NewReader(paper.Must(t, data, err)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&v); err != nil {
		t.Fatal(err)
	}
	der, err := base64.StdEncoding.DecodeString(v.Root)
	root, err := x509.ParseCertificate(paper.Must(t, der, err))
	if err != nil {
		t.Fatal(err)
	}
	first, err := manifest.ParseManifest([]byte(v.First.JWS), root)
	if err != nil {
		t.Fatal(err)
	}
	second, err := manifest.ParseManifest([]byte(v.Second.JWS), root)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Follows(first); err != nil {
		t.Error(err)
	}
	if got := fmt.Sprintf("%x", first.Digest()); got != v.First.Digest {
		t.Errorf("digest %s, want %s", got, v.First.Digest)
	}
	check := map[string]func(string) error{
		"founding": func(raw string) error { _, err := manifest.ParseFounding([]byte(raw), root); return err },
		"manifest": func(raw string) error { _, err := manifest.ParseManifest([]byte(raw), root); return err },
		"bulletin": func(raw string) error { _, err := bulletin.Verify([]byte(raw), second); return err },
	}
	if err := check["founding"](v.Founding.JWS); err != nil {
		t.Error(err)
	}
	for _, one := range v.Bulletin {
		if err := check["bulletin"](one.JWS); err != nil {
			t.Error(err)
		}
	}
	for _, one := range append([]vector{v.Founding, v.First, v.Second}, v.Bulletin...) {
		if got := payloadOf(t, one.JWS); got != one.Payload {
			t.Errorf("payload %s, want %s", got, one.Payload)
		}
	}
	if len(v.Refused) < 12 || len(v.Bulletin) < 2 {
		t.Errorf("%d refused, %d bulletins", len(v.Refused), len(v.Bulletin))
	}
	for _, one := range v.Refused {
		if err := check[one.Document](one.JWS); !errors.Is(err, manifest.ErrRefused) && !errors.Is(err, bulletin.ErrRefused) {
			t.Errorf("%s, %s: %v", one.Document, one.Why, err)
		}
	}
}

func payloadOf(t testing.TB, raw string) string {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(strings.Split(raw, ".")[1])
	return string(paper.Must(t, text, err))
}

func writeVectors(t *testing.T, path string) {
	a := paper.New(t, domain)
	at := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	lost := paper.NewKey(t)
	current := a.BulletinKey
	a.BulletinKey = lost
	one := a.Manifest(1, [32]byte{})
	one.Time = at
	first := a.SignRoot(one)
	digest, err := manifest.Digest(first)
	if err != nil {
		t.Fatal(err)
	}
	a.BulletinKey = current
	two := a.Manifest(2, digest)
	two.Time = at.Add(time.Hour)
	old := one.Bulletin[0]
	old.Until = two.Time
	two.Bulletin = append(two.Bulletin, old)
	second := a.SignRoot(two)
	b := full(t, a, 7)
	b.Time, b.Next, b.Manifest = two.Time.Add(time.Minute), two.Time.Add(90*time.Second), 2
	for i := range b.Devices {
		b.Devices[i].Since = at
	}
	for i := range b.People {
		b.People[i].Since = at
	}
	empty := &bulletin.Bulletin{Number: 6, Time: at, Next: at.Add(30 * time.Second), Manifest: 1}
	a.BulletinKey = lost
	early := a.SignBulletin(empty)
	late := *b
	tooLate := a.SignBulletin(&late)
	a.BulletinKey = current
	good := a.SignBulletin(b)
	founding := a.Founding(a.Officer("olga", identity.RoleOfficer), a.Officer("otto", identity.RoleOfficer))
	founding.Time = at

	make := func(raw []byte) vector { return vector{JWS: string(raw), Payload: payloadOf(t, string(raw))} }
	v := vectors{
		Root: base64.StdEncoding.EncodeToString(a.Root.Raw), Founding: make(a.SignRoot(founding)), First: make(first), Second: make(second),
		Bulletin: []vector{make(early), make(good)},
	}
	v.First.Digest = fmt.Sprintf("%x", digest)
	refuse := func(document, why string, raw []byte) {
		v.Refused = append(v.Refused, refused{document, why, string(raw)})
	}
	// sign makes the same document of other words, under a signature that is right.
	sign := func(raw []byte, key crypto.Signer, from, to string) []byte {
		m, err := jws.Parse(raw, bulletin.MaxSize)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(m.Payload, []byte(from)) {
			t.Fatalf("no %s in %s", from, m.Payload)
		}
		again, err := jws.Sign(t.Context(), key, m.Header, bytes.Replace(m.Payload, []byte(from), []byte(to), 1))
		return paper.Must(t, again, err)
	}
	refuse("bulletin", "by a key after the end of its use", tooLate)
	refuse("bulletin", "a manifest", second)
	refuse("bulletin", "a space", sign(good, current, `,"time"`, `, "time"`))
	refuse("bulletin", "a member twice", sign(good, current, `"number":7`, `"number":7,"number":7`))
	refuse("bulletin", "a member that is not known", sign(good, current, `"number":7`, `"number":7,"note":""`))
	refuse("bulletin", "members in another order", sign(good, current, `{"number":7,`, `{"next":1,"number":7,`))
	refuse("bulletin", "a number with an exponent", sign(good, current, `"number":7`, `"number":7e0`))
	refuse("bulletin", "number 0", sign(good, current, `"number":7`, `"number":0`))
	refuse("bulletin", "an active device", sign(good, current, `"state":"suspended","since"`, `"state":"active","since"`))
	refuse("bulletin", "a list that is null", sign(early, lost, `"people":[]`, `"people":null`))
	refuse("bulletin", "words that were changed", []byte(strings.Replace(string(good), ".", ".A", 1)))
	refuse("manifest", "number 1 with a predecessor", sign(second, a.RootKey, `"number":2`, `"number":1`))
	refuse("manifest", "another domain's origin", sign(second, a.RootKey, `"origin":"interieur`, `"origin":"justice`))
	refuse("manifest", "by the issuing key", sign(second, a.IssuerKey, `"number":2`, `"number":2`))
	refuse("manifest", "a founding record", []byte(v.Founding.JWS))
	refuse("founding", "no officers, and approvals", sign([]byte(v.Founding.JWS), a.RootKey, payloadMember(t, v.Founding.Payload, "officers"), `"officers":[]`))
	refuse("founding", "a manifest", first)
	text, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// payloadMember cuts a member whose value is a list out of a payload.
func payloadMember(t testing.TB, payload, name string) string {
	t.Helper()
	from := strings.Index(payload, `"`+name+`":[`)
	to := strings.Index(payload[from:], "]")
	if from < 0 || to < 0 {
		t.Fatalf("no %s in %s", name, payload)
	}
	return payload[from : from+to+1]
}
