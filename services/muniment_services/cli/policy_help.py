"""What `muniment policy --help` and its commands teach. Texts only, so that help comes at once."""

from __future__ import annotations

POLICY = """Say what it takes to bring a model's version to a stage or an alias.

Where a policy is in force, nobody moves a version by a plain call: somebody
asks (transition-requests/create), others approve, and the last approval that
is needed moves it. Of several policies all must be met. They count from the
moment they are made, for open requests too. Who may approve at all is a matter
of grants: `muniment access grant approver …`.

The server wants a token when an issuer is configured: --token, MUNIMENT_TOKEN
or MLFLOW_TRACKING_TOKEN.

  muniment policy set four-eyes --model '*' --stage Production
  muniment policy set quorum --model 'credit-*' --stage Production
      --alias champion --approvals 2 --approver-group risk
      --condition 'metrics.auc > 0.8'
  muniment policy list
"""

SET = """Make a policy, or replace what it says; for admins.

All that a policy asks for stands in one call: what is not said is not asked
for, whatever the policy said before.

  --model NAME          * in NAME stands for any characters
  --stage, --alias      what is guarded; at least one of them
  --approvals 2         by two people; 0: plain calls may move the version,
                        if all the rest is met
  --allow-requester     whoever asks may approve as well; --allow-author:
                        whoever registered the version or one that it is a
                        copy of, or made its run or logged model. Without
                        these, neither may
  --approver-group risk only approvals by members of one of the groups count;
                        risk@ISSUER where several issuers are configured
  --tag checked=yes     the version must have that tag; --tag checked: of any
                        value
  --condition TEXT      must be true of the version's source run, in the
                        language of run searches, with AND, OR and NOT

  muniment policy set four-eyes --model '*' --stage Production
  muniment policy set champion --model credit-risk --alias champion
      --approvals 2 --approver-group risk --approver-group audit
      --tag validation=passed --require-comment
      --condition 'metrics.auc > 0.8 AND NOT params.data LIKE "test%"'
  muniment policy set sane --model '*' --stage Staging --approvals 0
      --condition 'metrics.loss < 10'
"""

LIST = """List all policies by name, a line each. Whoever is signed in may read them.

  muniment policy list
  muniment policy list --json
"""

SHOW = """Show one policy; with --json, field by field.

  muniment policy show four-eyes
  muniment policy show four-eyes --json
"""

REMOVE = """Remove a policy; for admins.

What it asked for is asked for no more from the next request on, for open
requests too.

  muniment policy remove four-eyes --reason 'replaced by quorum'
"""
