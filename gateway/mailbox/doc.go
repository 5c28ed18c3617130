// SPDX-License-Identifier: Apache-2.0

// Package mailbox keeps what the gateway has promised to deliver: each device's
// ordered mail, and with it everything that must change in the same instant:
// submission counters, group epochs, KeyPackages.
//
// A [Submission] is one request of a device together with all of its effects.
// [Box] collects the submissions that arrive while the previous batch is being
// synced to disk and hands them to the [Store] as the next batch: group commit
// without a timer. One batch is one transaction, so a submission's place in its
// device's sequence, the epoch it depends on, the message, the pointers to it
// and the recipients' counters stand or fall together.
//
// First calls:
//
//	box := mailbox.New(mailbox.Config{Store: store})
//	go box.Run(ctx)
//	outcome, err := box.Do(ctx, &mailbox.Submission{…})   // on disk when it returns Done
//	sub, last, err := box.Subscribe(ctx, device)          // then sub.Next, sub.Wake
//
// Numbers are each device's own: they start at 1, rise by one, and are assigned
// inside the transaction. A reader that has number n never finds a smaller one
// later, which a sequence shared by all devices cannot promise.
//
// Never tell a sender "done" before Do or the callback of Submit has said so.
// Never delete mail otherwise than by the device's acknowledgement, by Expire,
// which tells both ends, or by Purge.
package mailbox
