// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"time"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/tlog"

	"valise/ledger"
)

// A backup is one text file, the same for both databases. Each line is a JSON value:
//
//	{"backup": 1, "domain": …, "root": …, "time": …, "leaves": …, "tree": …}
//	{"file": name, "data": base64}            any number of times
//	{"table": name, "columns": [name, …]}     and after each of them its rows:
//	[value, …]                                a number, a text, {"b": base64}, true, false, null
//	{"rows": number, "sha256": hex}           last; the hash is of all lines before
//
// It holds no secret: the keys of open invitations and what authenticates nonces are
// left out, so invitations that were open are void after a restore. The hash
// finds damage, not fraud: the ledger's own signatures do that when it is replayed.
const backupVersion = 1

// maxBackupLine bounds a line. The longest are bulletins, of some bytes for each
// device that is not in good standing.
const maxBackupLine = 64 << 20

// ErrBackup is wrapped by every error of a file that is not a whole backup.
var ErrBackup = errors.New("authority: the backup cannot be used")

// A Backup is what a backup says of itself.
type Backup struct {
	Domain string
	Root   [sha256.Size]byte // hash of the root's certificate
	Time   time.Time
	Head   ledger.Head
	Files  []BackupFile
	Rows   int64
}

// A BackupFile goes with the database.
type BackupFile struct {
	Name string
	Data []byte
}

// lineHeader, lineFile, lineTable and lineEnd are the objects.
type (
	lineHeader struct {
		Backup int       `json:"backup"`
		Domain string    `json:"domain"`
		Root   string    `json:"root"`
		Time   time.Time `json:"time"`
		Leaves int64     `json:"leaves"`
		Tree   tlog.Hash `json:"tree"`
	}
	lineFile struct {
		File string `json:"file"`
		Data []byte `json:"data"`
	}
	lineTable struct {
		Table   string   `json:"table"`
		Columns []string `json:"columns"`
	}
	lineEnd struct {
		Rows   int64  `json:"rows"`
		SHA256 string `json:"sha256"`
	}
	lineBytes struct {
		B *string `json:"b"`
	}
)

// A backupWriter writes lines and hashes them.
type backupWriter struct {
	w    *bufio.Writer
	hash hash.Hash
	rows int64
}

func newBackupWriter(w io.Writer) *backupWriter {
	return &backupWriter{w: bufio.NewWriterSize(w, 64<<10), hash: sha256.New()}
}

func (b *backupWriter) line(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(text) >= maxBackupLine {
		return fmt.Errorf("authority: a row of %d bytes does not fit a backup", len(text))
	}
	text = append(text, '\n')
	b.hash.Write(text)
	_, err = b.w.Write(text)
	return err
}

func (b *backupWriter) row(values []any) error {
	for i, v := range values {
		switch v := v.(type) {
		case []byte:
			text := base64.StdEncoding.EncodeToString(v)
			values[i] = lineBytes{&text}
		case string:
			if !utf8.ValidString(v) {
				return fmt.Errorf("authority: a text in the database is not UTF-8: %q", v)
			}
		case nil, int64, bool:
		default:
			return fmt.Errorf("authority: a value of type %T does not fit a backup", v)
		}
	}
	b.rows++
	return b.line(values)
}

// end writes the last line.
func (b *backupWriter) end() error {
	if err := b.line(lineEnd{Rows: b.rows, SHA256: hex.EncodeToString(b.hash.Sum(nil))}); err != nil {
		return err
	}
	return b.w.Flush()
}

// A backupReader reads lines and hashes them.
type backupReader struct {
	r      *bufio.Reader
	hash   hash.Hash
	number int // of the line
	rows   int64
}

func newBackupReader(r io.Reader) *backupReader {
	return &backupReader{r: bufio.NewReaderSize(r, 64<<10), hash: sha256.New()}
}

// handlers are called for what is read; those that are nil are passed over.
type handlers struct {
	header func(Backup) error
	file   func(BackupFile) error
	table  func(name string, columns []string) error
	row    func(values []any) error
}

// read reads a whole backup. It returns nil only if the last line is there and right.
func (b *backupReader) read(h handlers) error {
	if err := b.header(h.header); err != nil {
		return b.wrap(err)
	}
	columns := -1 // of the table that rows belong to
	for {
		text, sum, err := b.line()
		if err != nil {
			return b.wrap(err)
		}
		switch {
		case text[0] == '[':
			err = b.rowLine(text, columns, h.row)
		case bytes.HasPrefix(text, []byte(`{"table":`)):
			columns, err = tableLine(text, h.table)
		case bytes.HasPrefix(text, []byte(`{"file":`)) && columns < 0:
			err = fileLine(text, h.file)
		case bytes.HasPrefix(text, []byte(`{"rows":`)):
			return b.wrap(b.endLine(text, sum))
		default:
			err = errors.New("a line of unknown kind")
		}
		if err != nil {
			return b.wrap(err)
		}
	}
}

func (b *backupReader) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: line %d: %w", ErrBackup, b.number, err)
}

// line returns the next line without its end, and the hash of the lines before it.
func (b *backupReader) line() (text, sum []byte, err error) {
	b.number++
	for {
		part, err := b.r.ReadSlice('\n')
		text = append(text, part...)
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, nil, fmt.Errorf("the file ends too early: %w", err)
		}
		if len(text) > maxBackupLine {
			return nil, nil, fmt.Errorf("more than %d bytes", maxBackupLine)
		}
	}
	sum = b.hash.Sum(nil)
	b.hash.Write(text)
	if text = text[:len(text)-1]; len(text) == 0 {
		return nil, nil, errors.New("an empty line")
	}
	return text, sum, nil
}

// strictly decodes one JSON value with known members only, in exactly the form that is
// written.
func strictly(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	again, err := json.Marshal(v)
	if err == nil && !bytes.Equal(again, text) {
		err = errors.New("not in the form in which backups are written")
	}
	return err
}

func (b *backupReader) header(handle func(Backup) error) error {
	text, _, err := b.line()
	if err != nil {
		return err
	}
	var h lineHeader
	if err := strictly(text, &h); err != nil {
		return fmt.Errorf("this is no backup of an authority: %w", err)
	}
	if h.Backup != backupVersion {
		return fmt.Errorf("it is of version %d, this program knows %d", h.Backup, backupVersion)
	}
	out := Backup{Domain: h.Domain, Time: h.Time, Head: ledger.Head{N: h.Leaves, Hash: h.Tree}}
	root, err := hex.DecodeString(h.Root)
	if err != nil || copy(out.Root[:], root) != len(out.Root) || len(root) != len(out.Root) {
		return errors.New("it names no root")
	}
	if handle == nil {
		return nil
	}
	return handle(out)
}

func fileLine(text []byte, handle func(BackupFile) error) error {
	var f lineFile
	if err := strictly(text, &f); err != nil {
		return err
	}
	if handle == nil {
		return nil
	}
	return handle(BackupFile{Name: f.File, Data: f.Data})
}

func tableLine(text []byte, handle func(string, []string) error) (columns int, err error) {
	var t lineTable
	if err := strictly(text, &t); err != nil {
		return -1, err
	}
	for _, name := range append(slices.Clone(t.Columns), t.Table) {
		if !plainName(name) {
			return -1, fmt.Errorf("%q is no name of a table or column", name)
		}
	}
	if len(t.Columns) == 0 {
		return -1, fmt.Errorf("table %s has no columns", t.Table)
	}
	if handle != nil {
		err = handle(t.Table, t.Columns)
	}
	return len(t.Columns), err
}

// plainName reports whether a name may stand in a statement as it is.
func plainName(name string) bool {
	for i, r := range name {
		if r != '_' && (r < 'a' || r > 'z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != "" && len(name) <= 63
}

func (b *backupReader) rowLine(text []byte, columns int, handle func([]any) error) error {
	var raw []json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		return err
	}
	if len(raw) != columns {
		return fmt.Errorf("a row of %d values in a table of %d columns", len(raw), columns)
	}
	values := make([]any, len(raw))
	for i, text := range raw {
		var err error
		if values[i], err = value(text); err != nil {
			return err
		}
	}
	b.rows++
	if handle == nil {
		return nil
	}
	return handle(values)
}

// value decodes one value of a row.
func value(text []byte) (any, error) {
	switch text[0] {
	case '{':
		var v lineBytes
		if err := strictly(text, &v); err != nil {
			return nil, err
		}
		if v.B == nil {
			return nil, errors.New("bytes that are null")
		}
		return base64.StdEncoding.Strict().DecodeString(*v.B)
	case '"':
		var v string
		err := json.Unmarshal(text, &v)
		return v, err
	case 't', 'f':
		var v bool
		err := json.Unmarshal(text, &v)
		return v, err
	case 'n':
		return nil, nil
	}
	var v int64
	err := json.Unmarshal(text, &v)
	return v, err
}

func (b *backupReader) endLine(text, sum []byte) error {
	var e lineEnd
	if err := strictly(text, &e); err != nil {
		return err
	}
	if e.SHA256 != hex.EncodeToString(sum) {
		return errors.New("the file was damaged: its hash is another one")
	}
	if e.Rows != b.rows {
		return fmt.Errorf("it has %d rows, and says %d", b.rows, e.Rows)
	}
	if _, err := b.r.ReadByte(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the last line")
	}
	return nil
}

// ReadBackup reads a whole backup and checks that it is complete and undamaged.
func ReadBackup(r io.Reader) (*Backup, error) {
	reader := newBackupReader(r)
	var out Backup
	err := reader.read(handlers{
		header: func(b Backup) error { out = b; return nil },
		file:   func(f BackupFile) error { out.Files = append(out.Files, f); return nil },
	})
	if err != nil {
		return nil, err
	}
	out.Rows = reader.rows
	return &out, nil
}
