// SPDX-License-Identifier: Apache-2.0

package file

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// CleanName makes a name from a stranger one that means a plain file in the folder
// it is put into, on any system, and that shows what it is: no folder, no control
// or direction-changing character, no leading dot, no device of Windows.
func CleanName(name string) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError, unicode.IsControl(r), unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co):
			return '_'
		case strings.ContainsRune(`/\:*?"<>|`, r):
			return '_'
		}
		return r
	}, name)
	clean = strings.TrimRight(shorten(strings.TrimSpace(clean)), ". ")
	if clean == "" {
		return "file"
	}
	stem, _, _ := strings.Cut(clean, ".")
	if clean[0] == '.' || clean[0] == '-' || reserved[strings.ToUpper(strings.TrimSpace(stem))] {
		clean = "_" + clean
	}
	return clean
}

// shorten cuts a name in front of its extension, between characters.
func shorten(name string) string {
	if len(name) <= maxName {
		return name
	}
	ext := ""
	if dot := strings.LastIndexByte(name, '.'); dot > 0 && len(name)-dot <= 16 {
		ext = name[dot:]
	}
	cut := maxName - len(ext)
	for cut > 0 && !utf8.RuneStart(name[cut]) {
		cut--
	}
	return name[:cut] + ext
}

// reserved are the names that Windows takes for devices, with any extension.
var reserved = map[string]bool{
	"CON": true, "PRN": true, "AUX": true, "NUL": true, "CONIN$": true, "CONOUT$": true,
	"COM0": true, "COM1": true, "COM2": true, "COM3": true, "COM4": true, "COM5": true, "COM6": true, "COM7": true, "COM8": true, "COM9": true,
	"LPT0": true, "LPT1": true, "LPT2": true, "LPT3": true, "LPT4": true, "LPT5": true, "LPT6": true, "LPT7": true, "LPT8": true, "LPT9": true,
}
