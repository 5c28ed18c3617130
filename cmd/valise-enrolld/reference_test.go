// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/alecthomas/kong"

	"valise/internal/handbook"
	"valise/internal/testenv"
)

// TestReference: docs/reference.md lists every command with every option.
func TestReference(t *testing.T) {
	k, err := kong.New(new(cli), kong.Name("valise-enrolld"))
	if err != nil {
		t.Fatal(err)
	}
	page := filepath.Join(testenv.Root(t), "docs", "reference.md")
	if err := handbook.Update(page, "commands of valise-enrolld", handbook.Commands(k.Model), os.Getenv("VALISE_UPDATE") != ""); err != nil {
		t.Error(err)
	}
}
