// SPDX-License-Identifier: Apache-2.0

package wire

// RestoredMail is the payload of a Deliver of kind DeliverRestored: the gateway was put
// back into the state that it had at Since. What it took after that is lost unless it
// was delivered, and no group that it carried goes on.
//
//	struct { uint64 first; uint64 since; } RestoredMail;
type RestoredMail struct {
	First uint64 // number of the first delivery that the backup does not have
	Since uint64 // milliseconds since 1970
}

func (m *RestoredMail) fields(f field) {
	f.u64(&m.First)
	f.check(m.First > 0)
	f.u64(&m.Since)
}

// ParseRestoredMail parses the payload of a DeliverRestored.
func ParseRestoredMail(data []byte) (*RestoredMail, error) {
	m := new(RestoredMail)
	if err := parse(data, m, "notice of a restored gateway"); err != nil {
		return nil, err
	}
	return m, nil
}

// Marshal encodes m.
func (m *RestoredMail) Marshal() ([]byte, error) { return marshal(m, "notice of a restored gateway") }
