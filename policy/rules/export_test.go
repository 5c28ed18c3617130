// SPDX-License-Identifier: Apache-2.0

package rules

import "github.com/cedar-policy/cedar-go"

// Cedar shows the judge a request as this package writes it.
func (q *Request) Cedar() (cedar.EntityMap, cedar.Request) { return q.cedar() }
