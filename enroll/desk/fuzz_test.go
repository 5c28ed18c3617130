// SPDX-License-Identifier: Apache-2.0

package desk_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"valise/enroll/desk"
	"valise/enroll/desk/call"
	"valise/identity"
	"valise/internal/testenv/office"
	"valise/statement"
)

// Whatever arrives, with a token or without, is answered with JSON: an answer
// or a problem document with a reason.
func FuzzDesk(f *testing.F) {
	o := office.New(f)
	h := o.Handler(f, "https://desk.example", func(c *desk.Config) { c.PerSecond, c.Burst = 1e9, 1e9 })
	c := newClerk(f, o, "https://desk.example", "olga", identity.RoleAdministrator)
	c.HTTP = &http.Client{Transport: direct{h}}
	c.open()
	f.Add("POST", call.PathStatements, call.ContentStatement, c.sign(&statement.Dismissal{Change: statement.NewID(), Address: office.Address(f, "olga"), Reason: "a"}), true)
	f.Add("POST", call.PathSession, call.ContentStatement, c.sign(&statement.Session{Nonce: o.NewNonce(), Server: "https://desk.example"}), false)
	f.Add("POST", call.PathApplications, "application/json", []byte("{}"), true)
	f.Add("GET", call.PathRoster+"?after=a", "", []byte(nil), true)
	f.Add("GET", call.PathLedger+"?from=0", "", []byte(nil), true)
	f.Add("GET", call.PathDevices+"/person/alice@interieur.example", "", []byte(nil), true)
	f.Fuzz(func(t *testing.T, method, path, content string, body []byte, token bool) {
		if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, " \r\n\x00") || strings.ContainsAny(method, " \r\n") || method == "" || method == "HEAD" {
			return
		}
		r, err := http.NewRequestWithContext(t.Context(), method, "https://desk.example"+path, bytes.NewReader(body))
		if err != nil {
			return
		}
		r.RemoteAddr = "192.0.2.1:1"
		r.Header.Set("Content-Type", content)
		if token {
			r.Header.Set("Authorization", "Bearer "+c.Session.Token)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 300 && w.Code < 400 { // the router cleans paths
			return
		}
		var p call.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != http.StatusOK && (p.Reason == "" || p.Status != w.Code) {
			t.Errorf("%s %q: %d %q", method, path, w.Code, w.Body)
		}
	})
}
