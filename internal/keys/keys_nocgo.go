// SPDX-License-Identifier: Apache-2.0

//go:build !(cgo && linux)

package keys

import (
	"context"

	"valise/hsm"
)

// ErrNoHardware says that this program was built without access to hardware.
var ErrNoHardware error = &uriError{
	"this program was built without support for cards and HSMs",
	"use a build for Linux with cgo (CGO_ENABLED=1)",
}

func openToken(context.Context, *URI, hsm.PINFunc) (hsm.Token, error) {
	return nil, ErrNoHardware
}
