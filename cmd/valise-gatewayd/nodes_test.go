// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"valise/gateway/mailbox"
	"valise/internal/store/relay"
	"valise/internal/testenv"
)

// asNode is the configuration of a node on a database.
func asNode(t *testing.T, dsn, name string) (path string, cfg *Config) {
	t.Helper()
	path, cfg = operated(t)
	files := filepath.Join(t.TempDir(), "files")
	if err := os.Mkdir(files, 0o700); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("database = %q\nnode = %q\n", dsn, name) +
		strings.Replace(string(exampleConfig), "[files]\n", fmt.Sprintf("[files]\nfolder = %q\nshared = true\n", files), 1)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := loadConfig(path)
	if err == nil {
		err = cfg.checkServe()
	}
	if err != nil {
		t.Fatal(err)
	}
	return path, cfg
}

func wantHint(t *testing.T, what string, err, want error) {
	t.Helper()
	var hinted interface{ Hint() string }
	if !errors.Is(err, want) || !errors.As(err, &hinted) || hinted.Hint() == "" {
		t.Errorf("%s: %v, want %v with what to do", what, err, want)
	}
}

// Nodes share a database under names of their own, and with nobody who believes to have it to
// himself; a restore waits for all of them to be stopped.
func TestNodesAndAlone(t *testing.T) {
	dsn := testenv.Postgres(t).DSN
	config, north := asNode(t, dsn, "north")
	s := openStore(t, north)
	_, south := asNode(t, dsn, "south")
	other := openStore(t, south)
	_, twin := asNode(t, dsn, "north")
	_, err := twin.openDatabase(t.Context())
	wantHint(t, "a second one of the name", err, relay.ErrNameInUse)
	_, alone := operated(t)
	alone.Database = dsn
	_, err = alone.openDatabase(t.Context())
	wantHint(t, "a gateway that is no node", err, relay.ErrInUse)
	if err := (&restoredCommand{Config: config, Since: time.Now()}).Run(t.Context()); !errors.Is(err, relay.ErrInUse) {
		t.Errorf("restored under running nodes: %v", err)
	}
	keys, err := s.(mailbox.Node).TransportKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, rotate := range []bool{false, true} {
		if err := (&transportKeysCommand{Config: config, Rotate: rotate}).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		now, err := other.(mailbox.Node).TransportKeys(t.Context())
		if err != nil || (now.Token != keys.Token) != rotate || (now.Reset != keys.Reset) != rotate || (now.Version > keys.Version) != rotate {
			t.Errorf("exchanged: %v; version %d after %d, %v", rotate, now.Version, keys.Version, err)
		}
	}
	if err := (&nodesCommand{Config: config}).Run(t.Context()); err != nil {
		t.Error(err)
	}
	if err := errors.Join(s.Close(), other.Close()); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, alone)
	_, err = north.openDatabase(t.Context())
	wantHint(t, "a node beside a gateway that is alone", err, relay.ErrAlone)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
