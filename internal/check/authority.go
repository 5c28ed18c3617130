// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"time"
)

// Authority asks another daemon of ours over HTTPS, and says whether it has a certificate
// that the configuration's TLS settings accept. Its clock is the reference, to the second
// that HTTP tells (RFC 9110, Section 5.6.7).
func Authority(ctx context.Context, r *Report, url string, config *tls.Config) Reference {
	client := &http.Client{
		Timeout:       dialLimit,
		Transport:     &http.Transport{TLSClientConfig: config, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		r.Fail("authority", "authority_url", "write https://HOST:PORT", "%v", err)
		return Reference{}
	}
	before := time.Now()
	response, err := client.Do(request)
	after := time.Now()
	if err != nil {
		judgeAuthority(r, err)
		return Reference{}
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, maxAnswer))
	if response.StatusCode != http.StatusOK {
		r.Warn("authority", "authority_answer", "look at the authority: it runs, and has no bulletin to give", "%s answers %s", url, response.Status)
	} else {
		r.OK("authority", "%s answers, with a certificate of the root's, in %v", url, after.Sub(before).Round(time.Millisecond))
	}
	said, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		return Reference{}
	}
	// The header leaves out what is below a second.
	return Reference{Name: "the authority's clock", Said: said.Add(500 * time.Millisecond), Before: before.Add(-500 * time.Millisecond), After: after.Add(500 * time.Millisecond)}
}

func judgeAuthority(r *Report, err error) {
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, name := errors.AsType[x509.HostnameError](err)
	_, invalid := errors.AsType[x509.CertificateInvalidError](err)
	_, verify := errors.AsType[*tls.CertificateVerificationError](err)
	if unknown || name || invalid || verify {
		r.Fail("authority", "authority_certificate", "compare roots and url in the configuration with the authority's: either is wrong, or somebody else answers there", "%v", err)
		return
	}
	r.Warn("authority", "authority_unreachable", "look at the network and at the authority; what it decides is not known here until it answers, and standings grow old", "%v", err)
}
