// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"valise/bulletin"
	"valise/internal/daemon"
)

// The example decodes strictly, passes the checks, and leaves no field out.
func TestExample(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.toml")
	if err := (&initCommand{Config: path}).Run(); err != nil {
		t.Fatal(err)
	}
	if err := (&initCommand{Config: path}).Run(); err == nil {
		t.Error("init wrote over a configuration")
	}
	cfg, err := loadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.checkServe(); err != nil {
		t.Error(err)
	}
	if want := filepath.Join(filepath.Dir(path), "audit.jsonl"); cfg.Audit != want {
		t.Errorf("audit = %q, want %q: relative to the file", cfg.Audit, want)
	}
	for _, part := range []reflect.Type{reflect.TypeFor[Config](), reflect.TypeFor[Authority](), reflect.TypeFor[daemon.Syslog](), reflect.TypeFor[Limits](), reflect.TypeFor[Files]()} {
		for i := range part.NumField() {
			name := part.Field(i).Tag.Get("toml")
			if !strings.Contains(string(exampleConfig), "\n"+name+" = ") && !strings.Contains(string(exampleConfig), "\n# "+name+" = ") &&
				!strings.Contains(string(exampleConfig), "["+name+"]") && !strings.Contains(string(exampleConfig), "."+name+"]]") {
				t.Errorf("the example does not explain %q", name)
			}
		}
	}
}

func TestConfigRefusals(t *testing.T) {
	good := string(exampleConfig)
	for name, test := range map[string]struct{ old, new, want string }{
		"misspelt key":    {"deny = ", "denny = ", "denny"},
		"no name":         {"name = \"gateway.interieur.example\"", "", `"name" must be set`},
		"no audit stream": {"audit = \"audit.jsonl\"", "", `"audit" must be set`},
		"nowhere":         {`listen = ["0.0.0.0:4433", "[::]:4433"]`, "", `"listen"`},
		"bad domain":      {`domain = "interieur.example"`, `domain = "Interieur_"`, "domain"},
		"negative limit":  {"burst = 1000", "burst = -1", "negative"},
		"small journal":   {"journal_bytes = 67108864", "journal_bytes = 4096", "journal_bytes 4096"},
		"huge journal":    {"journal_bytes = 67108864", "journal_bytes = 67108864000", "journal_bytes"},
		"shared nowhere":  {"# shared = true", "shared = true", `"folder"`},
		"two places":      {"# folder = ", "s3_endpoint = \"https://s3.example\"\ns3_bucket = \"b\"\ns3_key_source = \"k\"\nfolder = ", "both set"},
		"files over http": {"# s3_endpoint = ", "s3_bucket = \"b\"\ns3_key_source = \"k\"\ns3_endpoint = \"http://s3.example\" #", "http"},
		"no bucket":       {"# s3_endpoint = ", "s3_endpoint = ", `"s3_bucket"`},
		"half a store":    {"# s3_bucket = ", "s3_bucket = ", `"s3_endpoint" is not set`},
		"negative expiry": {`blob_expiry = "720h"`, `blob_expiry = "-1h"`, "negative"},
		"label no bound":  {"# [[limits.label]]", "[[limits.label]]\nclassification = \"SECRET\"\n#", "per_second"},
		"database path":   {"# database = ", "database = \"relay.db\" #", "no PostgreSQL connection string"},
		"password":        {"# database = ", "database = \"postgres://a:b@localhost/x\" #", "holds a password"},
		"two databases":   {"# database_source = ", "database = \"host=/run\"\ndatabase_source = ", "both set"},
		"node alone":      {"# node = ", "node = ", "share a PostgreSQL database"},
		"node's name":     {"# node = \"north\"", "files.s3_endpoint = \"http://127.0.0.1\"\nnode = \"North Gate\"\ndatabase = \"host=/run dbname=a\"", "letters a to z"},
		"node's files":    {"# node = \"north\"", "node = \"north\"\ndatabase = \"host=/run dbname=a\"", "fetched from any"},
		"upside down":     {"# stale_first = \"15m\"", "stale_first = \"25h\"\nstale_all = \"1h\"", "stale_first"},
		"syslog nowhere":  {"# [syslog]", "[syslog]\nserver = \"http://log.example\"\n#", "syslog: server"},
		"plain http":      {"# url = \"https:", "url = \"http:", "authority"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(strings.Replace(good, "# deny = ", "deny = ", 1), test.old, test.new, 1)
			path := filepath.Join(t.TempDir(), "gateway.toml")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg, err := loadConfig(path)
			if err == nil {
				err = cfg.checkServe()
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want something about %s", err, test.want)
			}
		})
	}
	var cfg Config
	if err := daemon.DecodeTOML(good, &cfg); err != nil { // the control
		t.Error(err)
	}
}

// Whoever follows an authority has steps for a stale bulletin, set or not; whoever does
// not has none unless they are set.
func TestTighteningDefaults(t *testing.T) {
	const url = "https://enroll.interieur.example"
	hours := func(n int) daemon.Duration { return daemon.Duration{Duration: time.Duration(n) * time.Hour} }
	for name, test := range map[string]struct {
		given Authority
		want  bulletin.Tightening
	}{
		"nothing":          {Authority{}, bulletin.Tightening{}},
		"an authority":     {Authority{URL: url}, bulletin.DefaultTightening},
		"by hand, and set": {Authority{StaleAll: hours(100)}, bulletin.Tightening{First: bulletin.DefaultTightening.First, All: 100 * time.Hour}},
		"first beyond all": {Authority{URL: url, StaleFirst: hours(30)}, bulletin.Tightening{First: 30 * time.Hour, All: 30 * time.Hour}},
	} {
		if got := test.given.tightening(); got != test.want {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}
