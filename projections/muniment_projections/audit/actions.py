"""What an event or a call did, as `<kind>.<verb>`: one fixed mapping.

A call's action is the permission that its route asks for, so that a refused promotion and all
reads of models stand beside what was done to models.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from muniment_schemas import events as e
from muniment_schemas.envelope import Event

ACTIONS: Mapping[type[Event], str] = MappingProxyType(
    {
        e.SchemaPublished: "schema.publish",
        e.SchemaRegistered: "schema.register",
        e.PrincipalRegistered: "principal.register",
        e.PrincipalErased: "principal.erase",
        e.SignInNoted: "principal.note",
        e.HoldPlaced: "hold.place",
        e.HoldReleased: "hold.release",
        e.WorkspaceCreated: "workspace.create",
        e.WorkspaceUpdated: "workspace.update",
        e.WorkspaceDeleted: "workspace.delete",
        e.ExperimentCreated: "experiment.create",
        e.ExperimentRenamed: "experiment.rename",
        e.ExperimentDeleted: "experiment.delete",
        e.ExperimentRestored: "experiment.restore",
        e.ExperimentTagSet: "experiment.tag",
        e.ExperimentTagDeleted: "experiment.untag",
        e.RegisteredModelCreated: "model.create",
        e.RegisteredModelUpdated: "model.update",
        e.RegisteredModelRenamed: "model.rename",
        e.RegisteredModelDeleted: "model.delete",
        e.RegisteredModelTagSet: "model.tag",
        e.RegisteredModelTagDeleted: "model.untag",
        e.ModelVersionCreated: "model.register",
        e.ModelVersionUpdated: "model.describe",
        e.StageTransitioned: "model.transition",
        e.ModelVersionDeleted: "model.discard",
        e.ModelVersionTagSet: "model.tag",
        e.ModelVersionTagDeleted: "model.untag",
        e.AliasSet: "model.alias",
        e.AliasDeleted: "model.unalias",
        e.RoleDefined: "access.define",
        e.RoleRemoved: "access.undefine",
        e.GrantMade: "access.grant",
        e.GrantRevoked: "access.revoke",
        e.OwnershipEnded: "access.disown",
        e.CredentialIssued: "credential.issue",
        e.CredentialRevoked: "credential.revoke",
        e.SessionRenewed: "credential.renew",
        e.TransitionRequested: "model.request",
        e.TransitionRequestCancelled: "model.cancel",
        e.TransitionRequestRejected: "model.reject",
        e.TransitionApproved: "model.approve",
        e.VersionCommentAdded: "model.comment",
        e.VersionCommentUpdated: "model.comment",
        e.VersionCommentDeleted: "model.uncomment",
        e.PromotionPolicySet: "policy.set",
        e.PromotionPolicyRemoved: "policy.remove",
        e.RunCreated: "run.create",
        e.RunUpdated: "run.update",
        e.RunDeleted: "run.delete",
        e.RunRestored: "run.restore",
        e.BatchLogged: "run.log",
        e.RunTagDeleted: "run.untag",
        e.InputsLogged: "run.input",
        e.OutputsLogged: "run.output",
        e.LoggedModelCreated: "logged_model.create",
        e.LoggedModelFinalized: "logged_model.finalize",
        e.LoggedModelTagsSet: "logged_model.tag",
        e.LoggedModelTagDeleted: "logged_model.untag",
        e.LoggedModelParamsLogged: "logged_model.log",
        e.LoggedModelDeleted: "logged_model.delete",
        e.TraceStarted: "trace.start",
        e.SpansLogged: "trace.log",
        e.TraceTagSet: "trace.tag",
        e.TraceTagDeleted: "trace.untag",
        e.TraceDeleted: "trace.delete",
        e.TraceLinkedToRun: "trace.link",
        e.TracePromptsLinked: "trace.link",
        e.AssessmentLogged: "trace.assess",
        e.AssessmentDeleted: "trace.unassess",
        e.ArtifactUploaded: "artifact.upload",
        e.ArtifactDeleted: "artifact.delete",
        e.RecordQuarantined: "record.quarantine",
        e.TrailGap: "trail.gap",
        e.SigningKeyAdded: "proof.key",
        e.HeadsSigned: "proof.head",
    }
)
"""Event type to action. Of a call see `of_call`; a record that cannot be read is UNREADABLE."""

OWN_ACTIONS: Mapping[str, str] = MappingProxyType(
    {
        "/api/v1/audit/export": "audit.export",
        "/login": "session.login",
        "/login/callback": "session.login",
        "/logout": "session.logout",
    }
)
"""Routes whose calls are more than their permission says, or that ask for none: sign-ins."""

NO_ROUTE = "call.unknown"
"""A call that met no route, or was turned away before one was looked for."""

UNREADABLE = "record.unreadable"


def of_call(route: str | None, permission: str | None) -> str:
    """The action of a call."""
    if route is not None and route in OWN_ACTIONS:
        return OWN_ACTIONS[route]
    return NO_ROUTE if permission is None else permission.replace(":", ".")
