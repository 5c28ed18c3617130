// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"valise/enroll/desk/call"
	"valise/identity"
	"valise/statement"
)

// OfficerGatewaysCmd is `valise officer gateways`.
type OfficerGatewaysCmd struct {
	List    OfficerGatewaysListCmd    `cmd:"" default:"withargs" help:"List the gateways whose certificates were asked for."`
	Approve OfficerGatewaysApproveCmd `cmd:"" help:"Approve a gateway's certificate."`
}

// OfficerGatewaysListCmd is `valise officer gateways list`.
type OfficerGatewaysListCmd struct{ officerFlags }

// Run lists what was asked for.
func (cmd *OfficerGatewaysListCmd) Run(ctx context.Context, e *env) error {
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		list, err := b.desk.Gateways(ctx)
		for i := range list {
			if e.json {
				err = errors.Join(err, e.print(&list[i]))
				continue
			}
			b.showGateway(&list[i])
		}
		if len(list) == 0 && !e.json && err == nil {
			e.say("no gateway waits for a certificate")
		}
		return err
	})
}

func (b *bureau) showGateway(g *call.Gateway) {
	names := make([]string, len(g.Names))
	for i, name := range g.Names {
		names[i] = line(name)
	}
	b.say("gateway %s: %s", strings.Join(names, ", "), line(g.State))
	b.facts("key", g.Key.String(), "tier", string(g.Tier), "asked", moment(g.Created), "refused", g.Refusal)
	for _, s := range g.Approvals {
		b.facts("approved", s.Address.String()+", "+moment(s.Time))
	}
	if g.Needs > 0 {
		b.facts("needs", plural(g.Needs, "approval"))
	}
	if g.Evidence != nil {
		b.showEvidence(g.Evidence)
	}
}

func (b *bureau) showEvidence(ev *call.Evidence) {
	b.say("evidence (%s):", line(ev.Format))
	for _, c := range ev.Claims {
		b.say("    %s: %s", line(c.Name), line(c.Value))
	}
	b.say("rules:")
	for _, rule := range ev.Reasons {
		b.say("    %-6s %s: %s", map[bool]string{true: "passed", false: "FAILED"}[rule.Passed], line(rule.Rule), line(rule.Detail))
	}
}

// OfficerGatewaysApproveCmd is `valise officer gateways approve`.
type OfficerGatewaysApproveCmd struct {
	signFlags
	Fingerprint string `arg:"" help:"The key's fingerprint, whole, as valise-gatewayd csr prints it at the gateway."`
}

// Run signs what the desk would have issued for this very key.
func (cmd *OfficerGatewaysApproveCmd) Run(ctx context.Context, e *env) error {
	key, err := identity.ParseDeviceID(strings.ToLower(cmd.Fingerprint))
	if err != nil {
		return &hintError{text: "that is no fingerprint: " + err.Error(), hint: "copy all 64 digits from what valise-gatewayd csr prints"}
	}
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		list, err := b.desk.Gateways(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(list, func(g call.Gateway) bool { return g.Key == key })
		if i < 0 {
			return &hintError{text: "no gateway with this key waits", hint: "see: valise officer gateways"}
		}
		b.showGateway(&list[i])
		body, err := gatewayBody(&list[i])
		if err != nil {
			return err
		}
		b.say("compare key and names with what was set up at the gateway")
		_, err = cmd.decide(ctx, b, body)
		return err
	})
}

// gatewayBody is what an officer would sign, if it is about what is shown.
func gatewayBody(g *call.Gateway) (*statement.Gateway, error) {
	if g.Change == nil {
		return nil, &hintError{text: fmt.Sprintf("the gateway cannot be approved: it is %s", line(g.State)), hint: "run valise-enrolld gateway-cert again"}
	}
	parsed, err := g.Change.Parse()
	if err != nil {
		return nil, err
	}
	body, ok := parsed.(*statement.Gateway)
	if !ok || body.Key() != g.Key || body.Tier != g.Tier || !slices.Equal(body.Names, g.Names) {
		return nil, errors.New("what the desk wants signed is not about the gateway that it shows: sign nothing, and tell an auditor")
	}
	return body, nil
}
