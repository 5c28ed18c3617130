// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

type hinted struct{}

func (hinted) Error() string { return "it did not work" }
func (hinted) Hint() string  { return "do it right" }

type request struct {
	Name string `json:"name"`
}

func serve(t *testing.T) (*Client, string) {
	t.Helper()
	home, err := os.MkdirTemp("", "v")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	ln, err := Listen(home)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	Handle(mux, "/greet", func(_ context.Context, r *request) (*request, error) {
		if r.Name == "" {
			return nil, hinted{}
		}
		return &request{"hello " + r.Name}, nil
	})
	Stream(mux, "/count", func(ctx context.Context, r *request, send func(any) error) error {
		for _, w := range strings.Fields(r.Name) {
			if err := send(request{w}); err != nil {
				return err
			}
		}
		return hinted{}
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, ln, mux) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	c, err := New(home)
	if err != nil {
		t.Fatal(err)
	}
	return c, home
}

func TestCall(t *testing.T) {
	c, home := serve(t)
	var got request
	if err := c.Call(context.Background(), "/greet", request{"bob"}, &got); err != nil || got.Name != "hello bob" {
		t.Fatalf("%+v, %v", got, err)
	}
	var e *Error
	if err := c.Call(context.Background(), "/greet", nil, &got); !errors.As(err, &e) || e.Hint() != "do it right" {
		t.Fatalf("an error crossed as %#v", err)
	}
	info, err := os.Stat(filepath.Join(home, "agent.sock"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the socket's mode is %v, %v", info.Mode(), err)
	}
}

func TestUnknownMemberRefused(t *testing.T) {
	c, _ := serve(t)
	err := c.Call(context.Background(), "/greet", map[string]string{"name": "bob", "sign": "this"}, nil)
	if err == nil || !strings.Contains(err.Error(), "unknown field") {
		t.Fatalf("a request with an unknown member: %v", err)
	}
	if err := c.Call(context.Background(), "/greet", map[string]string{"name": "bob"}, nil); err != nil {
		t.Fatalf("the control: %v", err)
	}
}

func TestStream(t *testing.T) {
	c, _ := serve(t)
	var got []string
	err := c.Stream(context.Background(), "/count", request{"one two three"}, func(line json.RawMessage) error {
		var r request
		err := json.Unmarshal(line, &r)
		got = append(got, r.Name)
		return err
	})
	var e *Error
	if !errors.As(err, &e) || strings.Join(got, " ") != "one two three" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestNoAgent(t *testing.T) {
	c, err := New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Call(context.Background(), "/greet", nil, nil); !errors.Is(err, ErrNoAgent) {
		t.Fatal(err)
	}
}

func TestFolderOfOthers(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if ln, err := Listen(dir); err == nil {
		ln.Close()
		t.Fatal("a socket was put where others can come")
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ln, err := Listen(dir)
	if err != nil {
		t.Fatalf("the control: %v", err)
	}
	ln.Close()
}

func TestLongHome(t *testing.T) {
	path, err := SocketPath("/" + strings.Repeat("very-long-folder/", 20))
	if err != nil || len(path) > maxSocketPath {
		t.Fatalf("%s (%d), %v", path, len(path), err)
	}
}

func TestOtherUserRefused(t *testing.T) {
	if err := samePerson(1001, 1000); err == nil {
		t.Error("another user was let in")
	}
	if err := samePerson(0, 1000); err == nil {
		t.Error("root was let in")
	}
	if err := samePerson(1000, 1000); err != nil {
		t.Errorf("the control: %v", err)
	}
}

// The kernel's answer is used: a connection of our own passes, one that has no
// credentials does not.
func TestPeerIsAsked(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if err := checkPeer(a); err == nil {
		t.Error("a connection without credentials was let in")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"name":"bob"}`))
	f.Add([]byte(`{"name":"bob"} {}`))
	f.Add([]byte(`{"name":1}`))
	f.Add([]byte(``))
	f.Fuzz(func(t *testing.T, data []byte) {
		var r request
		if decode(data, &r) == nil {
			again, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			var s request
			if err := decode(again, &s); err != nil || s != r {
				t.Fatalf("%q decodes to %+v and then to %+v, %v", data, r, s, err)
			}
		}
	})
}
