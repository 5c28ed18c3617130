// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"time"

	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// Import reads a label from a file, whichever of the three forms it has:
// canonical, ESSSecurityLabel in BER, or STANAG 4774 XML. The last two state no
// edition and are read by the one in force at a time. The error is a
// *Denial where the label could be read and is invalid.
func (s *Set) Import(data []byte, at time.Time) (*Label, error) {
	if len(data) == 0 || len(data) > MaxLabelFile {
		return nil, fmt.Errorf("policy: label of %d bytes, want 1 to %d", len(data), MaxLabelFile)
	}
	switch data[0] {
	case canonicalVersion:
		return ParseLabel(data)
	case byte(tag.SET):
		return s.ImportESS(data, at)
	}
	x, err := s.ImportXML(data, at)
	if err != nil {
		return nil, err
	}
	return x.Label, nil
}
