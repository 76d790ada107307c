"""What `muniment access --help` and its commands teach. Texts only, so that help comes at once."""

from __future__ import annotations

ACCESS = """Say who may do what, on which experiments and models, and why.

A grant gives somebody a role on things. Whoever creates a thing is its manager
without one. Roles: viewer, logger (for jobs: writes runs and no more), editor,
approver (promotes models), manager, auditor (reads all, changes nothing),
admin; and those of your own. Nobody can grant more than they hold.

The server wants a token when an issuer is configured: --token, MUNIMENT_TOKEN
or MLFLOW_TRACKING_TOKEN.

  muniment access grant editor --to group:science --issuer https://id.example
      --on 'experiment:team-*'
  muniment access list --on model:churn
  muniment access explain model:promote model:churn --stage Production
"""

GRANT = """Give somebody a role on what a pattern covers.

  --to principal:ID     one person, service or workload, by the id that
                        events show
  --to group:NAME       a group of --issuer, as its tokens name it
  --to claims           whoever has a token of --issuer with all --claim
  --to everyone         whoever is signed in

  --on experiment:NAME  also model:NAME, prompt:NAME; * in NAME stands for any
                        characters; KIND:id:ID is one thing whatever its name
  --on server           the server itself: its health, its trail
  --on '*'              everything in the workspace

The same grant again changes nothing. One on a name also counts for what gets
that name later; one on id:ID does not.

  muniment access grant viewer --to everyone --on 'experiment:*'
  muniment access grant editor --to group:science --issuer https://id.example
      --on 'experiment:team-*' --expires 90d
  muniment access grant approver --to claims --on model:churn
      --issuer https://token.actions.githubusercontent.com
      --claim repository_id=123456 --claim environment=production
      --stage Production
"""

REVOKE = """Take a grant back, by its id; `muniment access list` shows ids.

It counts from the next request on. owner:KIND:ID in the place of the id ends
what the creator of a thing holds on it. The last grant that makes somebody
admin of everything cannot be taken back, unless an admin group is configured.

With --all, everything that a principal was given here: its tokens and browser
sessions first, then the grants to it. What it holds by groups, its identity
provider has to take.

  muniment access revoke 0199c2f4e1b27c3d8a55d0f2a9b1c3e7 --reason 'has left'
  muniment access revoke --all 5b0f6f3e5d0c5c529a530d3c9bb0a5f1
  muniment access revoke owner:experiment:17
"""

LIST = """List grants, the oldest first: those that you may know of.

With --on, all that count on that thing, and who created it.

  muniment access list
  muniment access list --to group:science
  muniment access list --on experiment:team-churn --json
"""

EXPLAIN = """Say why somebody may, or may not, do something.

PERMISSION is a verb on a kind of thing, as run:write or model:promote; `muniment
access roles` shows all. RESOURCE is KIND:NAME, KIND:id:ID or server. Every grant
is listed with what it lacks. Without --principal, --group and --claim the
question is about yourself.

Exit status 0 when it is allowed, 1 when it is not.

  muniment access explain run:write experiment:team-churn
  muniment access explain model:promote model:churn --stage Production
      --group ml-team --issuer https://id.example
"""

ROLES = """Show all roles and what they hold; define and remove your own.

  muniment access roles
  muniment access roles define promoter model:read model:promote
  muniment access roles remove promoter
"""

ROLES_DEFINE = """Define a role, or change what it holds; for admins.

All its grants give what it holds from then on.

  muniment access roles define promoter model:read model:promote
      --description 'moves models between stages'
"""

ROLES_REMOVE = """Remove a role that no grant names; for admins.

  muniment access roles remove promoter
"""
