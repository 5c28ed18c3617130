// SPDX-License-Identifier: Apache-2.0

package paper

import (
	"bytes"
	"encoding/json"
	"testing/fstest"
	"time"

	"valise/policy/bundle"
)

// Until lets the policy of a folder end at a time. Its tests are then about an hour before.
func (d *Doctrine) Until(folder fstest.MapFS, end time.Time) fstest.MapFS {
	d.t.Helper()
	end = end.UTC().Truncate(time.Second)
	const file = "policies/policy.xml"
	text := bytes.Replace(folder[file].Data, []byte("<SPIF "), []byte(`<SPIF notAfter="`+end.Format(time.RFC3339)+`" `), 1)
	folder[file] = &fstest.MapFile{Data: text}
	var tests []bundle.Test
	if err := json.Unmarshal(folder[bundle.TestsFile].Data, &tests); err != nil {
		d.t.Fatal(err)
	}
	for i := range tests {
		tests[i].At = end.Add(-time.Hour)
	}
	data, err := json.Marshal(tests)
	folder[bundle.TestsFile] = &fstest.MapFile{Data: Must(d.t, data, err)}
	return folder
}
