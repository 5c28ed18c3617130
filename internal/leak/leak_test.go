// SPDX-License-Identifier: Apache-2.0

package leak

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each way in which a program may print a secret is found, wherever it stands, and
// nothing is found where there is none.
func TestFinderIsSabotaged(t *testing.T) {
	secret := []byte("the bag leaves at noon \"é\"\n\x00\xff from gate 7")
	key := []byte{0x00, 0x81, 0xff, 0x3e, 0x3f, 0xfb, 0x7f, 0x10, 0x99, 0xaa, 0xbb, 0xcc}
	f, err := New([]Secret{{"text", secret}, {"key", key}})
	if err != nil {
		t.Fatal(err)
	}
	asJSON := func(v any) string {
		var b bytes.Buffer
		slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "v", v)
		return b.String()
	}
	asText := func(v any) string {
		var b bytes.Buffer
		slog.New(slog.NewTextHandler(&b, nil)).Info("x", "v", v)
		return b.String()
	}
	for _, value := range [][]byte{secret, key} {
		leaks := map[string]string{
			"raw": string(value), "hex": hex.EncodeToString(value), "HEX": strings.ToUpper(hex.EncodeToString(value)),
			"hex with colons": strings.TrimSuffix(strings.ReplaceAll(fmt.Sprintf("% x", value), " ", ":"), ":"),
			"%v":              fmt.Sprint(value), "%q": fmt.Sprintf("%q", value), "%+q": fmt.Sprintf("%+q", value), "query": url.QueryEscape(string(value)),
			"base64": base64.StdEncoding.EncodeToString(value), "base64url": base64.RawURLEncoding.EncodeToString(value),
			"slog, text of bytes": asText(value),
		}
		var list []string
		for _, b := range value {
			list = append(list, fmt.Sprint(b))
		}
		leaks["JSON numbers"] = strings.Join(list, ",")
		for before := range 4 {
			for _, e := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
				leaks[fmt.Sprintf("base64 behind %d bytes", before)] = e.EncodeToString(append(make([]byte, before), append(value, 1, 2, 3)...))
			}
		}
		for name, text := range leaks {
			log := "a line\n{\"time\":1,\"v\":\"" + text + "\"}\nmore\n"
			found, err := f.Read("log", strings.NewReader(log))
			if err != nil || len(found) == 0 || found[0].Line != 2 && name != "slog, text of bytes" {
				t.Errorf("%s of %q was not found: %v %v", name, value, found, err)
			}
		}
	}
	if text, _ := json.Marshal(string(secret[:20])); !bytes.Contains(text, secret[:20]) {
		t.Fatal("the control of the next line is wrong")
	}
	if found, _ := f.Read("log", strings.NewReader(asJSON(string(secret)))); len(found) == 0 {
		t.Error("a text in slog's JSON was not found")
	}
	if found, _ := f.Read("log", strings.NewReader("the bag leaves at ten, from gate 7; 0081ff3e3ffb7f1099aabb\n")); len(found) != 0 {
		t.Errorf("found what is not there: %v", found)
	}
}

func TestFinderRefuses(t *testing.T) {
	if _, err := New(nil); err == nil {
		t.Error("a search for nothing")
	}
	if _, err := New([]Secret{{"PIN", []byte("1234")}}); err == nil {
		t.Error("a search for what is everywhere")
	}
	good := []Secret{{"key", []byte("0123456789")}}
	if _, err := Files(good); err == nil {
		t.Error("a search nowhere")
	}
	path := filepath.Join(t.TempDir(), "log")
	if _, err := Files(good, path); err == nil {
		t.Error("a file that is missing has no leak")
	}
	if err := os.WriteFile(path, []byte("x\ny 0123456789\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := Files(good, path)
	if err != nil || len(found) != 1 || found[0].String() != "key is in "+path+", line 2 (as it is)" {
		t.Errorf("%v, %v", found, err)
	}
}
