//go:build depstmp

// Package valise keeps go.sum complete while the first packages are written.
package valise

import (
	_ "github.com/BurntSushi/toml"
	_ "github.com/alecthomas/kong"
	_ "github.com/fxamacker/cbor/v2"
	_ "github.com/go-jose/go-jose/v4"
	_ "github.com/go-piv/piv-go/v2/piv"
	_ "github.com/mholt/acmez/v3"
	_ "github.com/mholt/acmez/v3/acme"
	_ "github.com/miekg/pkcs11"
	_ "github.com/pressly/goose/v3"
	_ "github.com/prometheus/client_golang/prometheus"
	_ "github.com/prometheus/client_golang/prometheus/collectors"
	_ "github.com/prometheus/client_golang/prometheus/promhttp"
	_ "github.com/prometheus/client_golang/prometheus/testutil"
	_ "github.com/quic-go/quic-go"
	_ "github.com/quic-go/quic-go/qlog"
	_ "github.com/quic-go/quic-go/qlogwriter"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "github.com/stefanberger/go-pkcs11uri"
	_ "github.com/zmap/zlint/v3"
	_ "github.com/zmap/zlint/v3/lint"
	_ "github.com/zmap/zlint/v3/lints/rfc"
	_ "golang.org/x/crypto/acme"
	_ "golang.org/x/crypto/cryptobyte"
	_ "golang.org/x/crypto/ocsp"
	_ "golang.org/x/mod/sumdb/note"
	_ "golang.org/x/mod/sumdb/tlog"
	_ "golang.org/x/sync/errgroup"
	_ "golang.org/x/sys/unix"
	_ "golang.org/x/term"
	_ "golang.org/x/time/rate"
	_ "modernc.org/sqlite"
	_ "rsc.io/qr"
)
