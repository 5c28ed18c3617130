// SPDX-License-Identifier: Apache-2.0

package bulletin

import (
	"testing"
	"time"

	"valise/manifest"
)

// An issuing certificate counts while the manifest names it, for what was issued
// before its end; a bulletin changes nothing about that.
func TestIssuer(t *testing.T) {
	end := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	chain := func(issuer string) [][]byte { return [][]byte{[]byte("leaf"), []byte(issuer), []byte("root")} }
	unknown := NewSet()
	set := unknown.WithManifest(&manifest.Manifest{Issuers: []manifest.Issuer{
		{Certificate: []byte("new")}, {Certificate: []byte("old"), Until: end},
	}})
	after, err := set.WithBulletin(&Bulletin{Number: 1, Time: end, Next: end.Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		set    *Set
		chain  [][]byte
		issued time.Time
		want   bool
	}{
		"no manifest yet":      {unknown, chain("any"), end, true},
		"named":                {set, chain("new"), end.Add(time.Hour), true},
		"before its end":       {set, chain("old"), end, true},
		"after its end":        {set, chain("old"), end.Add(time.Second), false},
		"not named":            {set, chain("stolen"), end, false},
		"nothing above":        {set, chain("new")[:1], end, false},
		"named, with bulletin": {after, chain("new"), end, true},
		"not named, with one":  {after, chain("stolen"), end, false},
		"replaced by the next": {after.WithManifest(&manifest.Manifest{}), chain("new"), end, false},
	} {
		if got := c.set.Issuer(c.chain, c.issued); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
