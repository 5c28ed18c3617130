// SPDX-License-Identifier: Apache-2.0

package desk_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"valise/enroll/desk"
	"valise/enroll/desk/call"
	"valise/identity"
	"valise/internal/testenv/office"
)

// Who reads a long roster is slowed down and not turned away; who hands in is told.
func TestClientWaits(t *testing.T) {
	o := office.New(t)
	for i := range 1600 {
		o.Enlist(t, fmt.Sprintf("p%04d", i))
	}
	c := newClerk(t, o, o.Serve(t, func(c *desk.Config) { c.PerSecond, c.Burst = 8, 3 }), "olga", identity.RoleOfficer).open()
	people := 0
	must(t, c.Roster(t.Context(), func(*call.Person) error { people++; return nil }))
	if people != 1600 {
		t.Errorf("%d people", people)
	}
	var err error
	for range 10 {
		if _, err = c.Submit(t.Context(), []byte("a")); reason(err) == call.ReasonRateLimited {
			break
		}
	}
	if reason(err) != call.ReasonRateLimited {
		t.Errorf("ten statements at once: %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Officers(cancelled); err == nil {
		t.Error("it waits though nobody wants it to")
	}
}

// A client talks to the authority that its settings pin, and to no other.
func TestClientPinsRoot(t *testing.T) {
	o := office.New(t)
	c := newClerk(t, o, o.Serve(t), "olga", identity.RoleOfficer).open()
	for name, change := range map[string]func(*call.Client){
		"another root":    func(c *call.Client) { c.Root[0] ^= 1 },
		"another name":    func(c *call.Client) { c.URL = strings.Replace(c.URL, "127.0.0.1", "localhost", 1) },
		"another century": func(c *call.Client) { c.Now = func() time.Time { return time.Now().AddDate(100, 0, 0) } },
	} {
		other := &call.Client{URL: c.URL, Root: c.Root, Session: c.Session}
		if _, err := other.Requests(t.Context()); err != nil {
			t.Fatalf("honest control: %v", err)
		}
		other.HTTP = nil
		change(other)
		if _, err := other.Requests(t.Context()); err == nil || reason(err) != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	impostor := office.New(t)
	if err := (&call.Client{URL: impostor.Serve(t), Root: o.RootHash}).Open(t.Context(), nil); !errors.Is(err, call.ErrRoot) {
		t.Errorf("an impostor: %v", err)
	}
}

// A server that answers nonsense is an error, never a crash.
func TestClientDistrusts(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		body   string
	}{
		"no JSON":     {200, "hello"},
		"wrong type":  {200, `{"list":{}}`},
		"no problem":  {500, "oops"},
		"not found":   {404, "404 page not found"},
		"redirect":    {302, ""},
		"empty":       {200, ""},
		"half a page": {200, `{"list":[`},
		"circle":      {200, `{"list":[],"next":"a"}`},
		"huge":        {200, strings.Repeat(" ", 17<<20)},
	} {
		c := &call.Client{URL: "https://desk.example", HTTP: &http.Client{Transport: direct{http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "https://elsewhere.example/")
			w.WriteHeader(test.status)
			_, _ = io.WriteString(w, test.body)
		})}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
		if err := c.Roster(t.Context(), func(*call.Person) error { return nil }); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
