// SPDX-License-Identifier: Apache-2.0

// Package policies holds security policies to start from, as XML SPIF: a national one,
// an invented coalition's, and the Traffic Light Protocol. Read them with [Read] and
// spif.Parse, or give the files to `valise policy new --spif`.
//
// They are examples: no authority has approved them. Never put one into force that your
// own officers have not read, and give it identifiers of your own first.
package policies

import (
	"embed"
	"fmt"
)

//go:embed *.xml
var files embed.FS

// Read returns a policy by its name: "france", "coalition", "tlp".
func Read(name string) ([]byte, error) {
	data, err := files.ReadFile(name + ".xml")
	if err != nil {
		return nil, fmt.Errorf("policies: there is none called %.40q", name)
	}
	return data, nil
}
