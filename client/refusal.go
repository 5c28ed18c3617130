// SPDX-License-Identifier: Apache-2.0

package client

import (
	"fmt"

	"valise/identity"
	"valise/wire"
)

// refusal is what a gateway's code means to the sender.
func refusal(code wire.Code) error {
	text := map[wire.Code]string{
		wire.NotMember:         "this device is no longer a member of the conversation",
		wire.UnknownGroup:      "the gateway does not know this conversation",
		wire.InvalidCommit:     "the gateway refused the change of the conversation as not valid",
		wire.InvalidKeyPackage: "a device's key package is not valid",
		wire.NotAllowed:        "refused: this device may not do that",
		wire.RecipientRefused:  "refused: a recipient may not receive this",
		wire.LabelRefused:      "refused: the gateway does not accept this label",
		wire.LabelRequired:     "refused: the gateway carries nothing without a label",
		wire.NotCleared:        "refused: a recipient is not cleared for this label",
		wire.CeilingLowered:    "refused: the device would lower what the conversation may carry",
		wire.NoBundle:          "the gateway does not hold the policy bundle in force",
		wire.TooLarge:          "the message is too large: send it as a file",
		wire.FileQuota:         "the files that this device has at the gateway leave no room for this one",
		wire.NoRoom:            "the gateway has no room for a file of this size now",
	}[code]
	if text == "" {
		text = "refused by the gateway"
	}
	return &Refused{Code: code, text: text, hint: map[wire.Code]string{
		wire.FileQuota: "wait until recipients have fetched earlier files, or until these expire; or ask the operator for more (blob_bytes)",
		wire.NoRoom:    "it is offered again every few seconds; tell the operator if it does not go",
	}[code]}
}

// refusalAbout is refusal with the device that it is about, and what to do.
func (e *Engine) refusalAbout(s *slot, r *wire.Result) error {
	why, ok := refusal(r.Code).(*Refused)
	if !ok {
		return refusal(r.Code)
	}
	why.hint = map[wire.Code]string{
		wire.RecipientRefused: "valise conversations lists who is there; a device that is suspended has to be removed first, or wait until officers resume it",
		wire.LabelRefused:     "valise labels lists labels that are valid here, and --all says why others are not",
		wire.LabelRequired:    "give it a label: --label; valise labels lists those that you can use",
		wire.NotCleared:       "choose a label that is open to everybody there (valise labels), or write to others without this device",
		wire.CeilingLowered:   "begin a conversation of its own with that person: valise send --name",
	}[r.Code]
	about, named := r.About()
	if !named {
		return why
	}
	for _, m := range e.membersNamed(s, identity.DeviceID(about)) {
		why.text += ": " + m.Address + ", device " + m.Device.String()[:8]
	}
	return why
}

// Refused is the gateway's lasting no.
type Refused struct {
	Code wire.Code
	text string
	hint string
}

// Hint says what to do.
func (r *Refused) Hint() string { return r.hint }

func (r *Refused) Error() string { return fmt.Sprintf("%s (%s)", r.text, r.Code) }
func (r *Refused) Unwrap() error { return r.Code }
