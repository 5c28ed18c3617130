// SPDX-License-Identifier: Apache-2.0

package mls

// A ProposalType is a number of RFC 9420, Section 17.4.
type ProposalType uint16

const (
	ProposalAdd                    ProposalType = 1
	ProposalUpdate                 ProposalType = 2
	ProposalRemove                 ProposalType = 3
	ProposalPSK                    ProposalType = 4
	ProposalReInit                 ProposalType = 5
	ProposalExternalInit           ProposalType = 6
	ProposalGroupContextExtensions ProposalType = 7
)

// A Proposal is one change, RFC 9420, Section 12.1. The field that its Type
// names is set.
type Proposal struct {
	Type         ProposalType
	Add          *KeyPackage
	Update       *LeafNode
	Remove       LeafIndex
	PSK          *PSKID
	ReInit       *ReInit
	ExternalInit []byte // kem_output
	Extensions   []Extension
	Opaque       []byte // body of an unknown type
}

// AddProposal adds the device of a KeyPackage.
func AddProposal(kp *KeyPackage) Proposal { return Proposal{Type: ProposalAdd, Add: kp} }

// RemoveProposal removes the member at a leaf.
func RemoveProposal(leaf LeafIndex) Proposal { return Proposal{Type: ProposalRemove, Remove: leaf} }

// PSKProposal mixes a pre-shared key into the next epoch.
func PSKProposal(id PSKID) Proposal { return Proposal{Type: ProposalPSK, PSK: &id} }

// ReInitProposal closes the group in favour of a successor.
func ReInitProposal(r ReInit) Proposal { return Proposal{Type: ProposalReInit, ReInit: &r} }

// ExtensionsProposal replaces the group's extensions.
func ExtensionsProposal(ext []Extension) Proposal {
	return Proposal{Type: ProposalGroupContextExtensions, Extensions: ext}
}

// A ReInit names a group's successor, RFC 9420, Section 12.1.5.
type ReInit struct {
	GroupID    []byte
	Version    uint16
	Suite      Suite
	Extensions []Extension
}

// A PSKType is external or resumption, RFC 9420, Section 8.4.
type PSKType uint8

const (
	PSKExternal   PSKType = 1
	PSKResumption PSKType = 2
)

// A PSKUsage says what a resumption secret is used for, RFC 9420, Section 8.4.
type PSKUsage uint8

const (
	PSKApplication PSKUsage = 1
	PSKReInit      PSKUsage = 2
	PSKBranch      PSKUsage = 3
)

// A PSKID names a pre-shared key, RFC 9420, Section 8.4.
type PSKID struct {
	Type    PSKType
	ID      []byte   // PSKExternal
	Usage   PSKUsage // PSKResumption
	GroupID []byte   // PSKResumption
	Epoch   uint64   // PSKResumption
	Nonce   []byte   // fresh, of the suite's hash size; empty is filled in
}
