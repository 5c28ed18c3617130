// SPDX-License-Identifier: Apache-2.0

package check

import (
	"cmp"
	"errors"

	"valise/hsm"
)

// Token says why a token or one of its keys could not be opened.
func Token(r *Report, what string, err error) {
	reason := "hsm_unusable"
	_, pin := errors.AsType[*hsm.PINError](err)
	switch {
	case pin:
		reason = "pin_wrong"
	case errors.Is(err, hsm.ErrNoPIN):
		reason = "pin_missing"
	case errors.Is(err, hsm.ErrNoToken):
		reason = "token_missing"
	case errors.Is(err, hsm.ErrNoKey):
		reason = "key_missing"
	case errors.Is(err, hsm.ErrNoModule):
		reason = "module_missing"
	}
	r.Fail("hsm", reason, cmp.Or(hsm.Hint(err), "look at the HSM with its own tool (pkcs11-tool --module … -L)"), "%s: %v", what, err)
}
