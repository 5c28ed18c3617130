// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A request for a credential reaches the backend only in the one shape that is
// asked for, and the directory says where to send it.
func TestTPMResource(t *testing.T) {
	s, p, key := newPaper(t)
	var d directory
	w := post(s, pathTPM, signedBody(t, key, pathTPM, []byte(`{"authorization":"`+base+pathAuthorization+`/z","x5c":["AAAA"],"ak":"AAAA"}`), false))
	if w.Code != http.StatusOK || p.asked != 1 || strings.TrimSpace(w.Body.String()) != `{"credential":"AQ","secret":"Ag"}` {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	get := httptest.NewRecorder()
	s.ServeHTTP(get, httptest.NewRequest(http.MethodGet, base+PathDirectory, nil))
	if err := json.Unmarshal(get.Body.Bytes(), &d); err != nil || d.TPM != base+pathTPM {
		t.Errorf("directory %s, %v", get.Body, err)
	}
	long := strings.Repeat("A", (maxTPMPart+1)*4/3+4)
	for name, payload := range map[string]string{
		"no authorization":      `{"x5c":["AAAA"],"ak":"AAAA"}`,
		"of another authority":  `{"authorization":"https://other.example/acme/authorization/z","x5c":["AAAA"],"ak":"AAAA"}`,
		"of another kind":       `{"authorization":"` + base + pathOrder + `/z","x5c":["AAAA"],"ak":"AAAA"}`,
		"with a path below":     `{"authorization":"` + base + pathAuthorization + `/z/y","x5c":["AAAA"],"ak":"AAAA"}`,
		"no certificate":        `{"authorization":"` + base + pathAuthorization + `/z","x5c":[],"ak":"AAAA"}`,
		"seven certificates":    `{"authorization":"` + base + pathAuthorization + `/z","x5c":["AA","AA","AA","AA","AA","AA","AA"],"ak":"AAAA"}`,
		"padded":                `{"authorization":"` + base + pathAuthorization + `/z","x5c":["AA=="],"ak":"AAAA"}`,
		"no attestation key":    `{"authorization":"` + base + pathAuthorization + `/z","x5c":["AAAA"]}`,
		"too long":              `{"authorization":"` + base + pathAuthorization + `/z","x5c":["` + long + `"],"ak":"AAAA"}`,
		"not base64url at all":  `{"authorization":"` + base + pathAuthorization + `/z","x5c":["A+A/"],"ak":"AAAA"}`,
		"not an object at all":  `[]`,
		"a number for the keys": `{"authorization":"` + base + pathAuthorization + `/z","x5c":[1],"ak":"AAAA"}`,
	} {
		w := post(s, pathTPM, signedBody(t, key, pathTPM, []byte(payload), false))
		var doc problem
		if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || doc.Reason != MalformedRequest || p.asked != 1 {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}
