// SPDX-License-Identifier: Apache-2.0

// The other implementation of Cedar that the Go tests ask. Each line of the
// input is a JSON object with policies (name to text), schema, entities and a
// request; each line of the output says whether the policies validate, and the
// decision with the names of the policies behind it.

import { createInterface } from 'node:readline'
import { createRequire } from 'node:module'

const cedar = createRequire(import.meta.url)('@cedar-policy/cedar-wasm/nodejs')

for await (const line of createInterface({ input: process.stdin })) {
  const q = JSON.parse(line)
  const policies = { staticPolicies: q.policies }
  const checked = cedar.validate({ schema: q.schema, policies, validationSettings: { mode: 'strict' } })
  const valid = checked.type === 'success' && checked.validationErrors.length === 0
  const answer = { valid }
  if (q.request) {
    const a = cedar.isAuthorized({ ...q.request, policies, entities: q.entities, schema: q.schema, validateRequest: true })
    if (a.type === 'success') {
      answer.decision = a.response.decision
      answer.reasons = a.response.diagnostics.reason.sort()
      answer.errors = a.response.diagnostics.errors.map(e => e.policyId).sort()
    } else {
      answer.decision = 'refused'
    }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}
