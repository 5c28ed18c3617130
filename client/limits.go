// SPDX-License-Identifier: Apache-2.0

package client

import "time"

const (
	// MaxText bounds the text of one message. Longer things go as files; a sealed
	// message may have wire.MaxMessage bytes with its padding and signature.
	MaxText = 128 << 10

	// MaxName bounds a conversation's name in bytes.
	MaxName = 200

	// MaxMembers bounds the addresses that one call names.
	MaxMembers = 256

	// maxGap is how far a sender's sequence may jump before the messages between
	// are asked for one by one: one ResendRequest names as many.
	maxGap = 1024

	// lookAhead is how many messages beyond the last known one are asked for after
	// this device's state was lost: nobody can tell it how many there were.
	lookAhead = 256

	// maxTries is how often one message is asked for again. A gateway that alters
	// every copy must not keep cards signing for ever.
	maxTries = 8

	// resendPeriod is for how long sent contents are kept to be sent again.
	resendPeriod = 30 * 24 * time.Hour

	// historyDepth is how many sent contents are kept for it in one conversation.
	historyDepth = 4096

	// stockFull and stockLow are how many one-time KeyPackages wait at the gateway,
	// and when new ones are made. Each costs two signatures of the card (0.2 s).
	stockFull  = 16
	stockLow   = 8
	stockBatch = 4

	// packageLifetime is how long a KeyPackage may be used to add this device; its
	// secrets are kept for secretsPeriod, a grace for Welcomes that wait.
	packageLifetime = 30 * 24 * time.Hour
	secretsPeriod   = 60 * 24 * time.Hour
	lastResortAge   = 7 * 24 * time.Hour

	// handshakeTimeout lets a person enter a PIN while TLS waits for the card.
	handshakeTimeout = 30 * time.Second

	// fallbackAfter is how long a gateway may be silent on one transport before the
	// other one is tried too, fallbackRounds how often it may be silent although UDP
	// passes; quicAgain and quicSeldom bound for how long UDP is
	// believed closed. probeTries and probeWait are for finding out.
	fallbackAfter  = 1500 * time.Millisecond
	fallbackRounds = 4
	quicAgain      = 10 * time.Minute
	quicSeldom     = 4 * time.Hour
	probeTries     = 3
	probeWait      = time.Second

	// maxNodes bounds the addresses that are tried for one connection, and lookupTimeout
	// how long finding them may take.
	maxNodes      = 16
	lookupTimeout = 10 * time.Second

	// nodeAvoid is for how long others are preferred to a node that has just failed, and
	// nodeAvoidMost for how long to one that said when it is back. moveJitter spreads the
	// devices of a node that has ended over a moment.
	nodeAvoid     = 15 * time.Second
	nodeAvoidMost = 10 * time.Minute
	moveJitter    = 400 * time.Millisecond

	// doubtAfter is how long a sign of life may take before it is looked whether the node
	// is there at all, goneTries how often it is asked then.
	doubtAfter = time.Second
	goneTries  = 2

	// directPatience is how long the authority may take to answer before it is tried
	// through the gateway.
	directPatience = 5 * time.Second

	// keepAlive holds a NAT's mapping should a probe be late, and idleTimeout ends a
	// connection whose other end has gone without a word; silence is the same over TCP,
	// where only probes are heard.
	keepAlive   = 30 * time.Second
	idleTimeout = 65 * time.Second
	silence     = 2 * probeIdle

	// probeUsed and probeIdle are between two questions for a sign of life, while the
	// link was in use within usedFor and otherwise: a device that nobody uses wakes
	// its radio and its gateway twice a minute. pingTimeout is for the answer, which
	// waits behind those to earlier requests.
	probeUsed   = 3 * time.Second
	probeIdle   = 25 * time.Second
	usedFor     = time.Minute
	pingTimeout = 20 * time.Second

	// answerTimeout is how long an answer may take before the connection counts
	// as dead.
	answerTimeout = 60 * time.Second

	// catchUpTimeout is how long a commit that the gateway spoke of may take to
	// be delivered before the group is resynced.
	catchUpTimeout = 30 * time.Second

	// healAfter and healWithin say when an epoch is old: after as many messages, or
	// that long after its first one.
	healAfter  = 20
	healWithin = time.Hour

	// healTurn is half of a member's turn to heal, and the distance between two
	// members' beginnings at least: longer than three signatures of a slow card (1 s), a
	// round trip, and the others' dealing with the commit.
	healTurn = 3 * time.Second

	// healLull is how long nobody may have written before the turns begin, so that
	// no message has to be sealed a second time; healPatience is how long such a
	// lull is waited for.
	healLull     = time.Second
	healPatience = 30 * time.Second

	// healPause follows a healing that the card or the gateway refused.
	healPause = 10 * time.Minute

	// foundTurn is one member's turn to found a successor, and foundLatest the last
	// turn: somebody may be waiting to write.
	foundTurn   = 2 * time.Second
	foundLatest = time.Minute

	// vouchers is how many members at least say a word in a successor, so that a
	// second one is heard beside its founder.
	vouchers = 4

	// foundUnknowing is for how long a device leaves it to others to found a successor
	// after the gateway was restored, when it has itself seen nothing of what was
	// forgotten: long enough for those who were connected to come back.
	foundUnknowing = 3 * time.Minute

	// foundPatience is for how long a founder waits, after the gateway was restored, for
	// members of whom it has no KeyPackage: it has forgotten theirs until they connect.
	foundPatience = 2 * time.Minute

	// rollbackAfter is for how long the gateway may show an earlier epoch than was
	// reached; a moment is normal while it takes over a commit. rollbackPause is
	// between two looks.
	rollbackAfter = 3 * time.Second
	rollbackPause = 200 * time.Millisecond

	// resyncTries is how often a resync is tried that the gateway's state of the
	// group does not allow.
	resyncTries = 2

	// forkMessages is how many messages of one sender in a row must not open before
	// the two count as at odds: one may have been altered on the way.
	forkMessages = 2

	// firstBackoff and lastBackoff bound the pause between connection attempts.
	firstBackoff = 200 * time.Millisecond
	lastBackoff  = 30 * time.Second

	// recordPatience is how long a certificate may be missing in the authority's
	// record before its owner is refused: a gateway's copy is seconds behind.
	// recordPause is between two looks, recordAtOnce how many certificates are looked
	// up at one time.
	recordPatience = 20 * time.Second
	recordPause    = 500 * time.Millisecond
	recordAtOnce   = 32

	// standingsAge is how old the known standings may be when somebody is let in,
	// standingsEvery how often they are asked for anyway, and lookPause is between
	// two looks in search of somebody who is to be removed.
	standingsAge   = time.Minute
	standingsEvery = 10 * time.Minute
	lookPause      = time.Second

	// freshPause is between two questions for a bulletin that is newer than one too old to
	// send under.
	freshPause = 30 * time.Second

	// fileFollowUp is how long the gateway is not asked again what became of files that
	// this device brought: another one's nodes may have news that nobody here is told of.
	fileFollowUp = time.Hour

	// retryRefused is the pause before something is offered again that the gateway
	// refused for a passing reason: a full mailbox, a rate.
	retryRefused = 5 * time.Second

	// unsureTries is how often the same bytes are offered that the gateway cannot do, the
	// first time unsureStep after another, then twice that and so on, before a new
	// connection is made to learn whether they were done; unsurePause is the least time
	// between two such connections. Where nothing at all is taken it doubles up to restMost.
	unsureTries = 3
	unsureStep  = time.Second
	unsurePause = 10 * time.Second

	// restMost bounds the pause of one conversation, which doubles: a mailbox that stays
	// full is asked about a dozen times an hour. tellAfter is the pause at which its
	// person is told, where that is not done at once. ratePause is what everything else
	// waits when the device as a whole has used up its rate.
	restMost  = 5 * time.Minute
	tellAfter = 20 * time.Second
	ratePause = time.Second

	// maxClaimed bounds how many messages of one sender that did not open have their
	// labels remembered.
	maxClaimed = 64

	// lawPause is between two looks for a bundle whose leaves the gateway's copy of the
	// record does not reach yet.
	lawPause = time.Second

	// lawLooks is how often, and lawLook how long after another, the bulletin is asked for
	// that names a bundle which the gateway says is in force.
	lawLooks = 50
	lawLook  = 100 * time.Millisecond

	// maxKnownBundles is how many bundles are remembered that were in force before: a
	// message that waited in a mailbox may have been labelled under an old one.
	maxKnownBundles = 1024
)
