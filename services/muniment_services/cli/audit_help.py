"""What `muniment audit --help` and its commands teach. Texts only, so that help comes at once."""

from __future__ import annotations

AUDIT = """Ask the trail who did what, who read what, and what was refused.

Every call is in it once: a write as the event that it led to, everything else
(reads, searches, downloads, refusals, failed sign-ins, and these questions
too) as a call. Asking needs audit:read, as the role auditor has it.

  muniment audit query 'actor:ana action:model.* time:2026-01-01..2026-02-01'
  muniment audit query 'outcome:denied resource:models/fraud*'
  muniment audit facets 'time:2026-01-01..*'
  muniment audit tail 'outcome:denied'
  muniment audit export --query 'resource:models/fraud' --out fraud.zip
  muniment audit reports
  muniment audit report promotions --model fraud
  muniment audit diff --from 2026-01-01 --to 2026-02-01

The language: field:value, where * stands for any characters, comparisons, and
"free text". What stands side by side must all hold; OR, NOT, a - in front, and
parentheses say the rest.

  actor       principal id, or a name: actor:ana
  action      kind.verb: model.transition, run.log, model.read, access.grant
  outcome     success, void (lost a race), allowed, denied, failed
  resource    models/NAME, models/NAME/3, runs/ID, experiments/NAME,
              artifacts/PATH, or just a name or id
  time        2026-01-31, 2026-01-31T12:00, or a..b; * leaves an end open
  status, version, duration_us, bytes_in, bytes_out, offset, partition
              numbers: status:403, status:400..499, status >= 400
  client, agent, auth, token, oauth_client, workspace, request, trace, route,
  method, permission, code, reason, comment, type, topic, kind, id, name, event
              texts

The server wants a token when an issuer is configured: --token, MUNIMENT_TOKEN
or MLFLOW_TRACKING_TOKEN.
"""

QUERY = """List what matches a query, the newest first.

A table on a terminal, a JSON object a line elsewhere; --format csv, parquet or
ocsf (Open Cybersecurity Schema Framework, API Activity) for other tools.

  muniment audit query 'actor:ana -action:run.*'
  muniment audit query 'action:model.transition comment:*incident*' --limit 20
  muniment audit query 'status >= 400 AND NOT code = "RESOURCE_DOES_NOT_EXIST"'
  muniment audit query 'resource:models/fraud/3 action:*.read' --order asc
  muniment audit query 'time:2026-01-01..2026-03-31' --limit 1000000
      --format parquet --out trail
"""

FACETS = """Count what matches a query by action, actor, outcome and kind of resource.

  muniment audit facets
  muniment audit facets 'outcome:denied time:2026-01-01..*'
"""

TAIL = """Follow what matches a query from now on; end it with Ctrl-C.

A connection that breaks is made anew, and nothing is missed or told twice.

  muniment audit tail
  muniment audit tail 'action:model.* OR outcome:denied'
"""

HASH = """Tell what stands in the trail in the place of a sensitive value.

The trail keeps passwords, tokens and the like as keyed hashes only. Whoever
knows a value finds it by its hash; the value is read from standard input.

  read -s VALUE; printf %s "$VALUE" | muniment audit hash
"""

EXPORT = """Write an evidence pack: an answer, its events, and proofs of them.

The pack is a zip that anyone can verify without this server and without
muniment: unpack it and run `python verifier.py`, or `muniment verify --pack`.
In it: a report (HTML and JSON), the events and their schemas, proofs that they
stand in the log, signed heads and keys, and a signed manifest.

What it proves: the events are in the log, unaltered. That they are all that
there is to say is the server's word, unless --complete puts all records in
between in, which tells everything that happened meanwhile to whoever has it.

Events are whole in a pack, with what runs logged; hand it on like the log.
Keep signed heads elsewhere, and name them (--head): the pack then shows that
the log has not changed since.

  muniment audit export --query 'resource:models/fraud/3' --out fraud.zip
  muniment audit export --query 'action:model.* time:2026-01-01..2026-03-31'
      --complete --head catalog-0.head --out quarter.zip
  muniment audit export --question promotions --param model=fraud
      --out promotions.zip
"""

SQL = """Ask a server's trail, registry and runs in SQL.

One SELECT, in DuckDB's words, over tables that are made for it; --tables tells
what is in them. It is answered within a minute, from 100,000 rows at most, and
the statement itself is in the trail. Needs the role auditor on everything.

  muniment sql --tables
  muniment sql "SELECT actor, count(*) FROM audit WHERE outcome = 'denied'
      GROUP BY actor ORDER BY 2 DESC"
  muniment sql "SELECT name, version, from_actor, valid_from FROM stages
      WHERE stage = 'Production' AND valid_to IS NULL"
  muniment sql --format parquet --out lr.parquet "SELECT * FROM params"
  muniment sql - < question.sql

--export writes all tables of one moment to a new folder, which DuckDB, Polars
and Spark read: for each table a folder of Parquet files, and tables.json with
the meaning of each column.

  muniment sql --export tables-2026-01-31
  duckdb -c "SELECT count(*) FROM 'tables-2026-01-31/audit/*.parquet'"
"""

REPORTS = """List the auditor's questions that are answered ready-made.

  muniment audit reports
  muniment audit reports --json
"""

REPORT = """Answer one of the auditor's questions.

The first line is the question, the second the answer in a sentence; below are
what else should be known, and the rows. JSON also has the events that it all
rests on, and the end offsets of the log that it covers.

  muniment audit report promotions --model fraud --version 3
  muniment audit report production-at --at 2026-03-31T12:00:00Z
  muniment audit report production-at --target @champion --at catalog/0/1017
  muniment audit report readers --model fraud --from 2026-01-01
  muniment audit report refusals --principal ana
  muniment audit report credential --credential n1YYgkwDjRCITUH3
  muniment audit report coincidences --from 2026-01-01
  muniment audit report unapproved --at now
  muniment audit report promoters-at --model fraud --at 2026-03-31
  muniment audit report uses --commit 4f2a9c
  muniment audit report completeness

A time is 2026-03-31 (its beginning, in UTC), 2026-03-31T12:00:00Z, milliseconds
since 1970, or the place of an event, as catalog/0/17.
"""

DIFF = """Tell what changed between two moments: models, versions, stages, aliases,
roles and grants, each with the event that changed it last.

What is at the end as it was at the beginning is no change. With --model, roles
and grants are left out.

  muniment audit diff --from 2026-01-01 --to 2026-02-01
  muniment audit diff --from catalog/0/1017 --model 'fraud-*'
"""
