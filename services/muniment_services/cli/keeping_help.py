"""What `muniment privacy --help` and `muniment hold --help` teach. Texts only."""

from __future__ import annotations

PRIVACY = """Show what is kept of a person, and have it forgotten who it was.

A principal's name, subject and issuer stand in one kind of event, sealed under
a key of that principal's own; all other events have its id. Erasing destroys
the key, for good. For admins.

  muniment privacy show 9f1c…
  muniment privacy erase 9f1c… --reason 'request 2026-114'
"""

PRIVACY_SHOW = """Show what is kept of a principal as a person.

Who it is, its tokens and grants, how much it made, and which legal holds
forbid to erase it. Name it by its id, or by issuer and subject.

  muniment privacy show 9f1c2a4e5b6d4f708192a3b4c5d6e7f8
  muniment privacy show --issuer https://id.example/realms/main --subject 4711
"""

PRIVACY_ERASE = """Forget who a principal is: destroy the key of its identity.

The order is an event; then its tokens and sessions are revoked and the key is
destroyed, on every replica and in the next backup of each place. No other
event changes, and every proof goes on verifying. It cannot be undone.

If the keys cannot be reached now, repeat the command, or restart a server:
what is ordered is finished. A legal hold refuses it. The reason stays in the
log: name a case, no person.

Whoever is erased keeps the id. Tokens of the identity provider still work as
long as the provider gives them; a login by browser makes the person known
again. Take the account away there first. Grants stay until they are revoked.

  muniment privacy erase 9f1c… --reason 'request 2026-114'
"""

HOLD = """Place, list and release legal holds.

What a hold covers is not deleted, replaced, renamed or erased, whoever asks,
until it is released. For admins; auditors may list them.

  muniment hold place case-17 --model 'fraud-*' --reason 'case 17'
  muniment hold list
  muniment hold release case-17 --reason 'closed'
"""

HOLD_PLACE = """Place a hold on what meets all the conditions.

  --model NAME          registered models, their versions, and the runs and
                        logged models that these come from; * as any text
  --experiment NAME     experiments with their runs, traces and files
  --principal ID        who that is, and only things that it made
  --from, --until       only things made then: UTC date or time

With neither --model nor --experiment it covers all models and experiments.

  muniment hold place case-17 --model 'fraud-*' --reason 'case 17'
  muniment hold place q1 --from 2026-01-01 --until 2026-04-01 --reason audit
"""

HOLD_LIST = """List the holds in force.

  muniment hold list
  muniment hold list --json
"""

HOLD_RELEASE = """Release a hold.

  muniment hold release case-17 --reason 'closed'
"""
