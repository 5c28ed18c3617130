// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package pkcs11

import (
	"errors"

	p11 "github.com/miekg/pkcs11"

	"valise/hsm"
)

// A class says what an error asks for.
type class int

const (
	request class = iota // return it: trying again gives the same
	session              // log in and find the keys again, then try once more
	device               // start the module again
)

// classOf classes return values of PKCS#11 v2.40, Section 5.1.
func classOf(err error) class {
	var code p11.Error
	if !errors.As(err, &code) {
		return request
	}
	switch code {
	case p11.CKR_SESSION_HANDLE_INVALID, p11.CKR_SESSION_CLOSED, p11.CKR_OPERATION_ACTIVE,
		p11.CKR_OPERATION_NOT_INITIALIZED, p11.CKR_USER_NOT_LOGGED_IN,
		p11.CKR_KEY_HANDLE_INVALID, p11.CKR_OBJECT_HANDLE_INVALID, p11.CKR_KEY_CHANGED:
		return session
	case p11.CKR_DEVICE_ERROR, p11.CKR_DEVICE_MEMORY, p11.CKR_DEVICE_REMOVED,
		p11.CKR_GENERAL_ERROR, p11.CKR_FUNCTION_FAILED, p11.CKR_CRYPTOKI_NOT_INITIALIZED,
		p11.CKR_TOKEN_NOT_PRESENT, p11.CKR_TOKEN_NOT_RECOGNIZED, p11.CKR_SLOT_ID_INVALID:
		return device
	}
	return request
}

// is tells whether err is the return value code.
func is(err error, code uint) bool {
	var e p11.Error
	return errors.As(err, &e) && e == p11.Error(code)
}

// refuses tells whether the token refused a PIN, so that sending it again would
// cost another try.
func refuses(err error) bool {
	var pin *hsm.PINError
	return errors.As(err, &pin) || errors.Is(err, hsm.ErrLocked)
}

// needsPerson tells whether a login failed in a way that no waiting mends.
func needsPerson(err error) bool { return refuses(err) || errors.Is(err, errAskPIN) }

// errAskPIN marks a failure to obtain a PIN.
var errAskPIN = errors.New("no PIN was obtained")
