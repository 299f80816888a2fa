# SPDX-License-Identifier: Apache-2.0
"""What holds between the fields of a request and no schema says: cases that break it are no
examples of what is taken. Read by schemathesis from SCHEMATHESIS_HOOKS; see schemathesis.toml."""
import json

import schemathesis

KEYWORDS = {"type", "enum", "const", "properties", "required", "additionalProperties", "items",
            "title", "description", "default", "examples"}


def is_json(text):
    try:
        json.loads(text)
    except (TypeError, ValueError):
        return False
    return True


def calls_are_json(body):
    """Arguments of calls that earlier answers made."""
    items = body.get("input") if isinstance(body.get("input"), list) else []
    calls = [i for i in items if isinstance(i, dict) and i.get("type") == "function_call"]
    for message in body.get("messages") or []:
        calls += [c.get("function") for c in message.get("tool_calls") or []]
    return all(c and is_json(c.get("arguments")) for c in calls)


def schema_is_plain(schema):
    """One that a grammar is made of, by what its keywords are alone."""
    return (isinstance(schema, dict) and set(schema) <= KEYWORDS and
            all(isinstance(v, str) for k, v in schema.items() if k == "type") and
            all(k in ("title", "description", "type") for k in schema))


def formats_fit(body):
    wanted = body.get("response_format") or (body.get("text") or {}).get("format") or {}
    kind = wanted.get("type", "text")
    schema = (wanted.get("json_schema") or {}).get("schema", wanted.get("schema", {}))
    return kind == "text" or (kind == "json_object" or schema_is_plain(schema)), kind == "text"


def tools_fit(body, is_text):
    """A choice is among what is offered, and with tools the answer is no other format's."""
    tools, choice = body.get("tools") or [], body.get("tool_choice")
    names = [t.get("name") or t.get("function", {}).get("name") for t in tools]
    parameters = [t.get("parameters", (t.get("function") or {}).get("parameters", {}))
                  for t in tools]
    if choice == "none":
        return True
    if isinstance(choice, dict):
        name = choice.get("name") or (choice.get("function") or {}).get("name")
        if name not in names:
            return False
    elif choice == "required" and not names:
        return False
    forced = choice not in (None, "auto")
    return not names or (is_text and (not forced or all(map(schema_is_plain, parameters))))


def budget_fits(body, headers):
    weft = body.get("weft") or {}
    told = {"x-weft-budget-ms", "x-slo-ttft-ms"} & {name.lower() for name in headers}
    e2e = str(weft.get("e2e", "")) == "True" or \
        str(headers.get("x-weft-e2e", "")).lower() in ("true", "1")
    return not e2e or bool(told) or "budget_ms" in weft or "ttft_ms" in weft


def near_fits(headers):
    """Values for headers of several patterns are sometimes of none."""
    near = next((v for k, v in headers.items() if k.lower() == "x-weft-near"), "0,0")
    return "," in str(near)


def fits(body, headers):
    formats, is_text = formats_fit(body)
    return (formats and tools_fit(body, is_text) and calls_are_json(body) and
            budget_fits(body, headers) and near_fits(headers) and
            (not body.get("top_logprobs") or body.get("logprobs") is True))


def numbers_fit(value):
    """Whole numbers beyond 64 bits are no JSON to this parser, as RFC 8259 leaves it to it."""
    if isinstance(value, dict):
        return all(map(numbers_fit, value.values()))
    if isinstance(value, list):
        return all(map(numbers_fit, value))
    return not isinstance(value, int) or -2 ** 63 <= value < 2 ** 63


@schemathesis.hook
def filter_case(_context, case):
    positive = case.meta is None or case.meta.generation.mode.is_positive
    inference = case.operation.path.startswith(("/v1/chat", "/v1/comp", "/v1/resp", "/v1/emb"))
    if not positive or not isinstance(case.body, dict):
        return True
    if not inference:
        return numbers_fit(case.body)
    return numbers_fit(case.body) and fits(case.body, dict(case.headers or {}))
