// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"valise/gateway/blob"
	"valise/gateway/bucket"
	"valise/internal/daemon"
)

// Files say where files lie on their way. Without any of it they are in the folder
// "blobs" of the data directory.
type Files struct {
	Folder     string `toml:"folder"`
	Shared     bool   `toml:"shared"`
	TotalBytes uint64 `toml:"total_bytes"`
	DiskFloor  uint64 `toml:"disk_floor"`

	S3Endpoint  string `toml:"s3_endpoint"`
	S3Bucket    string `toml:"s3_bucket"`
	S3Prefix    string `toml:"s3_prefix"`
	S3Region    string `toml:"s3_region"`
	S3KeySource string `toml:"s3_key_source"`
	S3Roots     string `toml:"s3_roots"`
	S3Uploads   int    `toml:"s3_uploads"`
}

// paths are the fields that are relative to the configuration's folder.
func (f *Files) paths() []*string { return []*string{&f.Folder, &f.S3KeySource, &f.S3Roots} }

// check looks at what the configuration says about files.
func (f *Files) check() error {
	var all []error
	refuse := func(format string, args ...any) {
		all = append(all, fmt.Errorf("configuration: files: "+format, args...))
	}
	switch {
	case f.S3Endpoint == "":
		if f.S3Bucket != "" || f.S3Prefix != "" || f.S3Region != "" || f.S3KeySource != "" || f.S3Roots != "" || f.S3Uploads != 0 {
			refuse(`"s3_endpoint" is not set, and other fields of the object store are`)
		}
		if f.Shared && f.Folder == "" {
			refuse(`"shared" needs a "folder" on a file system that all gateways have mounted, or an object store`)
		}
	case f.Folder != "":
		refuse(`"folder" and "s3_endpoint" are both set: one says where files lie`)
	default:
		if _, err := bucket.CheckEndpoint(f.S3Endpoint); err != nil {
			refuse("%w", err)
		}
		if f.S3Bucket == "" || f.S3KeySource == "" {
			refuse(`"s3_bucket" and "s3_key_source" must be set too`)
		}
		if strings.HasPrefix(f.S3Prefix, "/") || strings.Contains(f.S3Prefix, "..") {
			refuse("s3_prefix %q: want words with / between them", f.S3Prefix)
		}
		if f.S3Uploads < 0 || f.S3Uploads > 1024 {
			refuse("s3_uploads %d: want up to 1024: each takes 8 MiB of memory", f.S3Uploads)
		}
	}
	return errors.Join(all...)
}

// openFiles opens the place of the files; nil: the data directory's.
func (c *Config) openFiles(ctx context.Context) (blob.Place, error) {
	f := &c.Files
	switch {
	case f.S3Endpoint != "":
		return f.openBucket(ctx)
	case f.Folder != "":
		folder, err := blob.OpenFolder(blob.FolderConfig{Dir: f.Folder, Shared: f.Shared})
		if err != nil {
			return nil, err
		}
		return folder, nil
	}
	return nil, nil
}

func (f *Files) openBucket(ctx context.Context) (blob.Place, error) {
	access, secret, err := f.key()
	if err != nil {
		return nil, fmt.Errorf("files: s3_key_source: %w", err)
	}
	cfg := bucket.Config{
		Endpoint: f.S3Endpoint, Bucket: f.S3Bucket, Prefix: f.S3Prefix, Region: f.S3Region, Access: access, Secret: secret, Uploads: f.S3Uploads,
	}
	if f.S3Roots != "" {
		text, err := os.ReadFile(f.S3Roots)
		if err != nil {
			return nil, fmt.Errorf("files: s3_roots: %w", err)
		}
		cfg.Roots = x509.NewCertPool()
		if !cfg.Roots.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("files: s3_roots: %s holds no certificate in PEM", f.S3Roots)
		}
	}
	b, err := bucket.Open(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("files: %w", err)
	}
	return b, nil
}

// key reads the name of the object store's key, and the key: two words in a private file.
func (f *Files) key() (access, secret string, err error) {
	text, err := daemon.ReadPrivate(f.S3KeySource)
	if err != nil {
		return "", "", err
	}
	words := strings.Fields(text)
	if len(words) != 2 {
		return "", "", fmt.Errorf("%s: want two words, the key's name and the key", f.S3KeySource)
	}
	return words[0], words[1], nil
}
