// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"valise/hsm"
	"valise/internal/keys"
	"valise/internal/stage"
)

// An office is a stage with three officials: alice writes, bob reads, and this
// program itself is carol's device.
type office struct {
	*stage.Stage
	gateway *stage.Gateway
	root    string // PEM file
	people  []*stage.Official
	key     hsm.Key // carol's, in her card
}

func newOffice(ctx context.Context, st *stage.Stage) (*office, error) {
	o := &office{Stage: st}
	root := st.AttestationRoot("attestation")
	names := []string{"alice", "bob", "carol"}
	var roster []string
	for i, name := range names {
		card, err := st.NewCard(ctx, root, uint32(30000001+i))
		if err != nil {
			return nil, err
		}
		if _, err := st.NewReader(ctx, name, card); err != nil {
			return nil, err
		}
		o.people = append(o.people, st.NewOfficial(name, name+"@"+domain, card))
		roster = append(roster, name+"@"+domain+","+name+",Unit,")
	}
	pem, err := st.RootPEM(ctx, root)
	if err != nil {
		return nil, err
	}
	authority, err := st.NewAuthority(ctx, "authority", domain, roster, pem)
	if err != nil {
		return nil, err
	}
	o.root = authority.Root
	if o.gateway, err = st.NewGateway(ctx, authority); err != nil {
		return nil, err
	}
	for _, p := range o.people {
		if _, err := p.Enroll(ctx, authority, o.gateway); err != nil {
			return nil, err
		}
	}
	return o, errors.Join(o.people[0].Unlock(ctx), o.people[1].Unlock(ctx), o.openCard(ctx))
}

// openCard opens carol's card in this process, which uses no other reader.
func (o *office) openCard(ctx context.Context) error {
	carol := o.people[2]
	name, socket, _ := strings.Cut(carol.Card.Reader.Env[0], "=")
	if err := os.Setenv(name, socket); err != nil {
		return err
	}
	var err error
	o.key, err = keys.OpenKey(ctx, fmt.Sprintf("piv:9a?serial=%d", carol.Card.Serial), keys.PINFromFile(filepath.Join(o.Dir, "pin")))
	return err
}

// chain reads carol's certificates.
func (o *office) chain() ([][]byte, error) {
	data, err := os.ReadFile(filepath.Join(o.people[2].Home, "profile.json"))
	if err != nil {
		return nil, err
	}
	var p struct{ Chain [][]byte }
	err = json.Unmarshal(data, &p)
	return p.Chain, err
}

// endToEnd types into a chat and waits for the reader on the other side.
func (o *office) endToEnd(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	alice, bob := o.people[0], o.people[1]
	if _, err := stage.Poll(ctx, "bob to be reachable", func() (struct{}, bool, error) {
		_, err := alice.Run(ctx, "send", bob.Address, "let us begin")
		return struct{}{}, err == nil, nil
	}); err != nil {
		return err
	}
	typed, _, endChat, err := o.running(ctx, alice, "chat", bob.Address)
	if err != nil {
		return err
	}
	_, read, endReceive, err := o.running(ctx, bob, "receive", "--follow", "--json")
	if err != nil {
		return errors.Join(err, endChat())
	}
	lines := bufio.NewScanner(read)
	lines.Buffer(nil, 1<<20)
	err = repeat("end_to_end", func(i int) (time.Duration, error) {
		text := fmt.Sprintf("line %d of the benchmark", i)
		return timed(func() error {
			if _, err := io.WriteString(typed, text+"\n"); err != nil {
				return err
			}
			for lines.Scan() {
				var e struct{ Text string }
				if err := json.Unmarshal(lines.Bytes(), &e); err != nil || e.Text == text {
					return err
				}
			}
			return errors.Join(lines.Err(), io.ErrUnexpectedEOF)
		})
	})
	cancel()
	// Both were ended by the context: how they ended says nothing.
	_, _ = endChat(), endReceive()
	return err
}

// running starts a command of an official with pipes at both ends.
func (o *office) running(ctx context.Context, p *stage.Official, args ...string) (io.Writer, io.Reader, func() error, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(o.Bin, "valise"), append([]string{"--home", p.Home}, args...)...)
	cmd.Env = append(os.Environ(), p.Card.Reader.Env...)
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		return nil, nil, nil, err
	}
	return in, out, cmd.Wait, cmd.Start()
}

// card signs with P-384 through pcscd.
func (o *office) card(context.Context) error {
	digest := sha512.Sum384([]byte("what a message signs"))
	return repeat("card_sign_p384", func(int) (time.Duration, error) {
		return timed(func() error {
			_, err := o.key.Sign(rand.Reader, digest[:], crypto.SHA384)
			return err
		})
	})
}
