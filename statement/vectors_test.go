// SPDX-License-Identifier: Apache-2.0

package statement

import (
	"bytes"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"valise/identity"
)

var update = flag.Bool("update", false, "write spec/vectors/statement.json anew")

// The file spec/vectors/statement.json: statements of one authority with what
// they say, and texts that are refused.
type vectors struct {
	Root       string          `json:"root"` // DER in base64
	At         int64           `json:"at"`   // as of when to verify
	Statements []vector        `json:"statements"`
	Refused    []refusedVector `json:"refused"`
}

type vector struct {
	Kind      Kind     `json:"kind"`
	Statement string   `json:"statement"`
	Signer    string   `json:"signer"`
	Role      string   `json:"role"`
	Payload   string   `json:"payload"`
	Digest    string   `json:"digest"`
	Words     []string `json:"words"`
}

type refusedVector struct {
	Why       string `json:"why"`
	Reason    Reason `json:"reason"`
	Statement string `json:"statement"`
}

// spec/statement.md, Section 10: what another implementation has to agree on.
func TestVectors(t *testing.T) {
	path := filepath.Join("..", "spec", "vectors", "statement.json")
	if *update {
		writeVectors(t, path)
	}
	data, err := os.ReadFile(path)
	must(t, err)
	var v vectors
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	must(t, d.Decode(&v))
	der, err := base64.StdEncoding.DecodeString(v.Root)
	must(t, err)
	root, err := x509.ParseCertificate(der)
	must(t, err)
	id, err := identity.ParseDeviceID(identity.Fingerprint(root))
	must(t, err)
	trust := identity.NewTrust(identity.Authority{Domain: "interieur.example", Roots: []*x509.Certificate{root}})
	at := time.Unix(v.At, 0)
	seen := make(map[Kind]bool)
	for _, one := range v.Statements {
		seen[one.Kind] = true
		s, err := Verify([]byte(one.Statement), trust, id, at)
		if err != nil {
			t.Errorf("%s: %v", one.Kind, err)
			continue
		}
		payload, err := base64.RawURLEncoding.DecodeString(strings.Split(one.Statement, ".")[1])
		must(t, err)
		if s.Body.Kind() != one.Kind || s.Signer.Address.String() != one.Signer || string(s.Signer.Role) != one.Role ||
			fmt.Sprintf("%x", BodyDigest(s.Body)) != one.Digest || !slices.Equal(s.Body.Words(), one.Words) || string(payload) != one.Payload {
			t.Errorf("%s: %s by %s, digest %x, words %q", one.Kind, payload, s.Signer.Address, BodyDigest(s.Body), s.Body.Words())
		}
	}
	if len(seen) != len(Kinds()) || len(v.Refused) < 10 {
		t.Errorf("vectors of %d kinds, %d refused", len(seen), len(v.Refused))
	}
	for _, one := range v.Refused {
		if _, err := Verify([]byte(one.Statement), trust, id, at); ReasonOf(err) != one.Reason {
			t.Errorf("%s: %v, want %s", one.Why, err, one.Reason)
		}
	}
}

func writeVectors(t *testing.T, path string) {
	h := newHouse(t, elliptic.P384())
	v := vectors{Root: base64.StdEncoding.EncodeToString(h.rootCert.Raw), At: noon.Unix()}
	all := bodies(t)
	var refusal []byte
	for _, kind := range Kinds() {
		role := Allowed(kind)[0]
		raw := h.sign(h.signer(kind), all[kind])
		if kind == KindRefusal {
			refusal = raw
		}
		payload, err := base64.RawURLEncoding.DecodeString(strings.Split(string(raw), ".")[1])
		must(t, err)
		v.Statements = append(v.Statements, vector{kind, string(raw), "olga@interieur.example", string(role), string(payload), fmt.Sprintf("%x", BodyDigest(all[kind])), all[kind].Words()})
	}
	refuse := func(why string, reason Reason, raw []byte) {
		v.Refused = append(v.Refused, refusedVector{why, reason, string(raw)})
	}
	respell := func(part int, from, to string) []byte {
		parts := strings.Split(string(refusal), ".")
		text, err := base64.RawURLEncoding.DecodeString(parts[part])
		must(t, err)
		if !bytes.Contains(text, []byte(from)) {
			t.Fatalf("no %s in %s", from, text)
		}
		parts[part] = base64.RawURLEncoding.EncodeToString(bytes.Replace(text, []byte(from), []byte(to), 1))
		return []byte(strings.Join(parts, "."))
	}
	refuse("a space in the payload", ReasonMalformed, respell(1, `,"id"`, `, "id"`))
	refuse("a member twice", ReasonMalformed, respell(1, `"reason":`, `"reason":"a","reason":`))
	refuse("a member in another case", ReasonMalformed, respell(1, `"reason":`, `"Reason":`))
	refuse("a member that is not known", ReasonMalformed, respell(1, `"reason":`, `"note":"","reason":`))
	refuse("an escape that is not needed", ReasonMalformed, respell(1, `"reason":"`, `"reason":"\u0061`))
	refuse("invisible text", ReasonMalformed, respell(1, `"reason":"`, "\"reason\":\"\u202e"))
	refuse("a critical member in the header", ReasonMalformed, respell(0, `{"alg"`, `{"crit":["b64"],"alg"`))
	refuse("a typ that is not known", ReasonMalformed, respell(0, `valise-refusal`, `valise-pardon`))
	refuse("no algorithm", ReasonMalformed, respell(0, `ES384`, `none`))
	refuse("the other curve's algorithm", ReasonMalformed, respell(0, `ES384`, `ES256`))
	refuse("padding", ReasonMalformed, append(slices.Clone(refusal), '='))
	refuse("a payload that was not signed", ReasonSignature, respell(1, `"reason":"`, `"reason":"not `))
	refuse("a role that may not sign this", ReasonRole, h.sign(h.person("adam", identity.RoleAdministrator), all[KindRefusal]))
	late := h.head()
	late.Time, late.Expires = noon.Add(-time.Hour), noon
	p := h.person("olga", identity.RoleOfficer)
	raw, err := Sign(t.Context(), p.key, p.chain, late, all[KindRefusal])
	must(t, err)
	refuse("too late", ReasonExpired, raw)
	other := newHouse(t, elliptic.P384())
	refuse("another authority's officer", ReasonSigner, other.sign(other.person("olga", identity.RoleOfficer), all[KindRefusal]))
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	must(t, e.Encode(v))
	must(t, os.WriteFile(path, out.Bytes(), 0o644))
}
