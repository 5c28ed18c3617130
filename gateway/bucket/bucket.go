// SPDX-License-Identifier: Apache-2.0

package bucket

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"valise/gateway/blob"
)

// A Config says where a bucket is. Endpoint, Bucket, Access and Secret are required.
type Config struct {
	Endpoint string // https://HOST or https://HOST:PORT; http on this machine only
	Bucket   string // which must exist
	Prefix   string // of the names in it
	Region   string
	Access   string // the key's name
	Secret   string
	Roots    *x509.CertPool // nil: those of the system
	Uploads  int            // at one time; 0 means DefaultUploads
}

// A Bucket is a blob.Place.
type Bucket struct {
	core   *minio.Core
	name   string
	prefix string
	slots  chan struct{} // one element for each upload
}

var _ blob.Place = (*Bucket)(nil)

// Open connects, and finds out whether the bucket is there.
func Open(ctx context.Context, cfg Config) (*Bucket, error) {
	u, err := CheckEndpoint(cfg.Endpoint)
	if err != nil {
		return nil, err
	}
	if cfg.Bucket == "" || cfg.Access == "" || cfg.Secret == "" {
		return nil, errors.New("bucket: the bucket's name and a key must be given")
	}
	if cfg.Uploads == 0 {
		cfg.Uploads = DefaultUploads
	}
	core, err := minio.NewCore(u.Host, &minio.Options{
		Creds: credentials.NewStaticV4(cfg.Access, cfg.Secret, ""), Secure: u.Scheme == "https", Region: cfg.Region,
		BucketLookup: minio.BucketLookupPath, MaxRetries: retries, Transport: transportFor(cfg.Roots),
	})
	if err != nil {
		return nil, fmt.Errorf("bucket: %w", err)
	}
	b := &Bucket{core: core, name: cfg.Bucket, prefix: cfg.Prefix, slots: make(chan struct{}, cfg.Uploads)}
	return b, b.Check(ctx)
}

// CheckEndpoint reads the address of an object store.
func CheckEndpoint(endpoint string) (*url.URL, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Path != "" && u.Path != "/" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("bucket: endpoint %.200q: want https://HOST or https://HOST:PORT", endpoint)
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme != "https" && (u.Scheme != "http" || ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("bucket: endpoint %.200q: http is for this machine's own addresses only", endpoint)
	}
	return u, nil
}

func transportFor(roots *x509.CertPool) http.RoundTripper {
	return &http.Transport{
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		DialContext:         (&net.Dialer{Timeout: askTime}).DialContext,
		TLSHandshakeTimeout: askTime, ResponseHeaderTimeout: pieceTime, IdleConnTimeout: time.Minute,
		MaxIdleConnsPerHost: 16, DisableCompression: true, ForceAttemptHTTP2: true,
	}
}

// Check says whether the bucket is there, and may be used.
func (b *Bucket) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	there, err := b.core.BucketExists(ctx, b.name)
	if err != nil {
		return fmt.Errorf("bucket: %s: %w", b.name, err)
	}
	if !there {
		return fmt.Errorf("bucket: there is no bucket %q: make it, or correct its name", b.name)
	}
	return nil
}

func (b *Bucket) key(name string) string { return path.Join(b.prefix, name) }

// missing says that an object, or an upload, is not there.
func missing(err error) bool {
	switch minio.ToErrorResponse(err).Code {
	case minio.NoSuchKey, minio.NoSuchUpload:
		return true
	}
	return minio.ToErrorResponse(err).StatusCode == http.StatusNotFound && minio.ToErrorResponse(err).Code != minio.NoSuchBucket
}

// Has implements blob.Place.
func (b *Bucket) Has(ctx context.Context, name string, size uint64) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	info, err := b.core.StatObject(ctx, b.name, b.key(name), minio.StatObjectOptions{})
	if missing(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("bucket: %w", err)
	}
	return uint64(info.Size) == size, nil
}

// Open implements blob.Place.
func (b *Bucket) Open(ctx context.Context, name string, offset, size uint64) (io.ReadCloser, error) {
	if offset == size {
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	var opts minio.GetObjectOptions
	if err := opts.SetRange(int64(offset), int64(size)-1); err != nil {
		return nil, fmt.Errorf("bucket: %w", err)
	}
	body, _, _, err := b.core.GetObject(ctx, b.name, b.key(name), opts)
	if missing(err) {
		return nil, blob.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("bucket: %w", err)
	}
	return body, nil
}

// Delete implements blob.Place. Uploads that nobody will finish go too.
func (b *Bucket) Delete(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if err := b.core.RemoveObject(ctx, b.name, b.key(name), minio.RemoveObjectOptions{}); err != nil && !missing(err) {
		return fmt.Errorf("bucket: %w", err)
	}
	return b.abort(ctx, b.key(name), func(u *minio.ObjectMultipartInfo) bool { return u.Key == b.key(name) })
}

// Free implements blob.Place: an object store does not tell.
func (*Bucket) Free(context.Context) (uint64, bool) { return 0, false }

// Sweep ends uploads of which no record can know any more: those whose gateway died
// between their beginning and the first record of it. Several gateways may do it.
func (b *Bucket) Sweep(ctx context.Context, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, pieceTime)
	defer cancel()
	return b.abort(ctx, b.prefix, func(u *minio.ObjectMultipartInfo) bool { return now.Sub(u.Initiated) > staleAfter })
}

// abort ends the uploads under a prefix that are to be ended.
func (b *Bucket) abort(ctx context.Context, prefix string, which func(*minio.ObjectMultipartInfo) bool) error {
	key, upload := "", ""
	for {
		page, err := b.core.ListMultipartUploads(ctx, b.name, prefix, key, upload, "", listed)
		if missing(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("bucket: list uploads: %w", err)
		}
		for i := range page.Uploads {
			u := &page.Uploads[i]
			if !which(u) {
				continue
			}
			if err := b.core.AbortMultipartUpload(ctx, b.name, u.Key, u.UploadID); err != nil && !missing(err) {
				return fmt.Errorf("bucket: end an upload: %w", err)
			}
		}
		if !page.IsTruncated || page.NextKeyMarker == key && page.NextUploadIDMarker == upload {
			return nil
		}
		key, upload = page.NextKeyMarker, page.NextUploadIDMarker
	}
}
