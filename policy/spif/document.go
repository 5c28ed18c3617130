// SPDX-License-Identifier: Apache-2.0

package spif

import "time"

// A Document is one SPIF, as written. Fields are named after the schema's
// elements and attributes. Lines are where the element began in the file, 0 in
// a document that was made otherwise.
type Document struct {
	SchemaVersion      string // "1.0", "2.0" or "2.1"
	Edition            uint32 // attribute version; 1 where it is not given
	CreationDate       string
	OriginatorDN       string
	KeyIdentifier      string
	PrivilegeID        string
	RBACID             string
	UserRefURI         string
	DocRefURI          string
	NotBefore          time.Time // zero: no bound
	NotAfter           time.Time
	DefaultPolicy      *Policy // nil: none
	Policy             Policy
	Classifications    []Classification
	ClassificationsTag string  // name of the set of classifications
	ClassMarking       Marking // of all classifications together
	TagSets            []TagSet
	PrivacyMarks       *PrivacyMarks // nil: the policy has none
	EquivalentPolicies []EquivalentPolicy
	Marking            Marking
	Line               int
}

// A Policy names a security policy.
type Policy struct {
	Name, ID string
	Marking  Marking
	Line     int
}

// A Classification is one level. LACV, the label and certificate value, stands
// in labels and clearances and orders nothing: Hierarchy does.
type Classification struct {
	Name        string
	LACV        int
	Hierarchy   int
	Color       string
	Obsolete    bool
	Equivalents []EquivalentClassification
	Marking     Marking
	Required    []Group
	Line        int
}

// A TagSet holds the tags below one object identifier.
type TagSet struct {
	Name, ID    string
	Tags        []Tag
	Equivalents []EquivalentTagSet
	Line        int
}

// A Tag is a list of categories of one type. Name is the tag set's where the
// file gives none.
type Tag struct {
	Name         string
	Type         Type
	MinSelection int
	MaxSelection int // Unbounded: any number
	Categories   []Category
	Qualifiers   []MarkingQualifier
	Line         int
}

// Unbounded stands for "any number" in MaxSelection.
const Unbounded = -1

// A Category is one entry of a tag. Two entries of one name are alternatives:
// a label may meet either.
type Category struct {
	Name          string
	LACV          string // as written; see Number
	UserInput     string
	DateFormat    string
	RequiredClass string
	Obsolete      bool
	NotBefore     time.Time
	NotAfter      time.Time
	Equivalents   []EquivalentCategory
	Marking       Marking
	ExcludedClass []string
	Required      []Group
	Excluded      []Reference
	Line          int
}

// A Group is a requiredCategory: how many of the values referred to a label
// must have.
type Group struct {
	Operation  string // "onlyOne", "oneOrMore" or "all"
	References []Reference
	Line       int
}

// Operations of a Group.
const (
	OnlyOne   = "onlyOne"
	OneOrMore = "oneOrMore"
	All       = "all"
)

// A Reference points to one category by number, or to all of one type in a tag
// set: where neither lacv nor all is given, all are meant.
type Reference struct {
	TagSet string // its name
	Type   Type
	LACV   string // empty: all
	Line   int
}

// A PrivacyMarks is the list of privacy marks.
type PrivacyMarks struct {
	Marks                      []PrivacyMark
	MinSelection, MaxSelection int
	Marking                    Marking
	Line                       int
}

// A PrivacyMark is text beside the classification.
type PrivacyMark struct {
	Name     string
	Obsolete bool
	Marking  Marking
	Line     int
}

// Directions in which an equivalence may be applied.
const (
	Encrypt = "encrypt"
	Decrypt = "decrypt"
	Both    = "both"
)

// An EquivalentPolicy is a policy into which labels may be translated. Name is
// this file's own word for it; ID says which one it is.
type EquivalentPolicy struct {
	Name, ID              string
	UserRefURI, DocRefURI string
	Required              []Group
	Line                  int
}

// An EquivalentClassification names the classification in another policy.
type EquivalentClassification struct {
	PolicyRef string
	LACV      int
	Applied   string
	Required  []Group
	Line      int
}

// An EquivalentCategory names a category in another policy, or says that this
// one may be discarded on the way there.
type EquivalentCategory struct {
	PolicyRef string
	TagSetID  string
	Type      Type
	LACV      string
	Applied   string
	Discard   bool
	Line      int
}

// An EquivalentTagSet maps categories to those of the same name in a tag set
// of another policy.
type EquivalentTagSet struct {
	PolicyRef string
	Name, ID  string
	Required  []Group
	Line      int
}

// A Marking is how a value is shown.
type Marking struct {
	Data       []MarkingData
	Qualifiers []MarkingQualifier
}

// A MarkingData is a phrase in place of a name, in one language ("": any).
type MarkingData struct {
	Phrase    string
	HasPhrase bool // an empty phrase differs from none
	Lang      string
	Codes     []string
}

// A MarkingQualifier stands before, after or between values.
type MarkingQualifier struct {
	Code       string // where it applies; "": everywhere
	Lang       string
	Qualifiers []Qualifier
}

// A Qualifier is one of "prefix", "suffix" and "separator".
type Qualifier struct {
	Text, Code string
}
