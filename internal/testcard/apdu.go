// SPDX-License-Identifier: Apache-2.0

package testcard

// Instructions. The first block is SP 800-73-4 Part 2, Table 2; the second is
// Yubico's extensions.
const (
	insVerify          = 0x20
	insChangeReference = 0x24
	insResetRetry      = 0x2c
	insGenerate        = 0x47
	insAuthenticate    = 0x87
	insSelect          = 0xa4
	insGetResponse     = 0xc0
	insGetData         = 0xcb
	insPutData         = 0xdb

	insOTPSerial        = 0x01
	insReadConfig       = 0x1d
	insGetMetadata      = 0xf7
	insGetSerial        = 0xf8
	insAttest           = 0xf9
	insSetRetries       = 0xfa
	insReset            = 0xfb
	insGetVersion       = 0xfd
	insImport           = 0xfe
	insSetManagementKey = 0xff
)

// A status is the status word SW1 SW2 (SP 800-73-4 Part 2, Section 2.3).
type status uint16

const (
	swOK              status = 0x9000
	swMoreData        status = 0x6100 // low byte: bytes that are still there
	swWrongTries      status = 0x63c0 // low nibble: tries left
	swMemory          status = 0x6581
	swWrongLength     status = 0x6700
	swLastChained     status = 0x6883
	swSecurity        status = 0x6982
	swBlocked         status = 0x6983
	swConditions      status = 0x6985
	swWrongData       status = 0x6a80
	swNotSupported    status = 0x6a81
	swNoObject        status = 0x6a82
	swNoMemory        status = 0x6a84
	swWrongParameters status = 0x6a86
	swNoReference     status = 0x6a88
	swUnknownINS      status = 0x6d00
	swUnknownCLA      status = 0x6e00
)

// A command is one command APDU in its short form (ISO/IEC 7816-4, Section
// 5.1), after chaining has been put together.
type command struct {
	cla, ins, p1, p2 byte
	data             []byte
	le               int // most bytes wanted in the answer
}

// parseCommand reads a short command APDU of any of the four cases. Extended
// lengths are refused: no client of ours sends them.
func parseCommand(apdu []byte) (command, status) {
	if len(apdu) < 4 {
		return command{}, swWrongLength
	}
	c := command{cla: apdu[0], ins: apdu[1], p1: apdu[2], p2: apdu[3], le: maxResponse}
	body := apdu[4:]
	switch {
	case len(body) == 0: // case 1
		return c, swOK
	case len(body) == 1: // case 2
		c.le = expected(body[0])
		return c, swOK
	}
	lc := int(body[0])
	body = body[1:]
	switch {
	case lc == 0: // 00 hh ll: extended
		return command{}, swWrongLength
	case len(body) == lc: // case 3
	case len(body) == lc+1: // case 4
		c.le = expected(body[lc])
	default:
		return command{}, swWrongLength
	}
	c.data = body[:lc]
	return c, swOK
}

// expected decodes a short Le, where zero means 256.
func expected(le byte) int {
	if le == 0 {
		return maxResponse
	}
	return int(le)
}

// Transmit answers one command APDU. It never fails: whatever is wrong with
// the command is said in the status word at the end of the response.
func (c *Card) Transmit(apdu []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.session.powered {
		return respond(nil, swConditions)
	}
	cmd, sw := parseCommand(apdu)
	if sw != swOK {
		c.session.chain = chain{}
		return respond(nil, sw)
	}
	if cmd.ins == insGetResponse && cmd.cla == 0 {
		return c.more(cmd)
	}
	c.session.pending = nil
	cmd, sw, complete := c.chained(cmd)
	if !complete {
		return respond(nil, sw)
	}
	data, sw := c.dispatch(cmd)
	if sw != swOK {
		return respond(nil, sw)
	}
	c.session.pending = data
	return c.more(cmd)
}

// A chain is a command whose data field arrives in several APDUs.
type chain struct {
	active      bool
	ins, p1, p2 byte
	data        []byte
}

// chained collects the blocks of a chained command (SP 800-73-4 Part 2,
// Section 2.5): all but the last have CLA 10.
func (c *Card) chained(cmd command) (command, status, bool) {
	if cmd.cla != 0x00 && cmd.cla != 0x10 {
		c.session.chain = chain{}
		return cmd, swUnknownCLA, false
	}
	ch := &c.session.chain
	if ch.active && (ch.ins != cmd.ins || ch.p1 != cmd.p1 || ch.p2 != cmd.p2) {
		*ch = chain{}
		if cmd.ins != insSelect { // a new client starts with SELECT
			return cmd, swLastChained, false
		}
	}
	if len(ch.data)+len(cmd.data) > maxChained {
		*ch = chain{}
		return cmd, swWrongLength, false
	}
	if cmd.cla == 0x10 {
		*ch = chain{true, cmd.ins, cmd.p1, cmd.p2, append(ch.data, cmd.data...)}
		return cmd, swOK, false
	}
	cmd.data = append(ch.data, cmd.data...)
	*ch = chain{}
	return cmd, swOK, true
}

// more answers with the next part of the pending response; status 61xx says
// how much is left (ISO/IEC 7816-4, Section 5.3.4).
func (c *Card) more(cmd command) []byte {
	if cmd.ins == insGetResponse && len(c.session.pending) == 0 {
		return respond(nil, swConditions)
	}
	n := min(cmd.le, maxResponse, len(c.session.pending))
	part := c.session.pending[:n]
	c.session.pending = c.session.pending[n:]
	if left := len(c.session.pending); left > 0 {
		return respond(part, swMoreData|status(min(left, 0xff)))
	}
	return respond(part, swOK)
}

func respond(data []byte, sw status) []byte {
	out := make([]byte, 0, len(data)+2)
	return append(append(out, data...), byte(sw>>8), byte(sw))
}
