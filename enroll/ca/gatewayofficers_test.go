// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"errors"
	"strings"
	"testing"

	"valise/enroll/enrolltest"
	"valise/record"
	"valise/statement"
)

// gateway is what officers sign about a request.
func (c *council) gateway(t *testing.T, csr []byte, names []string) *statement.Gateway {
	t.Helper()
	p, err := c.ca.ProposeGateway(GatewayRequest{CSR: csr, Names: names}, statement.NewID())
	if err != nil {
		t.Fatal(err)
	}
	return &p.Body
}

func (c *council) approveGateway(t *testing.T, csr []byte, names []string) *statement.Gateway {
	t.Helper()
	b := c.gateway(t, csr, names)
	c.say(t, c.Olga, b)
	c.say(t, c.Oscar, b)
	return b
}

// Nobody issues alone: the operator gets a gateway's certificate when two officers have
// approved exactly it.
func TestGatewayWaitsForTwoOfficers(t *testing.T) {
	c := newCouncil(t)
	csr, names := enrolltest.CSR(t, enrolltest.NewKey(t)), []string{"gateway." + domain, "192.0.2.1"}
	refused := func(have string) {
		t.Helper()
		_, err := c.ca.IssueGateway(t.Context(), csr, names)
		if !errors.Is(err, ErrApprovals) || !strings.Contains(err.Error(), have) || c.key.signed.Load() != 0 {
			t.Errorf("got %v", err)
		}
	}
	refused("0 of 2 approvals")
	b := c.gateway(t, csr, names)
	c.say(t, c.Olga, b)
	refused("1 of 2 approvals")
	c.say(t, c.Oscar, b)
	if _, err := c.ca.IssueGateway(t.Context(), csr, append(names, "other."+domain)); !errors.Is(err, ErrApprovals) {
		t.Errorf("another name: %v", err)
	}
	if _, err := c.ca.IssueGateway(t.Context(), enrolltest.CSR(t, enrolltest.NewKey(t)), names); !errors.Is(err, ErrApprovals) {
		t.Errorf("another key: %v", err)
	}
	first, err := c.ca.IssueGateway(t.Context(), csr, names)
	if err != nil || !first.Done() {
		t.Fatalf("control: %v", err)
	}
	c.now = c.now.Add(30 * day) // the statements have run out: a renewal
	again, err := c.ca.IssueGateway(t.Context(), csr, []string{names[1], names[0]})
	if err != nil || again.Leaf == first.Leaf {
		t.Errorf("renewal: %+v, %v", again, err)
	}
	c.now = c.now.Add(200 * day)
	if _, err := c.ca.IssueGateway(t.Context(), csr, names); !errors.Is(err, ErrApprovals) || !strings.Contains(err.Error(), record.Lapsed.Text()) {
		t.Errorf("after the grace: %v", err)
	}
}

// A suspension between any two steps keeps the certificate from everybody.
func TestGatewaySuspendedBetweenTheSteps(t *testing.T) {
	for _, step := range []string{"", "built", "recorded", "signed", "never"} {
		t.Run("at "+step, func(t *testing.T) {
			c := newCouncil(t)
			csr, names := enrolltest.CSR(t, enrolltest.NewKey(t)), []string{"gateway." + domain}
			b := c.approveGateway(t, csr, names)
			stop := func() {
				c.say(t, c.Otto, &statement.Suspension{
					Target: statement.Target{Kind: statement.TargetDevice, Device: b.Key()}, Reason: "stolen", Change: statement.NewID(),
				})
			}
			c.ca.interrupt = func(at string) error {
				if at == step {
					stop()
				}
				return nil
			}
			if step == "" {
				stop()
			}
			i, err := c.ca.IssueGateway(t.Context(), csr, names)
			if step == "never" {
				if err != nil || !i.Done() {
					t.Errorf("control: %v", err)
				}
			} else if record.ReasonOf(err) != record.DeviceSuspended || i.Done() {
				t.Errorf("got %+v, %v", i, err)
			}
		})
	}
}

// The approvals' bytes are read and verified again where it is issued.
func TestGatewayApprovalsAreReadAgain(t *testing.T) {
	for name, change := range map[string]string{
		"control":         "",
		"another payload": "UPDATE leaves SET payload = (SELECT payload FROM leaves WHERE id = ?1 - 1) WHERE id = ?1",
	} {
		t.Run(name, func(t *testing.T) {
			c := newCouncil(t)
			csr, names := enrolltest.CSR(t, enrolltest.NewKey(t)), []string{"gateway." + domain}
			b := c.approveGateway(t, csr, names)
			var leaf int64
			c.book.View(func(s *record.State) {
				ballot, _ := s.Ballot(statement.BodyDigest(b))
				leaf = ballot.Signatures[0].Leaf
			})
			if change != "" {
				c.forge(t, change, leaf)
			}
			i, err := c.ca.IssueGateway(t.Context(), csr, names)
			if (err == nil && i.Done()) != (change == "") {
				t.Errorf("got %+v, %v", i, err)
			}
			if change != "" && record.ReasonOf(err) != record.WrongPayload {
				t.Errorf("reason %v", err)
			}
		})
	}
}
