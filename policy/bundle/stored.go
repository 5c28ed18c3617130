// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"errors"
	"time"

	"valise/policy"
)

// Stored decides again about a message that was admitted earlier and still waits: whether
// its recipient may have it now, by clearance, domain and tier. Its sender is not judged
// again, nor are the rules asked, which are about the moment of sending. A label of an
// edition that is not in force any more is read by the one that is, where that knows it;
// what no edition knows is not handed out. nil grants.
func (b *Bundle) Stored(label *policy.Label, to *End, at time.Time) *Verdict {
	resolved, err := b.Set.Resolve(label, policy.Stored, at)
	if denial, ok := errors.AsType[*policy.Denial](err); ok && denial.Reason == policy.ReasonUnknownEdition {
		present := *label
		present.Edition = 0
		resolved, err = b.Set.Resolve(&present, policy.Stored, at)
	}
	if err != nil {
		return refused(err)
	}
	c, err := b.Set.Clearance(to.Clearance)
	if err != nil {
		return refused(err)
	}
	if err := policy.Decide(resolved, c).Explain(resolved, c); err != nil {
		return refused(err)
	}
	return b.table(label, to, at)
}
