// SPDX-License-Identifier: Apache-2.0

package mailbox

// The precedences that are urgent, as wire.Header has them: the store finds what came with
// them without looking at the rest of a mailbox.
const (
	Immediate uint8 = 2
	Flash     uint8 = 3
)

// order puts what is urgent before what waits for the same write, and so gives it the
// lower numbers in its recipients' mailboxes. Nothing passes a commit: what stands on
// one side of it belongs to another epoch. Nothing passes a submission of its own
// device either: those are counted.
func order(batch []item) []item {
	for i := range batch {
		for j := i; j > 0 && mayPass(batch[j].submission, batch[j-1].submission); j-- {
			batch[j], batch[j-1] = batch[j-1], batch[j]
		}
	}
	return batch
}

func mayPass(urgent, waiting *Submission) bool {
	return urgent.Precedence > waiting.Precedence && urgent.Step == nil && waiting.Step == nil && urgent.Device != waiting.Device
}
