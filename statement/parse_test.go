// SPDX-License-Identifier: Apache-2.0

package statement

import (
	"bytes"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"valise/identity"
)

// spell encodes a header and a payload with a signature that nobody looks at.
func spell(header, payload string, signature int) []byte {
	return seal(fmt.Appendf(nil, "%s.%s", base64.RawURLEncoding.EncodeToString([]byte(header)), base64.RawURLEncoding.EncodeToString([]byte(payload))), make([]byte, signature))
}

// There is one spelling of each statement: spec/statement.md, Sections 2 and 3.
func TestParseRefusesOtherSpellings(t *testing.T) {
	h := newHouse(t, elliptic.P256())
	raw := h.sign(h.person("olga", identity.RoleOfficer), &Suspension{Target{Kind: TargetPerson, Address: at(t, "alice"), Devices: []identity.DeviceID{{1}, {2}}}, `lost on a "train"`, NewID()})
	parts := strings.Split(string(raw), ".")
	decode := func(i int) string {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		must(t, err)
		return string(text)
	}
	header, payload := decode(0), decode(1)
	x5c := header[strings.Index(header, `,"x5c"`):]
	change := func(text, from, to string) string {
		if !strings.Contains(text, from) {
			t.Fatalf("%s is not in %s", from, text)
		}
		return strings.Replace(text, from, to, 1)
	}
	of := func(from, to string) []byte { return spell(header, change(payload, from, to), 64) }
	head := func(from, to string) []byte { return spell(change(header, from, to), payload, 64) }
	if _, err := Parse(spell(header, payload, 64)); err != nil {
		t.Fatalf("honest control: %v", err)
	}
	for name, raw := range map[string][]byte{
		"empty":                     nil,
		"two parts":                 []byte(parts[0] + "." + parts[1]),
		"four parts":                []byte(string(raw) + "."),
		"padding":                   []byte(string(raw) + "="),
		"line end":                  append(slices.Clone(raw), '\n'),
		"line end inside":           []byte(parts[0][:40] + "\n" + parts[0][40:] + "." + parts[1] + "." + parts[2]),
		"space before":              append([]byte(" "), raw...),
		"loose last bits":           []byte(string(raw[:len(raw)-1]) + "B"),
		"flattened JSON":            fmt.Appendf(nil, `{"protected":%q,"payload":%q,"signature":%q}`, parts[0], parts[1], parts[2]),
		"short signature":           spell(header, payload, 63),
		"signature of P-384":        spell(header, payload, 96),
		"no signature":              spell(header, payload, 0),
		"header: space":             head(`{"alg"`, `{ "alg"`),
		"header: order":             spell(`{"typ":"valise-suspension+jws","alg":"ES256"`+x5c, payload, 64),
		"header: crit":              head(`{"alg"`, `{"crit":["b64"],"alg"`),
		"header: jwk":               head(`]}`, `],"jwk":{}}`),
		"header: kid":               head(`]}`, `],"kid":"1"}`),
		"header: x5u":               head(`"x5c"`, `"x5u"`),
		"header: alg twice":         head(`{"alg":"ES256"`, `{"alg":"ES256","alg":"ES256"`),
		"header: capitals":          head(`"alg"`, `"Alg"`),
		"header: escaped name":      head(`"alg"`, `"\u0061lg"`),
		"header: unknown kind":      head(`suspension`, `execution`),
		"header: no kind":           head(`valise-suspension+jws`, `valise-+jws`),
		"header: plain typ":         head(`valise-suspension+jws`, `JWT`),
		"header: media type":        head(`valise-suspension+jws`, `application/valise-suspension+jws`),
		"header: kind in capitals":  head(`valise-suspension+jws`, `valise-Suspension+jws`),
		"header: one certificate":   head(x5c[strings.Index(x5c, `","`):], `"]}`),
		"header: three":             head(`"]}`, `","AAAA"]}`),
		"header: base64url":         head(`"x5c":["MII`, `"x5c":["-_II`),
		"header: no certificate":    spell(`{"alg":"ES256","typ":"valise-suspension+jws","x5c":["",""]}`, payload, 64),
		"header: too long":          spell(header+strings.Repeat(" ", maxHeader), payload, 64),
		"payload: space":            of(`,"id"`, `, "id"`),
		"payload: behind":           spell(header, payload+" ", 64),
		"payload: unknown member":   of(`"reason":`, `"note":"","reason":`),
		"payload: unknown above":    of(`,"body"`, `,"aud":"","body"`),
		"payload: unknown at end":   of(`}}`, `,"note":""}}`),
		"payload: member twice":     of(`"reason":`, `"reason":"a","reason":`),
		"payload: case variant":     of(`"reason"`, `"Reason"`),
		"payload: order":            of(`"kind":"person","device":""`, `"device":"","kind":"person"`),
		"payload: left out":         of(`"device":"",`, ``),
		"payload: null":             of(`"device":""`, `"device":null`),
		"payload: escaped slash":    of(`train`, `tr\/ain`),
		"payload: unicode escape":   of(`train`, `\u0074rain`),
		"payload: line end":         of(`train`, `tr\nain`),
		"payload: raw line end":     of(`train`, "tr\nain"),
		"payload: turned text":      of(`train`, "\u202eniart"),
		"payload: invisible":        of(`train`, "tr\u200bain"),
		"payload: bad UTF-8":        of(`train`, "tr\xffain"),
		"payload: replacement":      of(`train`, "tr\ufffdain"),
		"payload: space at end":     of(`\"",`, `\" ",`),
		"payload: no reason":        of(`lost on a \"train\"`, ``),
		"payload: time as text":     of(fmt.Sprint(noon.Unix()), `"`+fmt.Sprint(noon.Unix())+`"`),
		"payload: time as float":    of(fmt.Sprint(noon.Unix()), fmt.Sprint(noon.Unix())+".0"),
		"payload: leading zero":     of(fmt.Sprint(noon.Unix()), "0"+fmt.Sprint(noon.Unix())),
		"payload: negative":         of(fmt.Sprint(noon.Unix()), "-"+fmt.Sprint(noon.Unix())),
		"payload: huge number":      of(fmt.Sprint(noon.Unix()), strings.Repeat("9", 30)),
		"payload: no time":          of(fmt.Sprint(noon.Unix()), "0"),
		"payload: no authority":     of(identity.DeviceID(h.root).String(), ""),
		"payload: hash in capitals": of(identity.DeviceID(h.root).String(), strings.ToUpper(identity.DeviceID(h.root).String())),
		"payload: hash of zeros":    of(`"device":""`, `"device":"`+strings.Repeat("0", 64)+`"`),
		"payload: short hash":       of(`"device":""`, `"device":"00"`),
		"payload: address":          of(`alice@`, `Alice@`),
		"payload: no address":       of(`"alice@interieur.example"`, `""`),
		"payload: wrong target":     of(`"kind":"person"`, `"kind":"device"`),
		"payload: unknown target":   of(`"kind":"person"`, `"kind":"planet"`),
		"payload: two targets":      of(`"device":""`, `"device":"`+strings.Repeat("1", 64)+`"`),
		"payload: device twice":     of(identity.DeviceID{2}.String(), identity.DeviceID{1}.String()),
		"payload: empty device":     of(identity.DeviceID{2}.String(), ""),
		"payload: list's comma":     of(`"]`, `",]`),
		"payload: unfinished":       spell(header, payload[:len(payload)-1], 64),
		"payload: deep":             spell(header, strings.Repeat(`{"body":`, 4000), 64),
		"payload: not JSON":         spell(header, "hello", 64),
	} {
		s, err := Parse(raw)
		if s != nil || ReasonOf(err) != ReasonMalformed {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
}

func TestParseBounds(t *testing.T) {
	h := newHouse(t, elliptic.P256())
	p := h.person("olga", identity.RoleAdministrator)
	large := &Appraisal{Change: NewID(), Policy: bytes.Repeat([]byte("a"), 400<<10)}
	raw := h.sign(p, large)
	if _, err := Verify(raw, h.trust(), h.root, noon); err != nil {
		t.Errorf("a large policy: %v", err)
	}
	parts := strings.Split(string(raw), ".")
	text, err := base64.RawURLEncoding.DecodeString(parts[0])
	must(t, err)
	small := base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(text), "valise-appraisal+jws", "valise-removal+jws", 1)))
	if _, err := Parse([]byte(small + "." + parts[1] + "." + parts[2])); ReasonOf(err) != ReasonTooLarge {
		t.Errorf("as large as that of a small kind: %v", err)
	}
	if _, err := Parse(make([]byte, MaxLargeSize+1)); ReasonOf(err) != ReasonTooLarge {
		t.Errorf("too large: %v", err)
	}
	large.Policy = make([]byte, maxFile+1)
	if _, err := MarshalBody(large); err == nil {
		t.Error("a file beyond the bound")
	}
	target := Target{Kind: TargetPerson, Address: at(t, "alice")}
	for i := range MaxDevices {
		target.Devices = append(target.Devices, sha256.Sum256([]byte{byte(i), byte(i >> 8)}))
	}
	slices.SortFunc(target.Devices, identity.DeviceID.Compare)
	most := &Suspension{target, strings.Repeat("ü", maxText/2), NewID()}
	officer := h.person("olga", identity.RoleOfficer)
	if raw, err := Sign(t.Context(), officer.key, officer.chain, h.head(), most); err != nil || len(raw) > MaxSize {
		t.Errorf("the longest suspension: %d octets, %v", len(raw), err)
	}
	most.Target.Devices = append(most.Target.Devices, identity.DeviceID(bytes.Repeat([]byte{255}, 32)))
	if _, err := MarshalBody(most); err == nil {
		t.Error("more devices than the bound")
	}
	if _, err := ParseBody(KindRemoval, make([]byte, MaxSize+1)); ReasonOf(err) != ReasonTooLarge {
		t.Errorf("a large body: %v", err)
	}
	if _, err := ParseBody("strange", []byte("{}")); ReasonOf(err) != ReasonMalformed {
		t.Errorf("a strange body: %v", err)
	}
}

// What no officer's program would write is refused though it is well spelled.
func TestBodiesRefuse(t *testing.T) {
	key := newKey(t, elliptic.P384())
	for name, change := range map[string]func(map[Kind]Body){
		"approval: another key's id": func(b map[Kind]Body) { b[KindApproval].(*Approval).Device = identity.DeviceID{1} },
		"approval: another key":      func(b map[Kind]Body) { b[KindApproval].(*Approval).CSRKey = spki(t, key) },
		"approval: no key":           func(b map[Kind]Body) { b[KindApproval].(*Approval).CSRKey = nil },
		"approval: a key of P-521": func(b map[Kind]Body) {
			a := b[KindApproval].(*Approval)
			a.CSRKey = spki(t, newKey(t, elliptic.P521()))
			a.Device = sha256.Sum256(a.CSRKey)
		},
		"approval: key and something": func(b map[Kind]Body) {
			a := b[KindApproval].(*Approval)
			a.CSRKey = append(a.CSRKey, 0)
			a.Device = sha256.Sum256(a.CSRKey)
		},
		"approval: hardware and seen":   func(b map[Kind]Body) { b[KindApproval].(*Approval).Tier = identity.TierHardware },
		"approval: witnessed, not seen": func(b map[Kind]Body) { b[KindApproval].(*Approval).Witnessed = false },
		"approval: no evidence": func(b map[Kind]Body) {
			a := b[KindApproval].(*Approval)
			a.Tier, a.Witnessed, a.Evidence = identity.TierHardware, false, [32]byte{}
		},
		"approval: unknown tier":     func(b map[Kind]Body) { b[KindApproval].(*Approval).Tier = "software" },
		"approval: unknown role":     func(b map[Kind]Body) { b[KindApproval].(*Approval).Role = "king" },
		"approval: no validity":      func(b map[Kind]Body) { b[KindApproval].(*Approval).Validity = 0 },
		"approval: part of a second": func(b map[Kind]Body) { b[KindApproval].(*Approval).Validity++ },
		"approval: for ever":         func(b map[Kind]Body) { b[KindApproval].(*Approval).Validity = maxPeriod + time.Second },
		"approval: no version":       func(b map[Kind]Body) { b[KindApproval].(*Approval).ProfileVersion = 0 },
		"approval: no address":       func(b map[Kind]Body) { b[KindApproval].(*Approval).Address = identity.Address{} },
		"approval: request's name":   func(b map[Kind]Body) { b[KindApproval].(*Approval).Request = "a b" },
		"refusal: no reason":         func(b map[Kind]Body) { b[KindRefusal].(*Refusal).Reason = "" },
		"suspension: no change":      func(b map[Kind]Body) { b[KindSuspension].(*Suspension).Change = "" },
		"suspension: short change":   func(b map[Kind]Body) { b[KindSuspension].(*Suspension).Change = "AAAA" },
		"resumption: two targets":    func(b map[Kind]Body) { b[KindResumption].(*Resumption).Target.Root = [32]byte{1} },
		"resumption: list":           func(b map[Kind]Body) { b[KindResumption].(*Resumption).Target.Devices = []identity.DeviceID{{1}} },
		"revocation: serial number":  func(b map[Kind]Body) { b[KindRevocation].(*Revocation).Target.Serial = "9681620" },
		"roster: no name":            func(b map[Kind]Body) { b[KindRoster].(*Roster).Name = "" },
		"roster: name of spaces":     func(b map[Kind]Body) { b[KindRoster].(*Roster).Name = " " },
		"roster: long unit":          func(b map[Kind]Body) { b[KindRoster].(*Roster).Unit = strings.Repeat("a", maxText+1) },
		"endorsements: empty":        func(b map[Kind]Body) { b[KindEndorsements].(*Endorsements).PEM = nil },
		"endorsements: text":         func(b map[Kind]Body) { b[KindEndorsements].(*Endorsements).PEM = []byte("hello") },
		"profile: nobody approves":   func(b map[Kind]Body) { b[KindProfile].(*Profile).Approvals = 0 },
		"profile: too many approve":  func(b map[Kind]Body) { b[KindProfile].(*Profile).Approvals = MaxApprovals + 1 },
		"profile: no tier":           func(b map[Kind]Body) { b[KindProfile].(*Profile).Tiers = nil },
		"profile: tier twice":        func(b map[Kind]Body) { b[KindProfile].(*Profile).Tiers = []identity.Tier{"hardware", "hardware"} },
		"profile: negative grace":    func(b map[Kind]Body) { b[KindProfile].(*Profile).Grace = -time.Second },
		"appointment: device":        func(b map[Kind]Body) { b[KindAppointment].(*Appointment).Role = RoleDevice },
		"appointment: no evidence":   func(b map[Kind]Body) { b[KindAppointment].(*Appointment).Evidence = [32]byte{} },
		"appointment: no key":        func(b map[Kind]Body) { b[KindAppointment].(*Appointment).Key = []byte{1} },
		"bundle: no hash":            func(b map[Kind]Body) { b[KindBundle].(*Bundle).Hash = [32]byte{} },
		"session: no server":         func(b map[Kind]Body) { b[KindSession].(*Session).Server = "" },
		"invitation: no key":         func(b map[Kind]Body) { b[KindInvitation].(*Invitation).Key = "" },
	} {
		all := bodies(t)
		kind, _, _ := strings.Cut(name, ":")
		if _, err := MarshalBody(all[Kind(kind)]); err != nil {
			t.Fatalf("%s: honest control: %v", name, err)
		}
		change(all)
		if text, err := MarshalBody(all[Kind(kind)]); err == nil {
			t.Errorf("%s: %s", name, text)
		}
	}
}
