// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"valise/hsm"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]*URI{
		"piv:":                      {Scheme: "piv"},
		"piv:9a":                    {Scheme: "piv", Ref: "9a"},
		"piv:9c?serial=9681620":     {Scheme: "piv", Ref: "9c", Serial: "9681620"},
		"piv:?reader=Yubico%20Yubi": {Scheme: "piv", Reader: "Yubico Yubi"},
		"piv:82?serial=1&reader=y&pin-source=/p/pin": {Scheme: "piv", Ref: "82", Serial: "1", Reader: "y", PINSource: "/p/pin"},
		"tpm:":   {Scheme: "tpm"},
		"tpm:9a": {Scheme: "tpm", Ref: "9a"},
		"tpm:81000100?path=/dev/tpmrm1&pin-source=/p": {Scheme: "tpm", Ref: "81000100", Path: "/dev/tpmrm1", PINSource: "/p"},
		// RFC 7512, Section 3, as far as we use it
		"pkcs11:token=The%20Software%20PKCS%2311%20Softtoken": {Scheme: "pkcs11", Token: "The Software PKCS#11 Softtoken"},
		"pkcs11:token=Software%20PKCS%2311%20softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;object=my-certificate;id=%69%95%3E%5C%F4%BD%EC%91?pin-source=file:/etc/token_pin": {
			Scheme: "pkcs11", Token: "Software PKCS#11 softtoken", Manufacturer: "Snake Oil, Inc.", Model: "1.0",
			Ref: "my-certificate", ID: []byte("\x69\x95\x3e\x5c\xf4\xbd\xec\x91"), PINSource: "/etc/token_pin",
		},
		"pkcs11:serial=0123;object=ca;type=private?module-path=/m.so": {Scheme: "pkcs11", Serial: "0123", Ref: "ca", Module: "/m.so"},
	} {
		got, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if len(got.ID) == 0 {
			got.ID = nil
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{
		"", "9a", "file:key.pem", "PIV:9a", "piv", "piv:9a?serial", "piv:9a?serial=", "piv:9a?serial=1&serial=2",
		"pkcs11", "piv:9a?slot=1", "piv:9a;serial=1", "piv://9a", "piv:9a?pin-source=pin", "piv:9a?serial=%zz", "piv:9a#x",
		"pkcs11:token", "pkcs11:token=", "pkcs11:token=a;token=b", "pkcs11:slot-id=0", "pkcs11:colour=red",
		"pkcs11:token=a?module-path=m.so", "pkcs11:token=a?module-name=x", "pkcs11:token=a?pin-source=pin",
		"pkcs11:token=a?pin-source=|/bin/pin", "pkcs11:token=%zz", "pkcs11:token=a;type=public",
		"tpm", "tpm:/dev/tpmrm0", "tpm:9a?path=tpm", "tpm:9a?serial=1", "tpm:9a?path=/a&path=/b", "tpm:9a?pin-source=p",
		"pkcs11:" + strings.Repeat("a", maxURI),
	} {
		if u, err := Parse(text); !errors.Is(err, ErrURI) || hsm.Hint(err) == "" {
			t.Errorf("%.60q: %+v, %v", text, u, err)
		}
	}
}

// A PIN in a URI is refused, and no message repeats it.
func TestPINNeverInMessages(t *testing.T) {
	const pin = "739154"
	for text, want := range map[string]error{
		"pkcs11:token=ca;object=k?module-path=/m.so&pin-value=" + pin:    ErrPINInURI,
		"pkcs11:token=ca?PIN-VALUE=" + pin:                               ErrPINInURI,
		"pkcs11:token=ca?pin%2Dvalue=" + pin:                             ErrPINInURI,
		"pkcs11:token=ca?pin%252Dvalue=" + pin:                           ErrPINInURI,
		"pkcs11:pin-value=" + pin:                                        ErrPINInURI,
		"piv:9a?pin-value=" + pin:                                        ErrPINInURI,
		"piv:9a?pin=" + pin:                                              ErrURI,
		"piv:9a?" + pin + "=x":                                           ErrURI,
		"pkcs11:token=ca?pin=" + pin:                                     ErrURI,
		"pkcs11:token=ca?" + pin:                                         ErrURI,
		"pkcs11:token=ca?pin-source=" + pin:                              ErrURI,
		"pkcs11:token=ca;pin=" + pin + "?module-path=/m.so":              ErrURI,
		"pkcs11:token=ca;object=k?module-path=/m.so;pin:" + pin + "=%zz": ErrURI,
	} {
		_, err := Parse(text)
		if !errors.Is(err, want) || hsm.Hint(err) == "" {
			t.Errorf("%s: %v", text, err)
		}
		if all := fmt.Sprintf("%v %+v %s", err, err, hsm.Hint(err)); strings.Contains(all, pin) {
			t.Errorf("%s: the message repeats the PIN: %s", text, all)
		}
	}
	if _, err := Parse("pkcs11:token=ca;object=k?module-path=/m.so"); err != nil { // control
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"piv:", "piv:9a?serial=1&reader=x&pin-source=/p", "pkcs11:token=a;object=b;id=%01?module-path=/m.so&pin-source=/p",
		"tpm:9a?path=/dev/tpmrm0&pin-source=/p", "pkcs11:?", "pkcs11:;", "piv:?&", "pkcs11:token=%00%ff",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(u.String())
		if err != nil {
			t.Fatalf("%q became %q: %v", text, u, err)
		}
		if again.String() != u.String() || !reflect.DeepEqual(again, u) {
			t.Errorf("%q became %q, then %q", text, u, again)
		}
		if strings.Contains(strings.ToLower(u.String()), "pin-value") {
			t.Errorf("%q: %s", text, u)
		}
	})
}
