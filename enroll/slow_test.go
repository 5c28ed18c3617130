// SPDX-License-Identifier: Apache-2.0

package enroll_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"valise/enroll/enrolltest"
	"valise/internal/store/authority"
)

// Clients that send slowly, stop, or send too much get a problem document or a closed
// connection, and leave nothing half done. The daemon's own times are longer; the
// server is the same.
func TestSlowClients(t *testing.T) {
	s := newSite(t, options{})
	c, card := s.registered("alice"), s.card()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s.server.Config.Handler, ReadHeaderTimeout: 300 * time.Millisecond, ReadTimeout: 600 * time.Millisecond}
	go func() { _ = server.Serve(ln) }()
	defer server.Close()
	url := s.server.URL + "/acme/new-order"
	body := c.Sign(url, []byte(`{"identifiers":[{"type":"permanent-identifier","value":"`+card.ID(t).String()+`"}]}`), enrolltest.Headers{})
	head := func(length int) string {
		return fmt.Sprintf("POST /acme/new-order HTTP/1.1\r\nHost: x\r\nContent-Type: application/jose+json\r\nContent-Length: %d\r\n\r\n", length)
	}
	for name, send := range map[string]func(w io.Writer) error{
		"nothing":       func(io.Writer) error { return nil },
		"half a header": func(w io.Writer) error { _, err := io.WriteString(w, head(len(body))[:40]); return err },
		"half a body": func(w io.Writer) error {
			_, err := io.WriteString(w, head(len(body))+string(body[:len(body)/2]))
			return err
		},
		"all but the last one": func(w io.Writer) error {
			_, err := io.WriteString(w, head(len(body))+string(body[:len(body)-1]))
			return err
		},
		"drop by drop": func(w io.Writer) error {
			if _, err := io.WriteString(w, head(len(body))); err != nil {
				return err
			}
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for i := range body {
				<-tick.C
				if _, err := w.Write(body[i : i+1]); err != nil {
					return nil // closed, as it should be
				}
			}
			return errors.New("the server waited for all of it")
		},
		"more than it may": func(w io.Writer) error {
			_, err := io.WriteString(w, head(1<<30))
			for chunk := make([]byte, 32<<10); err == nil; {
				_, err = w.Write(chunk)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if err := send(conn); err != nil {
				t.Fatal(err)
			}
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				var late net.Error
				if errors.As(err, &late) && late.Timeout() {
					t.Error("the connection is still open")
				}
				return // closed without an answer
			}
			defer res.Body.Close()
			if res.StatusCode < 400 {
				t.Errorf("%s", res.Status)
			}
		})
	}
	// Nothing came of any of them; and the same request, sent as a whole, is fine.
	orders := func() (all []authority.Order) {
		err := s.store.View(t.Context(), func(tx *authority.Tx) (err error) {
			all, err = tx.Orders(authority.Pending, 10)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	if all := orders(); len(all) != 0 {
		t.Errorf("%d orders of requests that never ended", len(all))
	}
	if r := c.Send(url, body); r.Status != http.StatusCreated || len(orders()) != 1 {
		t.Errorf("control: %d %s", r.Status, r.Body)
	}
}
