// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"errors"
	"testing"
	"time"

	"valise/identity"
)

func TestGatewayRequests(t *testing.T) { eachDatabase(t, testGatewayRequests) }

// There is one request for each key, and the oldest makes room.
func testGatewayRequests(t *testing.T, path string) {
	s, now := testOpen(t, path), time.Now().UTC().Truncate(time.Second)
	put := func(tx *Tx, key byte, names string, at time.Time) error {
		return tx.PutGatewayRequest(GatewayRequest{Key: identity.DeviceID{key}, Change: "c", Names: names, CSR: []byte("csr"), Created: at})
	}
	list := func() (all []GatewayRequest) {
		t.Helper()
		must(t, s.View(t.Context(), func(tx *Tx) (err error) { all, err = tx.GatewayRequests(); return err }))
		return all
	}
	must(t, s.Update(t.Context(), func(tx *Tx) error {
		return errors.Join(put(tx, 1, "a", now), put(tx, 2, "b", now.Add(time.Second)), put(tx, 1, "c d", now.Add(2*time.Second)))
	}))
	all := list()
	if len(all) != 2 || all[0].Names != "b" || all[1].Names != "c d" || all[1].Key != (identity.DeviceID{1}) ||
		string(all[1].CSR) != "csr" || len(all[1].Evidence) != 0 || !all[1].Created.Equal(now.Add(2*time.Second)) {
		t.Errorf("got %+v", all)
	}
	err := s.Update(t.Context(), func(tx *Tx) error {
		return tx.PutGatewayRequest(GatewayRequest{Key: identity.DeviceID{3}, Evidence: make([]byte, maxGatewayRequest+1), Created: now})
	})
	if !errors.Is(err, ErrGatewayRequest) {
		t.Errorf("got %v", err)
	}
	must(t, s.Update(t.Context(), func(tx *Tx) error {
		for i := range MaxGatewayRequests - 1 {
			if err := put(tx, byte(10+i), "x", now.Add(time.Minute)); err != nil {
				return err
			}
		}
		return nil
	}))
	if all = list(); len(all) != MaxGatewayRequests || all[0].Names != "c d" {
		t.Errorf("%d requests, the oldest %q", len(all), all[0].Names)
	}
	must(t, s.Update(t.Context(), func(tx *Tx) error { return tx.DropGatewayRequest(identity.DeviceID{1}) }))
	if all = list(); len(all) != MaxGatewayRequests-1 {
		t.Errorf("%d requests", len(all))
	}
}
