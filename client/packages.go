// SPDX-License-Identifier: Apache-2.0

package client

import (
	"fmt"
	"time"

	"valise/mls"
	"valise/wire"
)

func (e *Engine) lifetime() mls.Lifetime {
	// An hour back, for clocks that differ.
	return mls.NewLifetime(e.now().Add(-time.Hour), e.now().Add(packageLifetime))
}

// publish keeps a stock of this device's KeyPackages at the gateway, a last-resort
// one first. A batch is small, because the card signs twice for each package and
// people's messages go before the next batch. What was refused of them rests under the
// conversation that there is not.
func (e *Engine) publish() (bool, error) {
	if e.now().Before(e.pauses[ConversationID{}].until) {
		return false, nil
	}
	if e.now().Sub(time.Unix(e.meta.LastResort, 0)) > lastResortAge {
		return true, e.offer(1, true)
	}
	if e.stock < stockLow {
		e.filling = true
	}
	if e.stock >= stockFull || !e.filling {
		e.filling = false
		return false, nil
	}
	return true, e.offer(min(stockBatch, stockFull-e.stock), false)
}

func (e *Engine) offer(n int, lastResort bool) error {
	frame := &wire.PutKeyPackages{LastResort: lastResort}
	type made struct {
		ref    []byte
		record packageRecord
	}
	var list []made
	for range n {
		kp, secrets, err := mls.NewKeyPackage(e.identity(), mls.KeyPackageParams{
			Suite: e.suite, Lifetime: e.lifetime(), LastResort: lastResort, Capabilities: capabilities(),
		})
		if err != nil {
			return fmt.Errorf("make a key package: %w", err) // the card; the link is tried again
		}
		ref, err := kp.Ref()
		if err != nil {
			return stopped(err)
		}
		message := kp.Message()
		frame.Packages = append(frame.Packages, message)
		list = append(list, made{ref, packageRecord{Package: message, Secrets: secrets.Marshal(), LastResort: lastResort, Made: e.now().Unix()}})
	}
	err := e.update(func(c *change) error {
		for _, m := range list {
			if err := putJSON(c.Tx, tablePackage, nil, m.ref, m.record); err != nil {
				return err
			}
		}
		if lastResort {
			c.meta.LastResort = e.now().Unix()
		}
		s := &slot{Kind: slotPublish}
		if err := s.encode(frame, c.meta.Counter+1); err != nil {
			return err
		}
		return c.fillSlot(s)
	})
	if err != nil {
		return stopped(err)
	}
	if !lastResort {
		e.stock += n
	}
	return nil
}

// unpublished drops KeyPackages that the gateway did not take, so that nobody was given one
// of them. New ones are made after a while.
func (e *Engine) unpublished(s *slot, code wire.Code) error {
	e.pause(ConversationID{}, code)
	f, err := s.frame()
	if err != nil {
		return err
	}
	put, ok := f.(*wire.PutKeyPackages)
	if !ok {
		return e.putBack(s)
	}
	err = e.update(func(c *change) error {
		if put.LastResort {
			c.meta.LastResort = 0
		}
		for _, message := range put.Packages {
			kp, err := mls.ParseKeyPackage(message)
			if err != nil {
				return err
			}
			ref, err := kp.Ref()
			if err != nil {
				return err
			}
			if err := c.Delete(tablePackage, nil, ref); err != nil {
				return err
			}
		}
		return c.emptySlot(true)
	})
	if err == nil && !put.LastResort {
		e.stock -= len(put.Packages)
	}
	return err
}
