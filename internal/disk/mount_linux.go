// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A Mount shows a disk in a folder.
type Mount struct {
	dir    string
	server *fuse.Server
}

// Mount shows the disk in an empty folder. It takes /dev/fuse and the right to mount:
// root's, or that of Debian's package fuse3.
func (d *Disk) Mount(dir string) (*Mount, error) {
	d.mu.Lock()
	root := &node{disk: d, inode: d.root}
	d.mu.Unlock()
	forget := time.Duration(0) // the kernel asks each time: after a cut nothing may be answered from its memory
	server, err := fs.Mount(dir, root, &fs.Options{
		EntryTimeout: &forget, AttrTimeout: &forget,
		RootStableAttr: &fs.StableAttr{Mode: syscall.S_IFDIR, Ino: d.root.number},
		UID:            d.owner[0], GID: d.owner[1],
		MountOptions: fuse.MountOptions{AllowOther: d.owner[0] != 0, DirectMount: true, FsName: "valise-disk", Name: "valise-disk", MaxWrite: 128 << 10},
	})
	if err != nil {
		return nil, fmt.Errorf("disk: mount on %s: %w", dir, err)
	}
	return &Mount{dir, server}, nil
}

// Unmount takes the disk out of its folder, also while programs have files open:
// their calls fail.
func (m *Mount) Unmount() error {
	err := unix.Unmount(m.dir, unix.MNT_DETACH)
	if errors.Is(err, unix.EPERM) {
		err = m.server.Unmount() // by fusermount
	}
	if err != nil {
		return fmt.Errorf("disk: unmount %s: %w", m.dir, err)
	}
	return nil
}

// A node is an inode in a mount.
type node struct {
	fs.Inode
	disk  *Disk
	inode *inode
}

var (
	_ fs.NodeLookuper  = (*node)(nil)
	_ fs.NodeGetattrer = (*node)(nil)
	_ fs.NodeSetattrer = (*node)(nil)
	_ fs.NodeCreater   = (*node)(nil)
	_ fs.NodeMkdirer   = (*node)(nil)
	_ fs.NodeUnlinker  = (*node)(nil)
	_ fs.NodeRmdirer   = (*node)(nil)
	_ fs.NodeRenamer   = (*node)(nil)
	_ fs.NodeLinker    = (*node)(nil)
	_ fs.NodeOpener    = (*node)(nil)
	_ fs.NodeReader    = (*node)(nil)
	_ fs.NodeWriter    = (*node)(nil)
	_ fs.NodeFsyncer   = (*node)(nil)
	_ fs.NodeReaddirer = (*node)(nil)
)

// enter takes the disk's lock; a disk without power answers nothing.
func (n *node) enter() syscall.Errno {
	n.disk.mu.Lock()
	if n.disk.dead {
		n.disk.mu.Unlock()
		return syscall.EIO
	}
	return 0
}

func (n *node) leave() { n.disk.mu.Unlock() }

func (i *inode) attr(out *fuse.Attr) {
	out.Ino, out.Mode, out.Nlink, out.Blksize = i.number, i.mode, 1, pageSize
	if !i.folder() {
		out.Size = uint64(i.size)
		out.Blocks = (out.Size + sectorSize - 1) / sectorSize
	}
}

func (n *node) show(ctx context.Context, child *inode, out *fuse.EntryOut) *fs.Inode {
	child.attr(&out.Attr)
	return n.NewInode(ctx, &node{disk: n.disk, inode: child}, fs.StableAttr{Mode: child.mode & syscall.S_IFMT, Ino: child.number})
}

func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno := n.enter(); errno != 0 {
		return nil, errno
	}
	defer n.leave()
	child := n.inode.entries[name]
	if child == nil {
		return nil, syscall.ENOENT
	}
	return n.show(ctx, child, out), 0
}

func (n *node) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if errno := n.enter(); errno != 0 {
		return errno
	}
	defer n.leave()
	n.inode.attr(&out.Attr)
	return 0
}

func (n *node) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if errno := n.enter(); errno != 0 {
		return errno
	}
	defer n.leave()
	if size, ok := in.GetSize(); ok && !n.inode.folder() {
		n.inode.truncate(int64(size))
	}
	if mode, ok := in.GetMode(); ok {
		n.inode.mode = n.inode.mode&syscall.S_IFMT | mode&0o7777
	}
	n.inode.attr(&out.Attr)
	return 0
}

// add makes a new entry.
func (n *node) add(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno := n.enter(); errno != 0 {
		return nil, errno
	}
	defer n.leave()
	if n.inode.entries[name] != nil {
		return nil, syscall.EEXIST
	}
	if n.disk.room == 0 {
		n.disk.stats.Refused++
		return nil, syscall.ENOSPC
	}
	child := n.disk.newInode(mode)
	n.inode.entries[name] = child
	return n.show(ctx, child, out), 0
}

func (n *node) Create(ctx context.Context, name string, _, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	child, errno := n.add(ctx, name, syscall.S_IFREG|mode&0o7777, out)
	return child, nil, 0, errno
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.add(ctx, name, syscall.S_IFDIR|mode&0o7777, out)
}

func (n *node) Unlink(_ context.Context, name string) syscall.Errno { return n.remove(name, false) }
func (n *node) Rmdir(_ context.Context, name string) syscall.Errno  { return n.remove(name, true) }

func (n *node) remove(name string, folder bool) syscall.Errno {
	if errno := n.enter(); errno != 0 {
		return errno
	}
	defer n.leave()
	child := n.inode.entries[name]
	switch {
	case child == nil:
		return syscall.ENOENT
	case folder && !child.folder():
		return syscall.ENOTDIR
	case !folder && child.folder():
		return syscall.EISDIR
	case folder && len(child.entries) > 0:
		return syscall.ENOTEMPTY
	}
	delete(n.inode.entries, name)
	return 0
}

func (n *node) Rename(_ context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	if errno := n.enter(); errno != 0 {
		return errno
	}
	defer n.leave()
	target, ok := to.(*node)
	if !ok || flags&^unix.RENAME_NOREPLACE != 0 {
		return syscall.EINVAL
	}
	child, there := n.inode.entries[name], target.inode.entries[newName]
	switch {
	case child == nil:
		return syscall.ENOENT
	case there != nil && flags != 0:
		return syscall.EEXIST
	case there != nil && there.folder():
		return syscall.EISDIR
	}
	delete(n.inode.entries, name)
	target.inode.entries[newName] = child
	return 0
}

// Link gives a file a second name.
func (n *node) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno := n.enter(); errno != 0 {
		return nil, errno
	}
	defer n.leave()
	old, ok := target.(*node)
	switch {
	case !ok || old.inode.folder():
		return nil, syscall.EPERM
	case n.inode.entries[name] != nil:
		return nil, syscall.EEXIST
	}
	n.inode.entries[name] = old.inode
	return n.show(ctx, old.inode, out), 0
}

func (n *node) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if errno := n.enter(); errno != 0 {
		return nil, 0, errno
	}
	n.leave()
	return nil, 0, 0
}

func (n *node) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if errno := n.enter(); errno != 0 {
		return nil, errno
	}
	defer n.leave()
	return fuse.ReadResultData(dest[:n.inode.read(dest, off)]), 0
}

func (n *node) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	if errno := n.enter(); errno != 0 {
		return 0, errno
	}
	defer n.leave()
	if d := n.disk; d.room >= 0 {
		pages := n.inode.growth(int64(len(data)), off)
		if pages > d.room {
			d.stats.Refused++
			return 0, syscall.ENOSPC
		}
		d.room -= pages
	}
	n.inode.write(data, off)
	n.disk.stats.Writes++
	return uint32(len(data)), 0
}

// Statfs says what SetRoom left, of a disk of 16 GiB.
func (n *node) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	if errno := n.enter(); errno != 0 {
		return errno
	}
	defer n.leave()
	const pages = 16 << 30 / pageSize
	left := uint64(pages)
	if n.disk.room >= 0 {
		left = uint64(n.disk.room)
	}
	out.Bsize, out.Frsize, out.NameLen = pageSize, pageSize, 255
	out.Blocks, out.Bfree, out.Bavail = pages, left, left
	out.Files, out.Ffree = pages, pages
	return 0
}

// Fsync is of a file or of a folder; fdatasync comes here too, for the size belongs to
// the data.
func (n *node) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	if errno := n.enter(); errno != 0 {
		return errno
	}
	defer n.leave()
	if n.disk.lying {
		n.disk.stats.Lied++
		return 0
	}
	n.inode.sync()
	n.disk.stats.Syncs++
	return 0
}

func (n *node) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	if errno := n.enter(); errno != 0 {
		return nil, errno
	}
	defer n.leave()
	var list []fuse.DirEntry
	for name, child := range n.inode.entries {
		list = append(list, fuse.DirEntry{Name: name, Mode: child.mode, Ino: child.number})
	}
	return fs.NewListDirStream(list), 0
}
