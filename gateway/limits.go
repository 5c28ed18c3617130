// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"time"

	"valise/transport"
	"valise/wire"
)

const (
	// helloTimeout is how long a new connection may take to say Hello, and a
	// TLS handshake to finish: a person may have to enter a PIN meanwhile.
	helloTimeout = 30 * time.Second

	// handshakeBytes bounds a handshake over TCP; QUIC holds back what is not in
	// order. The largest honest one has a certificate chain of 16 KiB.
	handshakeBytes = 64 << 10

	// backRate is how many devices a second are told to come back to a gateway that
	// stops, and backLeast how long it may take to start again at the fastest.
	backRate  = 300
	backLeast = 500 * time.Millisecond

	// Tunnels to the authority: how many in all (a device has one), for how long, how
	// many bytes each way (an order with its evidence takes some tens of KiB), how
	// long dialling may take, and how many requests one counts for. A device may open
	// tunnelBurst at once and then one each tunnelPause: a renewal takes one or two.
	maxTunnels  = 32
	tunnelTime  = 5 * time.Minute
	tunnelBytes = 256 << 10
	tunnelDial  = 10 * time.Second
	tunnelCost  = 10
	tunnelBurst = 6
	tunnelPause = time.Minute

	// renewalGrace is how long after its expiry a certificate still opens a
	// connection that can do nothing but renew it: as long as a device keeps its
	// mailbox and its memberships. Whether it gets one is for the authority.
	renewalGrace = 30 * 24 * time.Hour

	// stormSize is after how many handshakes memory is given back, once none is open and
	// none was over for stormPause.
	stormSize  = 250
	stormPause = 250 * time.Millisecond

	// stormLitter is after how many handshakes their garbage is collected, some 100 KiB
	// each; a third of the connections if that is more, so that a handshake never pays
	// for looking at more than three others.
	stormLitter = 150

	// unprovenPerSource is how many incomplete handshakes of one source there may be
	// before its newcomers have to prove their address.
	unprovenPerSource = 64

	// failureRate and failureBurst bound the handshakes that may fail from one
	// address: each costs the gateway some milliseconds. Whole offices share one, so
	// that it is not small. maxFailing bounds the sources remembered.
	failureRate  = 20
	failureBurst = 500
	maxFailing   = 20_000

	// acceptPause follows an accept that failed for want of descriptors.
	acceptPause = 50 * time.Millisecond

	// idleTimeout ends a connection of which nothing is heard. The gateway sends a
	// packet when it has heard nothing for keepAlive; devices ask as often.
	idleTimeout = 90 * time.Second
	keepAlive   = 25 * time.Second

	// maxStreams is how many streams a device may have open: control, delivery, its
	// transfers of files, a tunnel.
	maxStreams = transport.MaxStreams

	// maxTransfers bounds a device's transfers at one time in each direction,
	// so that files never crowd out messages.
	maxTransfers = 4

	// maxDeviceConnections bounds the connections of one device at one time:
	// the one that works, and others that are about to replace it. One device
	// must not use up what all have together.
	maxDeviceConnections = 8

	// Flow control: what a device may send before the gateway reads it. The
	// connection's window holds all streams' windows, so that a file that waits
	// for the disk does not hold up requests.
	streamWindow     = 256 << 10
	maxStreamWindow  = 1 << 20
	connectionWindow = (maxTransfers + 2) * maxStreamWindow

	// maxUnsent bounds answers that a device has asked for and does not read;
	// beyond it its requests are not read either.
	maxUnsent = 1 << 20

	// maxKept bounds the memory that a connection keeps for its next write: an idle
	// one must stay small.
	maxKept = 4 << 10

	// readAhead is how much is read of a stream at once, when something has come.
	readAhead = 8 << 10

	// lingering is for how long somebody waits for more to send on a connection over which
	// something was sent: a goroutine for each message would cost more.
	lingering = time.Second

	// coalesce is how many bytes of deliveries are collected for one write.
	coalesce = 64 << 10

	// replaceTimeout is how long a new connection waits for the old one of the
	// same device to wind up.
	replaceTimeout = 20 * time.Second

	// leaseTime is for how long one member is asked to remove another before the next
	// one is: three signatures of a slow card (1 s), two round trips, a look at the
	// standings.
	leaseTime = 4 * time.Second

	// maxLeases bounds the leases that wait to be written to one device.
	maxLeases = 64

	// agePause is between two looks at how old the bulletin is, and clockSlack by how
	// much two clocks may differ between them.
	agePause   = time.Second
	clockSlack = 10 * time.Second

	// holdPause is how long the store is left alone after it could not follow.
	holdPause = 5 * time.Second

	// sweepPage is how many groups a walk through the store asks for at a time, and
	// sweepRest how many times as long as it took to look at one it rests after it.
	sweepPage = 64
	sweepRest = 4

	// othersLook is how often what other gateways on the store may have changed is looked
	// for, beside what they tell, and othersPortion how much is asked for in one question.
	othersLook    = 10 * time.Second
	othersPortion = 1000

	// sharedKeysTimeout is how long the store may take to give out the transport keys that
	// gateways share.
	sharedKeysTimeout = 30 * time.Second

	// maxDue bounds the groups that wait for a removal.
	maxDue = 10_000

	// maxAttempters and maxAttempted bound what is remembered of attempts to commit:
	// devices, and groups of each; about 300 bytes each.
	maxAttempters = 20_000
	maxAttempted  = 256

	// expiryInterval is how often mail over age is looked for, expiryPortion how
	// much of it is taken out in one transaction: submissions wait for that one.
	expiryInterval = time.Hour
	expiryPortion  = 500

	// clockStep is how far the machine's clock may be from where it should be after
	// expiryInterval; one that is corrected gradually stays within two seconds.
	// clockSettles is for how long no mail expires after a larger step.
	clockStep    = time.Minute
	clockSettles = 24 * time.Hour

	// tidyInterval is how often maintenance runs: files that expired, the
	// write-ahead log, sizes for the metrics.
	tidyInterval = 30 * time.Second
)

const (
	// maxCircleMembers bounds the compiled clearances in memory, over all
	// conversations: some 250 bytes each.
	maxCircleMembers = 200_000

	// maxSecond bounds the labels that one delivery stream remembers to have judged again,
	// and maxSecondLabel the bytes of each: 32 KiB while a mailbox is drained.
	maxSecond      = 64
	maxSecondLabel = 512

	// maxRouteBytes bounds the decided routes in memory, over all conversations: some
	// 30,000 with labels of 50 bytes, where senders times the labels that each uses is
	// a few thousand in a large gateway. What is not there is decided again.
	maxRouteBytes = 64 << 20
)

// Limits are what an operator may set. Zero fields take the defaults.
type Limits struct {
	// Rate is how many messages a device may send per second, and Burst how
	// many at once. Defaults 200 and 1000.
	Rate  float64
	Burst int
	// Bytes is how many bytes of messages a device may send per second, and BytesBurst
	// how many at once. Defaults 4 MiB and 64 MiB; BytesBurst is at least a frame.
	Bytes      float64
	BytesBurst int
	// Deliveries is how many deliveries a device's messages may become per second, one
	// for each recipient, and DeliveriesBurst how many at once. Defaults 20,000 and
	// 200,000.
	Deliveries      float64
	DeliveriesBurst int
	// Labels bounds the messages of one device under one classification, by its name
	// in the policy. None by default.
	Labels map[string]Rate
	// AlarmAfter refusals of the kind that an honest device does not cause, within
	// AlarmWindow, raise an alarm. Defaults 50 and 10 minutes.
	AlarmAfter  int
	AlarmWindow time.Duration
	// HoldAfter alarms, each within a window of the one before, keep the device out for
	// HoldFor. Defaults 0, which is never, and 15 minutes.
	HoldAfter int
	HoldFor   time.Duration
	// Commits is how many commits a device may attempt per second in one group, and
	// CommitBurst how many at once. Defaults 1 and 60.
	Commits     float64
	CommitBurst int
	// Connections bounds the connections at one time that passed the handshake; default
	// 50,000.
	Connections int
	// Handshakes bounds those that are open at one time, and HandshakesPerSource
	// those of one address; defaults 1000 and 400. Half of the former is what makes
	// newcomers prove their address first.
	Handshakes          int
	HandshakesPerSource int
	// HandshakeTime is how long one may take while the peer is not silent; default
	// 60 s: somebody may be typing a PIN.
	HandshakeTime time.Duration
	// ClientHelloTime is how long the first message of one may take over TCP, for
	// which nobody types anything; default 5 s.
	ClientHelloTime time.Duration
	// FrameTime is how long a frame that has begun may take, on a stream for requests
	// or acknowledgements; default 5 minutes: the largest, 8 MiB, at 230 kbit/s.
	FrameTime time.Duration
	// BlobQuota bounds the bytes of one device's files; default 32 GiB.
	BlobQuota uint64
	// BlobTotal bounds the bytes of all files, 0 does not, and BlobFloor is what their disk
	// keeps free; default 1 GiB.
	BlobTotal, BlobFloor uint64
	// BlobExpiry is how long a file stays; default 30 days.
	BlobExpiry time.Duration
	// MailAge is how long a message waits to be fetched; default 30 days.
	MailAge time.Duration
}

// A Rate is a bound on how often something happens.
type Rate struct {
	Rate  float64 // a second
	Burst int     // at once
}

func (l Limits) withDefaults() Limits {
	l.Rate, l.Burst = cmp.Or(l.Rate, 200), cmp.Or(l.Burst, 1000)
	l.Bytes, l.BytesBurst = cmp.Or(l.Bytes, 4<<20), max(cmp.Or(l.BytesBurst, 64<<20), wire.MaxFrame)
	l.Deliveries, l.DeliveriesBurst = cmp.Or(l.Deliveries, 20_000), cmp.Or(l.DeliveriesBurst, 200_000)
	l.AlarmAfter, l.AlarmWindow = cmp.Or(l.AlarmAfter, 50), cmp.Or(l.AlarmWindow, 10*time.Minute)
	l.HoldFor = cmp.Or(l.HoldFor, 15*time.Minute)
	l.Commits, l.CommitBurst = cmp.Or(l.Commits, 1), cmp.Or(l.CommitBurst, 60)
	l.Connections, l.Handshakes = cmp.Or(l.Connections, 50_000), cmp.Or(l.Handshakes, 1000)
	l.HandshakesPerSource = cmp.Or(l.HandshakesPerSource, min(400, l.Handshakes))
	l.HandshakeTime = cmp.Or(l.HandshakeTime, 2*helloTimeout)
	l.ClientHelloTime = cmp.Or(l.ClientHelloTime, 5*time.Second)
	l.FrameTime = cmp.Or(l.FrameTime, 5*time.Minute)
	l.BlobQuota = cmp.Or(l.BlobQuota, 32<<30)
	l.BlobExpiry, l.MailAge = cmp.Or(l.BlobExpiry, 30*24*time.Hour), cmp.Or(l.MailAge, 30*24*time.Hour)
	return l
}

// What one look into the store brings into memory during a drain.
const (
	readCount = 64
	readBytes = 512 << 10

	// drains is how many connections read stored mail at one time, turnTime how
	// long one keeps the others waiting whose device does not take what is written.
	drains   = 16
	turnTime = 100 * time.Millisecond

	// maxAheadBytes bounds, with wire.MaxAhead, the copies that are sent ahead of a
	// backlog and are not acknowledged in their places: each is sent twice. Those below
	// flash take half of both at most, so that there is room for one.
	maxAheadBytes = 1 << 20

	// drainBuffer is what the mail of one look into the store mostly fits.
	drainBuffer = 96 << 10
)
