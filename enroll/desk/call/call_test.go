// SPDX-License-Identifier: Apache-2.0

package call

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"valise/identity"
	"valise/statement"
)

// canned answers every request with the same octets.
type canned struct {
	status int
	body   []byte
}

func (c canned) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: c.status, Request: r, Body: io.NopCloser(bytes.NewReader(c.body)),
		Header: http.Header{"Content-Type": {ContentProblem}},
	}, nil
}

// Whatever a desk in the wrong hands answers, an officer's program goes on: an
// answer, or an error; and what it would show for signing can be signed.
func FuzzAnswers(f *testing.F) {
	s, err := NewSignable(&statement.Refusal{Request: "a", Reason: "b"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(200, []byte(`{"list":[{"kind":"refusal","body":"{}","digest":""}]}`))
	f.Add(200, []byte(`{"id":"a","approval":{"kind":"refusal","body":`+`"`+strings.ReplaceAll(s.Body, `"`, `\"`)+`","digest":"`+s.Digest+`"}}`))
	f.Add(200, []byte(`{"checkpoint":"","items":[{"index":0,"entry":"AA==","payload":"AA=="}]}`))
	f.Add(403, []byte(`{"reason":"statement_role","status":403}`))
	f.Add(200, []byte(`{"token":"a","expires":"2026-11-22T00:00:00Z","officer":{"address":"a@b.example"}}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status == http.StatusTooManyRequests || bytes.Contains(body, []byte(ReasonRateLimited)) {
			return // the client would wait
		}
		c := &Client{URL: "https://desk.example", HTTP: &http.Client{Transport: canned{status, body}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
		if r, err := c.Request(t.Context(), "a"); err == nil && r.Approval != nil {
			parse(t, r.Approval)
		}
		list, _ := c.Proposals(t.Context())
		for i := range list {
			parse(t, &list[i].Signable)
		}
		_, _ = c.Items(t.Context(), 0)
		_, _ = c.Person(t.Context(), identity.Address{})
		pages := 0
		_ = c.Roster(t.Context(), func(*Person) error { pages++; return nil })
		_ = c.Open(t.Context(), func(s *statement.Session) ([]byte, error) {
			if s.Server != c.URL {
				t.Errorf("a session for %q", s.Server)
			}
			return []byte("a"), nil
		})
	})
}

func parse(t *testing.T, s *Signable) {
	t.Helper()
	b, err := s.Parse()
	if err != nil {
		return
	}
	if again, err := NewSignable(b); err != nil || again != *s {
		t.Errorf("%+v is signed as %+v, %v", s, again, err)
	}
}

func TestParseTarget(t *testing.T) {
	hex := strings.Repeat("ab", 32)
	for _, kind := range []string{statement.TargetDevice, statement.TargetSerial, statement.TargetRoot} {
		target, err := ParseTarget(kind, hex)
		if err != nil || target.Kind != kind {
			t.Errorf("%s: %+v, %v", kind, target, err)
		}
		if _, err := ParseTarget(kind, strings.ToUpper(hex)); err == nil {
			t.Errorf("%s in capitals", kind)
		}
		body := &statement.Suspension{Target: target, Reason: "a", Change: statement.NewID()}
		if _, err := statement.MarshalBody(body); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	for _, kind := range []string{statement.TargetPerson, statement.TargetOfficer} {
		if _, err := ParseTarget(kind, "alice@interieur.example"); err != nil {
			t.Error(err)
		}
		if _, err := ParseTarget(kind, "Alice@interieur.example"); err == nil {
			t.Errorf("%s in capitals", kind)
		}
	}
	if _, err := ParseTarget("planet", hex); err == nil {
		t.Error("a planet")
	}
}

// What is away and what refuses are told apart: only the first is a reason to carry a
// suspension by hand.
func TestUnreachable(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		want bool
	}{
		"nobody answers": {ErrUnreachable, true},
		"unavailable":    {&Problem{Reason: ReasonUnavailable}, true},
		"refused":        {&Problem{Reason: ReasonRole}, false},
		"an impostor":    {ErrRoot, false},
		"no error":       {nil, false},
		"card trouble":   {io.ErrUnexpectedEOF, false},
	} {
		if got := Unreachable(test.err); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
