// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// tileHeight and tileWidth are those of C2SP tlog-tiles, Section "Merkle Tree":
// a tile has eight levels of the tree, and 256 hashes of its lowest.
const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// entriesLevel stands for "entries" where a tile's level stands.
const entriesLevel = -1

// A tile is one file of the log: the hashes from N*256 on at level 8*L of the
// tree, W of them.
type tile struct {
	L int   // entriesLevel: a bundle of leaves
	N int64 // which one of this level
	W int   // 256, or fewer in a partial tile
}

// path returns tile/<L>/<N>[.p/<W>] or tile/entries/<N>[.p/<W>] (C2SP
// tlog-tiles, Sections "Merkle Tree" and "Log Entries"): N in groups of three
// digits, all but the last after an x.
func (t tile) path() string {
	level := "entries"
	if t.L != entriesLevel {
		level = strconv.Itoa(t.L)
	}
	n := fmt.Sprintf("%03d", t.N%1000)
	for rest := t.N / 1000; rest > 0; rest /= 1000 {
		n = fmt.Sprintf("x%03d/%s", rest%1000, n)
	}
	if t.W == tileWidth {
		return "tile/" + level + "/" + n
	}
	return fmt.Sprintf("tile/%s/%s.p/%d", level, n, t.W)
}

// parseTile reads a path; it accepts exactly what path writes.
func parseTile(path string) (t tile, ok bool) {
	parts := strings.Split(path, "/")
	if len(path) > maxPath || len(parts) < 3 || parts[0] != "tile" {
		return tile{}, false
	}
	t.L, t.W = entriesLevel, tileWidth
	if parts[1] != "entries" {
		level, err := strconv.ParseUint(parts[1], 10, 6)
		if err != nil {
			return tile{}, false
		}
		t.L = int(level)
	}
	number := parts[2:]
	if last := len(number) - 2; last >= 0 && strings.HasSuffix(number[last], ".p") {
		width, err := strconv.ParseUint(number[last+1], 10, 8)
		if err != nil || width == 0 {
			return tile{}, false
		}
		number[last] = strings.TrimSuffix(number[last], ".p")
		t.W, number = int(width), number[:last+1]
	}
	for i, group := range number {
		digits, more := strings.CutPrefix(group, "x")
		n, err := strconv.ParseUint(digits, 10, 10)
		if err != nil || n > 999 || more != (i < len(number)-1) || t.N > MaxSize {
			return tile{}, false
		}
		t.N = t.N*1000 + int64(n)
	}
	return t, t.path() == path
}

// width returns how many hashes tile n of a level has in a tree of size
// leaves, 0 if there is no such tile.
func width(size int64, level int, n int64) int {
	if level != entriesLevel {
		if level*tileHeight > 62 {
			return 0
		}
		size >>= level * tileHeight
	}
	if n > size/tileWidth {
		return 0
	}
	return int(min(size-n*tileWidth, tileWidth))
}

// read returns a tile's content from a source: hashes one after the other, or
// leaves with their length before each (tlog-tiles, "Log Entries").
func (t tile) read(ctx context.Context, s Source) ([]byte, error) {
	if t.L != entriesLevel {
		data, err := tlog.ReadTileData(tlog.Tile{H: tileHeight, L: t.L, N: t.N, W: t.W}, reader{ctx, s})
		if err != nil {
			return nil, fmt.Errorf("ledger: reading %s: %w", t.path(), err)
		}
		return data, nil
	}
	leaves, err := s.Leaves(ctx, t.N*tileWidth, t.N*tileWidth+int64(t.W))
	if err != nil {
		return nil, fmt.Errorf("ledger: reading %s: %w", t.path(), err)
	}
	if len(leaves) != t.W {
		return nil, fmt.Errorf("ledger: reading %s: %d leaves instead of %d", t.path(), len(leaves), t.W)
	}
	return bundle(leaves), nil
}

// bundle encodes leaves as an entry bundle.
//
//	opaque leaf<0..2^16-1>, for each
func bundle(leaves []Leaf) []byte {
	data := make([]byte, 0, len(leaves)*(2+LeafSize))
	for _, leaf := range leaves {
		data = binary.BigEndian.AppendUint16(data, LeafSize)
		data = append(data, leaf[:]...)
	}
	return data
}

// A tiler is told leaf after leaf and gives out each tile once: full ones as
// they fill up, and at the end what is partial.
type tiler struct {
	put    func(t tile, data []byte) error
	size   int64
	leaves []Leaf        // of the bundle that is being filled
	levels [][]tlog.Hash // at each level, the hashes of the tile that is being filled
}

func (t *tiler) add(leaf Leaf) error {
	t.leaves = append(t.leaves, leaf)
	t.size++
	if len(t.leaves) == tileWidth {
		if err := t.put(tile{entriesLevel, t.size/tileWidth - 1, tileWidth}, bundle(t.leaves)); err != nil {
			return err
		}
		t.leaves = t.leaves[:0]
	}
	return t.addHash(0, tlog.RecordHash(leaf[:]))
}

func (t *tiler) addHash(level int, hash tlog.Hash) error {
	if level == len(t.levels) {
		t.levels = append(t.levels, nil)
	}
	t.levels[level] = append(t.levels[level], hash)
	if len(t.levels[level]) < tileWidth {
		return nil
	}
	full := t.levels[level]
	n := t.size>>((level+1)*tileHeight) - 1
	if err := t.put(tile{level, n, tileWidth}, joined(full)); err != nil {
		return err
	}
	t.levels[level] = nil
	for len(full) > 1 {
		for i := range len(full) / 2 {
			full[i] = tlog.NodeHash(full[2*i], full[2*i+1])
		}
		full = full[:len(full)/2]
	}
	return t.addHash(level+1, full[0])
}

// finish gives out the partial tiles.
func (t *tiler) finish() error {
	if len(t.leaves) > 0 {
		if err := t.put(tile{entriesLevel, t.size / tileWidth, len(t.leaves)}, bundle(t.leaves)); err != nil {
			return err
		}
	}
	for level, hashes := range t.levels {
		if len(hashes) == 0 {
			continue
		}
		n := t.size >> (level * tileHeight) / tileWidth
		if err := t.put(tile{level, n, len(hashes)}, joined(hashes)); err != nil {
			return err
		}
	}
	return nil
}

func joined(hashes []tlog.Hash) []byte {
	data := make([]byte, 0, len(hashes)*tlog.HashSize)
	for _, h := range hashes {
		data = append(data, h[:]...)
	}
	return data
}
