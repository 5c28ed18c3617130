// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"valise/attest"
	"valise/enroll/ca"
	"valise/identity"
	"valise/internal/store/authority"
	"valise/record"
)

// distrust remembers what stored evidence says, and which devices' evidence the rules
// in force do not accept any more.
type distrust struct {
	mu     sync.Mutex
	known  map[identity.DeviceID]hardware // guarded by mu
	failed []Distrusted                   // guarded by mu; ascending
	rules  [2]int64                       // guarded by mu; the leaves of the rules it was judged by
	judged bool                           // guarded by mu
}

// hardware is what the evidence of a device says of its card.
type hardware struct {
	sum    [32]byte // of the attestation object
	serial string   // identity.SerialHash; empty: it names none
	root   string   // fingerprint, hexadecimal
}

// Distrusted is a device whose evidence no longer passes: the next renewal is refused,
// and the bulletin takes it out of standing until then.
type Distrusted struct {
	Device  identity.DeviceID
	Address identity.Address
	Reason  string // of the appraisal
	Since   time.Time
}

// evidencePage is how many devices' evidence is read at once, 4 KiB each.
const evidencePage = 256

// eachEvidence calls f with the evidence of every device that has a certificate.
func (a *Authority) eachEvidence(ctx context.Context, f func(authority.DeviceEvidence)) error {
	for after := (identity.DeviceID{}); ; {
		var page []authority.DeviceEvidence
		err := a.cfg.Store.View(ctx, func(tx *authority.Tx) (err error) { page, err = tx.Evidence(after, evidencePage); return err })
		if err != nil || len(page) == 0 {
			return err
		}
		for _, e := range page {
			f(e)
		}
		after = page[len(page)-1].Device
	}
}

// hardware returns what the stored evidence says of every device's card. Evidence is
// verified once.
func (a *Authority) hardware(ctx context.Context) (map[identity.DeviceID]hardware, error) {
	appraisers := a.cfg.CA.Appraisers()
	a.trust.mu.Lock()
	defer a.trust.mu.Unlock()
	out := make(map[identity.DeviceID]hardware)
	err := a.eachEvidence(ctx, func(e authority.DeviceEvidence) {
		h, ok := a.trust.known[e.Device]
		if sum := sha256.Sum256(e.Evidence); !ok || h.sum != sum {
			h = readHardware(appraisers[0], e.Evidence, a.cfg.Now())
			h.sum = sum
		}
		out[e.Device] = h
	})
	if err == nil {
		a.trust.known = out
	}
	return out, err
}

func readHardware(by *ca.Appraiser, object []byte, now time.Time) (h hardware) {
	claims, _ := archived(by, object, now)
	if claims == nil {
		return h
	}
	if claims.Key.Serial.Said {
		h.serial = identity.SerialHash(claims.Format, claims.Key.Serial.Value)
	}
	h.root = claims.Key.Root()
	return h
}

// archived judges evidence by itself: its challenge was answered long ago.
func archived(by *ca.Appraiser, object []byte, now time.Time) (*attest.Claims, *attest.Result) {
	refused := func(err error) *attest.Result {
		return &attest.Result{Verdict: attest.Refused, Reasons: []attest.Rule{{Name: "evidence", Reason: attest.ReasonOf(err), Detail: err.Error()}}}
	}
	o, err := attest.ParseAttestationObject(object)
	if err != nil {
		return nil, refused(err)
	}
	claims, err := attest.Verify(o.Evidence(), nil, by.Endorsements, now)
	if err != nil {
		return nil, refused(err)
	}
	return claims, by.Policy.Appraise(claims, attest.Input{Archived: true, Now: now})
}

// Distrusted returns the devices whose stored evidence the rules in force do not
// accept, ascending. It is brought up to date by Work after each change of the rules.
func (a *Authority) Distrusted() []Distrusted {
	a.trust.mu.Lock()
	defer a.trust.mu.Unlock()
	return slices.Clone(a.trust.failed)
}

// Reappraise judges the stored evidence of every device again, if endorsements or
// appraisal policy are not those that it was judged by.
func (a *Authority) Reappraise(ctx context.Context) error {
	if !a.officers() {
		return nil
	}
	var rules [2]int64
	a.book().View(func(s *record.State) { rules = [2]int64{s.Endorsements().Leaf, s.Appraisal().Leaf} })
	a.trust.mu.Lock()
	same := a.trust.judged && a.trust.rules == rules
	a.trust.mu.Unlock()
	if same {
		return nil
	}
	failed, err := a.reappraiseAll(ctx)
	if err != nil {
		return err
	}
	a.trust.mu.Lock()
	a.trust.failed, a.trust.rules, a.trust.judged = failed, rules, true
	a.trust.mu.Unlock()
	var events error
	for _, d := range failed {
		events = errors.Join(events, a.cfg.Event(ctx, "evidence no longer accepted", slog.String("device", d.Device.String()),
			slog.String("address", d.Address.String()), slog.String("reason", d.Reason)))
	}
	return events
}

func (a *Authority) reappraiseAll(ctx context.Context) ([]Distrusted, error) {
	appraisers := a.cfg.CA.Appraisers()
	now := a.cfg.Now().UTC().Truncate(time.Second)
	var failed []Distrusted
	seen := make(map[identity.DeviceID]bool)
	err := a.eachEvidence(ctx, func(e authority.DeviceEvidence) {
		seen[e.Device] = true
		for _, by := range appraisers {
			if _, result := archived(by, e.Evidence, now); !result.Accepted() {
				failed = append(failed, Distrusted{e.Device, e.Address, string(result.Reason()), now})
				return
			}
		}
	})
	if err != nil {
		return nil, err
	}
	// A device in the record whose evidence is gone from the database passes nothing.
	a.book().View(func(s *record.State) {
		for k := range s.Keys() {
			if k.Kind == record.KindDevice && !seen[k.ID] && !k.Newest().NotAfter.Before(now) {
				failed = append(failed, Distrusted{k.ID, k.Address, string(attest.ReasonNoEvidence), now})
			}
		}
	})
	slices.SortFunc(failed, func(x, y Distrusted) int { return x.Device.Compare(y.Device) })
	return failed, nil
}
