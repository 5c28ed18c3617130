// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"valise/enroll/book"
	"valise/internal/store/authority"
	"valise/record"
)

// Errors for which an order stays, or ceases, to be worth another attempt.
var (
	// ErrApprovals: the order waits for officers. It comes with a
	// *record.MissingError where there are any.
	ErrApprovals = errors.New("ca: approvals are missing")
	// ErrNotOnRoster: the person is not, or no more, on the roster.
	ErrNotOnRoster = errors.New("ca: the address is not on the roster")
	// ErrOrder: the order is not to be issued. It comes as an *OrderError.
	ErrOrder = errors.New("ca: the order is not to be issued")
	// ErrExpired: the recorded certificate's validity has passed unsigned.
	ErrExpired = errors.New("ca: the certificate expired before it was signed")
	// ErrStale: what was recorded is not what would be issued now.
	ErrStale   = errors.New("ca: what was recorded for this request is not what would be issued now")
	errChanged = errors.New("ca: the request changed while its certificate was built")
)

// A RefusedError says that the evidence is not accepted (any more).
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return "ca: the evidence is not accepted: " + e.Reason }

// An OrderError says why an order is not to be issued.
type OrderError struct{ Reason, Detail string }

func (e *OrderError) Error() string { return ErrOrder.Error() + ": " + e.Detail }
func (e *OrderError) Unwrap() error { return ErrOrder }

// Reasons of an OrderError; they stand in the audit stream.
const (
	AccountClosed = "account_deactivated"
	OrderChanged  = "order_changed" // its rows do not fit each other
	WrongProfile  = "wrong_profile" // the order's is not the one that is in force
	WrongDomain   = "wrong_domain"  // the address is outside the authority's
	WrongKey      = "csr_key_mismatch"
)

// evidenceExpired is the reason of evidence that waited longer than the policy's
// valid_hours.
const evidenceExpired = "evidence_expired"

// OrderRef returns an order's reference in the table of issuances.
func OrderRef(id string) string { return "order:" + id }

// facts is everything in the database that a device's certificate is made from.
type facts struct {
	order    authority.Order
	authz    authority.Authorization
	account  authority.Account
	person   authority.Person   // the row; only a lone authority heeds it
	onRoster bool               // there is such a row
	past     authority.Issuance // recorded already, if past.Ref is set
}

// IssueDevice issues the certificate of an order that is "processing", or returns
// the one that was issued. It is safe to call at any time and from several
// goroutines and processes: one certificate comes out.
func (c *CA) IssueDevice(ctx context.Context, order string) (authority.Issuance, error) {
	return c.IssueKnown(ctx, order, nil, nil)
}

// An Opening is what makes an order ready to be issued, as the first thing in tx 1. Done
// says that it came to pass.
type Opening struct {
	Do   func(tx *authority.Tx) error
	Done bool
}

// IssueKnown is IssueDevice for an order whose rows were read a moment ago, if known is
// not nil: as always, they must still be the same when the certificate is recorded. With
// an opening they are what it will have made of them; known must be given then.
func (c *CA) IssueKnown(ctx context.Context, order string, known *authority.Facts, opening *Opening) (authority.Issuance, error) {
	if opening != nil {
		return c.issueDevice(ctx, order, known, opening) // it fails for reasons of its own, which are no one else's
	}
	v, err, _ := c.flights.Do(OrderRef(order), func() (any, error) { return c.issueDevice(ctx, order, known, nil) })
	i, _ := v.(authority.Issuance)
	return i, err
}

func (c *CA) issueDevice(ctx context.Context, order string, known *authority.Facts, opening *Opening) (i authority.Issuance, err error) {
	var f *facts
	var j *judgement
	for attempt := 0; ; attempt++ {
		if attempt == 0 && known != nil {
			f = factsOf(known)
		} else if f, err = c.load(ctx, order); err != nil {
			return i, err
		}
		if opening != nil && (attempt > 0 || f.past.Ref != "") {
			return i, errChanged // it was for the rows as they were
		}
		if f.past.Done() {
			return f.past, nil
		}
		if j, err = c.decide(f); err != nil {
			return authority.Issuance{}, err
		}
		if f.past.Ref != "" {
			// Recorded before a crash, or while the token was away.
			i, err = f.past, c.holds(ctx, f, j)
		} else {
			i, err = c.recordDevice(ctx, f, j, opening)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, errChanged) && !errors.Is(err, authority.ErrExists) || attempt == 3 {
			return authority.Issuance{}, err
		}
	}
	if err := c.step("recorded"); err != nil {
		return i, err
	}
	if !c.led && !i.Done() {
		if i, err = c.complete(ctx, i, order); err == nil {
			return i, c.step("stored")
		}
		if !errors.Is(err, authority.ErrState) {
			return i, err
		}
	}
	return c.finish(ctx, i, func(tx *authority.Tx, s *record.State) error {
		if err := c.confirm(tx, s, f, j); err != nil {
			return err
		}
		return tx.Later().MoveOrder(order, authority.Processing, authority.Valid, "")
	})
}

// complete signs a recorded issuance and stores the certificate, where nothing in the
// record can speak against it any more: in one question. ErrState says that there is more
// to look at.
func (c *CA) complete(ctx context.Context, i authority.Issuance, order string) (authority.Issuance, error) {
	der, err := c.issuer.sign(i.TBS)
	if err != nil {
		return i, err
	}
	if err := c.step("signed"); err != nil {
		return i, err
	}
	err = c.cfg.Book.Standing(func(leaves int64) error { return c.cfg.Store.CompleteOrder(ctx, order, i.Ref, der, leaves) })
	if err == nil {
		i.Certificate = der
	}
	return i, err
}

// load reads what counts only once it is read again where it is recorded.
func (c *CA) load(ctx context.Context, order string) (f *facts, err error) {
	err = c.cfg.Store.Read(ctx, func(tx *authority.Tx) error {
		f, err = loadFacts(tx, order)
		return err
	})
	return f, err
}

func loadFacts(tx *authority.Tx, order string) (*facts, error) {
	all, err := tx.FactsOf(order, OrderRef(order))
	if err != nil {
		return nil, err
	}
	return factsOf(&all), nil
}

func factsOf(all *authority.Facts) *facts {
	return &facts{
		order: all.Order, authz: all.Authorization, account: all.Account,
		person: all.Person, onRoster: all.OnRoster, past: all.Issuance,
	}
}

// open decides whether an order's rows make an order at all.
func (c *CA) open(f *facts) error {
	switch {
	case f.account.Status != authority.Valid:
		return &OrderError{AccountClosed, "its account is closed"}
	case f.order.Status != authority.Processing || f.authz.Status != authority.Valid:
		return &OrderError{OrderChanged, "it is " + f.order.Status + ", its challenge " + f.authz.Status}
	case f.account.Device == nil || *f.account.Device != f.order.Device:
		return &OrderError{OrderChanged, "its account belongs to another device"}
	case f.order.Profile != c.cfg.Device.Name:
		return &OrderError{WrongProfile, fmt.Sprintf("its profile %q is not configured", f.order.Profile)}
	case f.past.Ref != "" && c.cfg.Now().After(f.past.NotAfter):
		return ErrExpired
	}
	return nil
}

// decide judges an order by everything but its approvals' bytes: what would be
// issued, and that enough approvals of it are recorded.
func (c *CA) decide(f *facts) (*judgement, error) {
	if err := c.open(f); err != nil {
		return nil, err
	}
	j, err := c.judge(f)
	if err != nil {
		return nil, err
	}
	if !c.led {
		_, err = c.carriers(nil, j)
		return j, err
	}
	c.cfg.Book.View(func(s *record.State) { _, err = c.carriers(s, j) })
	return j, err
}

// recordDevice builds the certificate and runs tx 1.
func (c *CA) recordDevice(ctx context.Context, f *facts, j *judgement, opening *Opening) (authority.Issuance, error) {
	i, err := c.buildDevice(f, j)
	if err != nil {
		return i, err
	}
	if err := c.step("built"); err != nil {
		return i, err
	}
	err = c.cfg.Book.Update(ctx, func(tx *authority.Tx, s *record.State, add book.Append) error {
		if opening != nil {
			if err := opening.Do(tx); err != nil {
				return err
			}
		}
		again, err := loadFacts(tx, f.order.ID)
		if err != nil {
			return err
		}
		if !reflect.DeepEqual(f, again) {
			return errChanged
		}
		if err := c.confirm(tx, s, f, j); err != nil {
			return err
		}
		i, err = enter(tx, add, i, c.cfg.Now())
		return err
	})
	if opening != nil {
		opening.Done = err == nil
	}
	return i, err
}

func (c *CA) buildDevice(f *facts, j *judgement) (authority.Issuance, error) {
	none := authority.Issuance{}
	profile := j.profile
	profile.Serial = newSerial()
	profile.NotBefore, profile.NotAfter = c.validity(j.rules.life)
	template, err := profile.Template()
	if err != nil {
		return none, err
	}
	tbs, err := c.issuer.build(template)
	if err != nil {
		return none, err
	}
	return authority.Issuance{
		Ref: OrderRef(f.order.ID), Kind: "device", Subject: profile.Address.String(),
		Request: digest(f.order.CSR), Serial: profile.Serial.Bytes(), TBS: tbs, NotAfter: profile.NotAfter,
	}, nil
}

// Certificate returns the account and the status of an order, and the certificate that
// was issued for it, or none.
func (c *CA) Certificate(ctx context.Context, order string) (account int64, status string, certificate []byte, err error) {
	err = c.cfg.Store.Read(ctx, func(tx *authority.Tx) error {
		account, status, certificate, err = tx.CertificateOf(order, OrderRef(order))
		return err
	})
	return account, status, certificate, err
}
