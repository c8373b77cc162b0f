"""Hostile input, by the boundary where it comes in. docs/security.md says what each boundary promises.

| module | who is hostile or broken |
| --- | --- |
| `test_records` | a producer: value, key, headers, time and size of a Kafka record |
| `test_objects` | whoever writes objects into the bucket of Kafka Connect |
| `test_contents` | a producer whose records decode: times, texts and numbers that no market has |
| `test_reference_files` | whoever drops reference files |
| `test_feature_sql` | whoever writes feature SQL that would read the future |
| `test_ledger` | a login of the database that would promote by itself |
| `test_rendering` | whoever writes a value that is shown: in Markdown, in the model-risk pack, in the Dagster UI |

What is hostile to the cluster is in `ml_assets_tests/k8s`, which has one: `test_admission`, `test_network` and
`test_s3_policies`. Each module states its kinds as generators (hypothesis) as well as by name: a case that got through
is added to the kind that it belongs to.
"""
