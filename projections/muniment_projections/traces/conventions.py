"""Attributes of other libraries' conventions under MLflow's names.

A span that was not made by MLflow's client says its type, inputs, outputs, tokens and model in its
own library's words. What MLflow's name lacks is taken from the first convention that has it;
nothing that is there is replaced, and the library's own attributes stay.
Source: OpenTelemetry GenAI semantic conventions; OpenInference; OpenLLMetry (Traceloop).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

TYPE = "mlflow.spanType"
INPUTS = "mlflow.spanInputs"
OUTPUTS = "mlflow.spanOutputs"
TOKENS = "mlflow.chat.tokenUsage"
TOOLS = "mlflow.chat.tools"
MODEL = "mlflow.llm.model"
PROVIDER = "mlflow.llm.provider"
COST = "mlflow.llm.cost"

UNKNOWN = "UNKNOWN"
_MESSAGES: Final = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
}
_CHOICE = "gen_ai.choice"
Attributes = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Convention:
    """Where one convention keeps what MLflow wants to know; of several keys the first counts."""

    kind: str
    types: Mapping[str, str]
    tokens: Mapping[str, tuple[str, ...]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    provider: str
    models: tuple[str, ...] = ()
    tools: tuple[str, ...] = field(default=())


OPEN_INFERENCE = Convention(
    kind="openinference.span.kind",
    types={
        name: name
        for name in (
            "TOOL",
            "CHAIN",
            "LLM",
            "RETRIEVER",
            "EMBEDDING",
            "AGENT",
            "RERANKER",
            UNKNOWN,
            "GUARDRAIL",
            "EVALUATOR",
        )
    },
    tokens={
        "input_tokens": ("llm.token_count.prompt",),
        "output_tokens": ("llm.token_count.completion",),
        "total_tokens": ("llm.token_count.total",),
        "cache_read_input_tokens": ("llm.token_count.prompt_details.cache_read",),
        "cache_creation_input_tokens": ("llm.token_count.prompt_details.cache_write",),
    },
    inputs=("input.value",),
    outputs=("output.value",),
    models=(
        "llm.response.model_name",
        "llm.model_name",
        "llm.request.model_name",
        "embedding.model_name",
    ),
    provider="llm.provider",
)
GEN_AI = Convention(
    kind="gen_ai.operation.name",
    types={
        "chat": "CHAT_MODEL",
        "create_agent": "AGENT",
        "embeddings": "EMBEDDING",
        "execute_tool": "TOOL",
        "generate_content": "LLM",
        "invoke_agent": "AGENT",
        "text_completion": "LLM",
        "response": "LLM",
    },
    tokens={
        "input_tokens": ("gen_ai.usage.input_tokens",),
        "output_tokens": ("gen_ai.usage.output_tokens",),
        "cache_read_input_tokens": ("gen_ai.usage.cache_read.input_tokens",),
        "cache_creation_input_tokens": (
            "gen_ai.usage.cache_write.input_tokens",
            "gen_ai.usage.cache_creation.input_tokens",
        ),
    },
    inputs=("gen_ai.input.messages", "gen_ai.tool.call.arguments"),
    outputs=("gen_ai.output.messages", "gen_ai.tool.call.result"),
    models=("gen_ai.response.model", "gen_ai.request.model"),
    provider="gen_ai.provider.name",
    tools=("gen_ai.tool.definitions",),
)
TRACELOOP = Convention(
    kind="traceloop.span.kind",
    types={
        "workflow": "WORKFLOW",
        "task": "TASK",
        "agent": "AGENT",
        "tool": "TOOL",
        "unknown": UNKNOWN,
    },
    tokens={
        "input_tokens": ("gen_ai.usage.prompt_tokens",),
        "output_tokens": ("gen_ai.usage.completion_tokens",),
        "total_tokens": ("llm.usage.total_tokens",),
    },
    inputs=("traceloop.entity.input", "gen_ai.prompt.0.content"),
    outputs=("traceloop.entity.output", "gen_ai.completion.0.content"),
    provider="gen_ai.system",
)
CONVENTIONS = (OPEN_INFERENCE, GEN_AI, TRACELOOP)
"""In the order in which they are asked."""


def translate(attributes: Attributes, events: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The attributes and, after them, those that MLflow's names lacked. Values are JSON texts."""
    known = dict(attributes)
    if _loads(known.get(TYPE)) in (None, UNKNOWN) and (kind := _type(known)) is not None:
        known[TYPE] = json.dumps(kind)
    _add(known, INPUTS, _first(known, [c.inputs for c in CONVENTIONS]) or _asked(events))
    _add(known, OUTPUTS, _first(known, [c.outputs for c in CONVENTIONS]) or _answered(events))
    _add(known, TOKENS, _tokens(known))
    _add(known, TOOLS, _first(known, [c.tools for c in CONVENTIONS]))
    _add(known, MODEL, _model(known))
    _add(known, PROVIDER, _first(known, [(c.provider,) for c in CONVENTIONS]))
    return known


def _add(known: dict[str, str], key: str, value: str | None) -> None:
    if value is not None:
        known.setdefault(key, value)


def _loads(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _type(attributes: Attributes) -> str | None:
    for convention in CONVENTIONS:
        kind = _loads(attributes.get(convention.kind))
        if isinstance(kind, str) and kind in convention.types:
            return convention.types[kind]
    return None


def _first(attributes: Attributes, keys: Sequence[Sequence[str]]) -> str | None:
    """The first of these attributes that is there and not empty."""
    for key in (key for group in keys for key in group):
        if _loads(attributes.get(key)):
            return attributes[key]
    return None


def _tokens(attributes: Attributes) -> str | None:
    for convention in CONVENTIONS:
        found = {
            kind: count
            for kind, keys in convention.tokens.items()
            for count in [_count(attributes, keys)]
            if count is not None
        }
        if "input_tokens" in found and "output_tokens" in found:
            found.setdefault("total_tokens", found["input_tokens"] + found["output_tokens"])
        if any(kind in found for kind in ("input_tokens", "output_tokens", "total_tokens")):
            order = ("input_tokens", "output_tokens", "total_tokens", *convention.tokens)
            return json.dumps({kind: found[kind] for kind in dict.fromkeys(order) if kind in found})
    return None


def _count(attributes: Attributes, keys: Sequence[str]) -> int | None:
    for key in keys:
        value = _loads(attributes.get(key))
        if isinstance(value, str) and value.lstrip("-").isdecimal():
            return int(value)
        if isinstance(value, int):
            return value
    return None


def _model(attributes: Attributes) -> str | None:
    named = _first(attributes, [convention.models for convention in CONVENTIONS])
    if named is not None:
        return named
    for key in (INPUTS, OUTPUTS):
        body = _loads(attributes.get(key))
        model = body.get("model") if isinstance(body, dict) else None
        if isinstance(model, str) and model:
            return json.dumps(model, ensure_ascii=False)
    return None


def _asked(events: Sequence[Mapping[str, Any]]) -> str | None:
    messages = [
        {"role": _MESSAGES[event["name"]], "content": _content(event)}
        for event in events
        if event["name"] in _MESSAGES and event["attributes"].get("content")
    ]
    return json.dumps(messages) if messages else None


def _answered(events: Sequence[Mapping[str, Any]]) -> str | None:
    messages = [
        {"role": event["attributes"].get("role", "assistant"), "content": _content(event)}
        for event in events
        if event["name"] == _CHOICE and event["attributes"].get("content")
    ]
    return json.dumps(messages) if messages else None


def _content(event: Mapping[str, Any]) -> Any:
    content = event["attributes"]["content"]
    return _loads(content) if isinstance(content, str) else str(content)
