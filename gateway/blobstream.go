// SPDX-License-Identifier: Apache-2.0

package gateway

import "github.com/quic-go/quic-go"

func (s *session) serveBlobPut(stream *quic.Stream) { cancelStream(stream) }
func (s *session) serveBlobGet(stream *quic.Stream) { cancelStream(stream) }
