"""The desk: pages on which analysts work the list and say what they did, and on which their lead sees how it goes.

| module | holds |
| --- | --- |
| `people` | who asks, and who may what |
| `rows` | pure: a row of the list as people read it; filters, order, what has changed |
| `lists` | the lists in memory: snapshots that do not move under the reader |
| `drawn` | pure: bars, the waterfall of reasons, the probability from slot to slot, as SVG |
| `sayings` | pure: a form to what is said of which rows |
| `lead` | what the lead's page shows |
| `pages` | templates, and how values look in them |
| `app` | HTTP: routes, and what guards them |

What a score, a reason or an outcome is does not belong here, nor rules of what may follow what
(`predictions.feedback`). Pages work without JavaScript.
"""
