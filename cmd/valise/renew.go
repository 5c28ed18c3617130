// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"valise/client"
)

// renewPause is the time between attempts to renew a certificate.
const renewPause = 10 * time.Minute

// renew gets a new certificate when two thirds of the present one's life are over:
// same key, same account, evidence shown anew.
func (a *agent) renew(s *session) {
	least := time.Duration(0)
	for {
		wait, err := untilRenewal(s.profile, time.Now())
		if err != nil {
			a.log.Error("renewal", "error", err)
			return
		}
		timer := time.NewTimer(max(wait, least))
		least = renewPause // also where the clock is so wrong that a new certificate looks old
		select {
		case <-s.ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if err := a.renewNow(s); err != nil {
			a.log.Warn("the certificate could not be renewed yet", "error", err)
		}
	}
}

// untilRenewal is how long it is until two thirds of a certificate's life are over.
func untilRenewal(p *profile, now time.Time) (time.Duration, error) {
	leaf, err := x509.ParseCertificate(p.Chain[0])
	if err != nil {
		return 0, fmt.Errorf("the device's certificate: %w", err)
	}
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	return leaf.NotBefore.Add(life * 2 / 3).Sub(now), nil
}

func (a *agent) renewNow(s *session) error {
	ctx, cancel := context.WithTimeout(s.ctx, 5*time.Minute)
	defer cancel()
	account, err := accountKey(ctx, s.vault)
	if err != nil {
		return err
	}
	n := client.Enrollment{URL: s.profile.Authority, Account: account, Dial: s.engine.DialAuthority}
	if err := s.card.prove(ctx, &n, s.profile.Witnessed); err != nil {
		return err
	}
	copy(n.Root[:], s.profile.RootHash)
	done, err := n.Do(ctx)
	if err != nil {
		return err
	}
	if done.Device.Address != s.profile.Address {
		return fmt.Errorf("the renewed certificate is for %s", done.Device.Address)
	}
	if done.Record {
		if err := pinRecord(ctx, s.vault); err != nil {
			return err
		}
	}
	next := *s.profile
	next.Chain = done.Chain
	if err := next.save(a.home); err != nil {
		return err
	}
	s.profile.Chain = done.Chain // read by this goroutine alone
	s.engine.Renewed(done.Chain)
	a.log.Info("certificate renewed", "expires", done.Device.Leaf.NotAfter)
	return nil
}
