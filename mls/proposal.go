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

// isDefault says whether every client knows the type, RFC 9420, Section 7.2.
func (t ProposalType) isDefault() bool { return t >= 1 && t <= 7 }

// needsPath says whether a commit of it must carry a path, RFC 9420, Section
// 12.4.
func (t ProposalType) needsPath() bool {
	return t != ProposalAdd && t != ProposalPSK && t != ProposalReInit
}

// A Proposal is one change, RFC 9420, Section 12.1. The field that its Type
// names is set. A type other than these cannot be decoded, and is refused.
type Proposal struct {
	Type         ProposalType
	Add          *KeyPackage
	Update       *LeafNode
	Remove       LeafIndex
	PSK          *PSKID
	ReInit       *ReInit
	ExternalInit []byte // kem_output
	Extensions   []Extension
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

func readReInit(r *reader) *ReInit {
	return &ReInit{r.opaque(), r.u16(), Suite(r.u16()), readExtensions(r)}
}

func (x *ReInit) append(b []byte) []byte {
	b = appendU16(appendOpaque(b, x.GroupID), x.Version)
	return appendExtensions(appendU16(b, uint16(x.Suite)), x.Extensions)
}

// readProposal decodes, RFC 9420, Section 12.1:
//
//	struct {
//	    ProposalType proposal_type;
//	    select (Proposal.proposal_type) {
//	        case add:                      KeyPackage key_package;
//	        case update:                   LeafNode leaf_node;
//	        case remove:                   uint32 removed;
//	        case psk:                      PreSharedKeyID psk;
//	        case reinit:                   ReInit;
//	        case external_init:            opaque kem_output<V>;
//	        case group_context_extensions: Extension extensions<V>;
//	    };
//	} Proposal;
func readProposal(r *reader) *Proposal {
	p := &Proposal{Type: ProposalType(r.u16())}
	switch p.Type {
	case ProposalAdd:
		p.Add = readKeyPackage(r)
	case ProposalUpdate:
		p.Update = readLeafNode(r)
	case ProposalRemove:
		p.Remove = LeafIndex(r.u32())
	case ProposalPSK:
		id := readPSKID(r)
		p.PSK = &id
	case ProposalReInit:
		p.ReInit = readReInit(r)
	case ProposalExternalInit:
		p.ExternalInit = r.opaque()
	case ProposalGroupContextExtensions:
		p.Extensions = readExtensions(r)
	default:
		r.fail()
	}
	return p
}

func (p *Proposal) append(b []byte) []byte {
	b = appendU16(b, uint16(p.Type))
	switch p.Type {
	case ProposalAdd:
		return p.Add.append(b)
	case ProposalUpdate:
		return p.Update.append(b)
	case ProposalRemove:
		return appendU32(b, uint32(p.Remove))
	case ProposalPSK:
		return p.PSK.append(b)
	case ProposalReInit:
		return p.ReInit.append(b)
	case ProposalExternalInit:
		return appendOpaque(b, p.ExternalInit)
	}
	return appendExtensions(b, p.Extensions)
}

// complete says whether the field that the type names is set: a proposal that
// a caller made may lack it.
func (p *Proposal) complete() bool {
	switch p.Type {
	case ProposalAdd:
		return p.Add != nil
	case ProposalUpdate:
		return p.Update != nil
	case ProposalPSK:
		return p.PSK != nil
	case ProposalReInit:
		return p.ReInit != nil
	}
	return p.Type.isDefault()
}

// A proposalOrRef is ProposalOrRef of RFC 9420, Section 12.4.
type proposalOrRef struct {
	proposal *Proposal
	ref      []byte
}

func readProposalOrRef(r *reader) proposalOrRef {
	switch r.u8() {
	case 1:
		return proposalOrRef{proposal: readProposal(r)}
	case 2:
		return proposalOrRef{ref: r.opaque()}
	}
	r.fail()
	return proposalOrRef{}
}

func (p proposalOrRef) append(b []byte) []byte {
	if p.proposal != nil {
		return p.proposal.append(append(b, 1))
	}
	return appendOpaque(append(b, 2), p.ref)
}

// An updatePathNode is UpdatePathNode of RFC 9420, Section 7.6.
type updatePathNode struct {
	encryptionKey []byte
	secrets       []hpkeCiphertext
}

func readUpdatePathNode(r *reader) updatePathNode {
	return updatePathNode{r.opaque(), readVector(r, readHPKECiphertext)}
}

func (n updatePathNode) append(b []byte) []byte {
	return appendVector(appendOpaque(b, n.encryptionKey), n.secrets,
		func(b []byte, c hpkeCiphertext) []byte { return c.append(b) })
}

// An updatePath is UpdatePath of RFC 9420, Section 7.6:
//
//	struct { LeafNode leaf_node; UpdatePathNode nodes<V>; } UpdatePath;
type updatePath struct {
	leaf  *LeafNode
	nodes []updatePathNode
}

func readUpdatePath(r *reader) *updatePath {
	return &updatePath{readLeafNode(r), readVector(r, readUpdatePathNode)}
}

func (p *updatePath) append(b []byte) []byte {
	return appendVector(p.leaf.append(b), p.nodes,
		func(b []byte, n updatePathNode) []byte { return n.append(b) })
}

// A commit is Commit of RFC 9420, Section 12.4:
//
//	struct { ProposalOrRef proposals<V>; optional<UpdatePath> path; } Commit;
type commit struct {
	proposals []proposalOrRef
	path      *updatePath
}

func readCommit(r *reader) *commit {
	c := &commit{proposals: readVector(r, readProposalOrRef)}
	if r.optional() {
		c.path = readUpdatePath(r)
	}
	return c
}

func (c *commit) append(b []byte) []byte {
	b = appendVector(b, c.proposals, func(b []byte, p proposalOrRef) []byte { return p.append(b) })
	if b = appendOptional(b, c.path != nil); c.path != nil {
		b = c.path.append(b)
	}
	return b
}
