// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"testing"

	"valise/internal/store/authority"
)

// RFC 7515, Section 4: member names are unique and compared exactly. A second
// "Protected" beside the signed one must not be where nonce, url and kid are read:
// an old message would pass as a fresh one for another URL.
func TestMembersAreReadWhereTheyAreSigned(t *testing.T) {
	const signedFor, sentTo = pathOrder + "/o", pathCertificate + "/o"
	s, p, key := newPaper(t)
	var honest struct{ Protected, Payload, Signature string }
	if err := json.Unmarshal(signedBody(t, key, signedFor, nil, false), &honest); err != nil {
		t.Fatal(err)
	}
	other := base64.RawURLEncoding.EncodeToString([]byte(
		`{"alg":"ES256","kid":"` + base + pathAccount + `/1","nonce":"n","url":"` + base + sentTo + `"}`))
	tail := `,"payload":"` + honest.Payload + `","signature":"` + honest.Signature + `"}`
	for name, c := range map[string]struct {
		path, body string
		code       int
	}{
		"control":        {signedFor, `{"protected":"` + honest.Protected + `"` + tail, http.StatusOK},
		"in capitals":    {sentTo, `{"protected":"` + honest.Protected + `","Protected":"` + other + `"` + tail, http.StatusBadRequest},
		"capitals first": {sentTo, `{"PROTECTED":"` + other + `","protected":"` + honest.Protected + `"` + tail, http.StatusUnauthorized},
		"twice":          {sentTo, `{"protected":"` + honest.Protected + `","protected":"` + other + `"` + tail, http.StatusBadRequest},
		"long s":         {signedFor, `{"protected":"` + honest.Protected + `","payload":"` + honest.Payload + `","` + "\u017f" + `ignature":"","signature":"` + honest.Signature + `"}`, http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			p.asked = 0
			w := post(s, c.path, []byte(c.body))
			if w.Code != c.code && !(name == "capitals first" && w.Code == http.StatusBadRequest) {
				t.Errorf("%d: %s", w.Code, w.Body)
			}
			if (p.asked != 0) != (c.code == http.StatusOK) {
				t.Errorf("the backend was asked %d times", p.asked)
			}
		})
	}
}

// The same within the protected header.
func TestHeaderNamesAreExact(t *testing.T) {
	for name, c := range map[string]struct {
		header string
		fine   bool
	}{
		"control":       {`{"alg":"ES256","nonce":"n","url":"u","typ":"x","kid":"k"}`, true},
		"twice":         {`{"alg":"ES256","nonce":"n","nonce":"m","url":"u","kid":"k"}`, false},
		"in capitals":   {`{"alg":"ES256","nonce":"n","NONCE":"m","url":"u","kid":"k"}`, false},
		"critical":      {`{"alg":"ES256","nonce":"n","url":"u","kid":"k","CRIT":["b64"]}`, false},
		"nested is not": {`{"alg":"ES256","nonce":"n","url":"u","kid":"k","x":{"alg":"a","ALG":"b"}}`, true},
	} {
		t.Run(name, func(t *testing.T) {
			protected := base64.RawURLEncoding.EncodeToString([]byte(c.header))
			h, _, err := parseHeader([]byte(`{"protected":"` + protected + `","payload":"","signature":""}`))
			if (err == nil) != c.fine {
				t.Errorf("got %+v, %v", h, err)
			}
		})
	}
}

// Spec, Section 9: an appraisal's reason is a badAttestationStatement also when the
// evidence is judged again before the signature, and the authority's own are not.
func TestOrderProblemTypes(t *testing.T) {
	s, _, _ := newPaper(t)
	for reason, want := range map[string]string{
		"denied_serial": "badAttestationStatement", "evidence_expired": "badAttestationStatement",
		"not_on_roster": "unauthorized", "account_deactivated": "unauthorized",
		"order_expired": "malformed", "order_changed": "malformed",
	} {
		o := s.order(&authority.Order{ID: "o", Status: authority.Invalid, Reason: reason}, &authority.Authorization{ID: "z", Status: authority.Valid})
		if o.Error == nil || o.Error.Type != problemPrefix+want || o.Error.Reason != Reason(reason) {
			t.Errorf("%s: %+v, want %s", reason, o.Error, want)
		}
	}
}

// RFC 8555, Section 6.2: the flattened serialization, each member once, by its own name,
// and nothing else.
func TestFlattenedOnly(t *testing.T) {
	for body, fine := range map[string]bool{
		`{"protected":"a","payload":"","signature":"b"}`:                 true,
		`{"signature":"b","payload":"c","protected":"a"}`:                true,
		`{"protected":"a","protected":"x","payload":"","signature":"b"}`: false,
		`{"Protected":"a","payload":"","signature":"b"}`:                 false,
		`{"protected":"a","payload":"","signature":"b","header":{}}`:     false,
		`{"protected":"a","payload":null,"signature":"b"}`:               false,
		`{"protected":"a","payload":["x"],"signature":"b"}`:              false,
		`{"protected":"a","payload":""}`:                                 false,
		`{"protected":"a","payload":"","signature":"b"} {}`:              false,
		`{"protected":"a","payload":"","signature":"b"`:                  false,
		`["protected"]`: false,
		``:              false,
	} {
		f, err := parseFlattened([]byte(body))
		if (err == nil) != fine {
			t.Errorf("%s: %+v, %v", body, f, err)
		}
	}
}
