// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
)

// Who has connected before a daemon stops is answered, though the request comes later;
// who comes afterwards is not.
func TestHTTPAnswersWhoIsHere(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	part := HTTP("test", &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "here") })}, ln)
	served := make(chan error, 1)
	go func() { served <- part.Serve(t.Context()) }()
	// The second one is let in behind the first: then the server has that one.
	var conns [2]net.Conn
	for i := range conns {
		if conns[i], err = net.Dial("tcp", ln.Addr().String()); err != nil {
			t.Fatal(err)
		}
		defer conns[i].Close()
	}
	if _, err := fmt.Fprint(conns[1], "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conns[1]); err != nil {
		t.Fatal(err)
	}
	drained := make(chan error, 1)
	go func() { drained <- part.Drain(t.Context()) }()
	if err := <-served; err != nil { // nobody is let in any more
		t.Fatal(err)
	}
	if _, err := fmt.Fprint(conns[0], "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conns[0]), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != "here" {
		t.Errorf("got %q, %v", body, err)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if late, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		late.Close()
		t.Error("somebody came in afterwards")
	}
}
