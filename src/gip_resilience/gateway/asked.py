"""What a request asks for: its fields, read and checked."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gip_resilience.gateway import content
from gip_resilience.gateway.answers import error_answer

if TYPE_CHECKING:
    from collections.abc import Mapping

_TOOL: Final = re.compile(r"\btool\b", re.IGNORECASE)


class Refusal(Exception):  # noqa: N818 - not an error of the gateway but its answer
    """The request cannot be served; carries the answer that says so."""

    def __init__(self, code: str, message: str | None = None, *, status: int | None = None) -> None:
        super().__init__(code)
        self.answer = error_answer(code, message, status=status)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for, as far as it can be read.

    Attributes:
        payload: the JSON object or the form fields, and what the path says beside them; empty when there is none.
        problem: why the body could not be read.
        model: the model it names.
        stream: whether it asks for a stream.
    """

    payload: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None

    @property
    def model(self) -> str | None:
        """The model the request names."""
        model = self.payload.get("model")
        return model if isinstance(model, str) else None

    @property
    def stream(self) -> bool:
        """Whether the request asks for a stream."""
        return self.payload.get("stream") is True


class Prompt(NamedTuple):
    """What a model is asked.

    Attributes:
        text: the last message.
        tokens: of all messages.
        tool: the tool that the answer calls, if it calls one.
    """

    text: str
    tokens: int
    tool: str | None = None


def prompt_of(payload: Mapping[str, Any], messages: list[tuple[object, str]], system: str = "") -> Prompt:
    """The prompt in *messages*, of which each is a role and a text; *payload* has the tools.

    Raises:
        Refusal: the tools are malformed.
    """
    role, last = messages[-1]
    tokens = sum(map(content.count_tokens, [system, *(text for _, text in messages)]))
    return Prompt(last, tokens, _tool(payload, last if role == "user" else ""))


def conversation(payload: Mapping[str, Any]) -> Prompt:
    """The prompt in ``messages``.

    Raises:
        Refusal: there is none.
    """
    messages = payload.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refusal("invalid_argument", "Missing 'messages': a list with at least one message is required.")
    if not all(isinstance(message, dict) and isinstance(message.get("role"), str) for message in messages):
        raise Refusal("invalid_argument", "Invalid 'messages': every message needs a role.")
    texts = [(message["role"], content.text_of(message.get("content"))) for message in messages]
    return prompt_of(payload, texts, content.text_of(payload.get("system")))


def _tool(payload: Mapping[str, Any], said: str) -> str | None:
    """The tool to call: the first, or the one that is chosen, if one is forced or the user *said* "tool".

    The fields are those of all three APIs: OpenAI's older one has the name under ``function``.
    """
    tools = payload.get("tools")
    if tools is None:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise Refusal("invalid_argument", "Invalid 'tools': a list of objects is required.")
    names = [name for name in map(_name, tools) if name is not None]
    choice = payload.get("tool_choice")
    chosen = _name(choice) if isinstance(choice, dict) else None
    if chosen is not None and chosen not in names:
        raise Refusal("invalid_argument", "Invalid 'tool_choice': there is no such tool.")
    how = choice.get("type") if isinstance(choice, dict) else choice
    if not names or how == "none":
        return None
    forced = chosen is not None or how in ("required", "any")
    return chosen or names[0] if forced or _TOOL.search(said) else None


def _name(tool: dict[str, Any]) -> str | None:
    function = tool.get("function")
    name = (function if isinstance(function, dict) else tool).get("name")
    return name if isinstance(name, str) else None


def number(payload: Mapping[str, Any], name: str, lowest: float, highest: float) -> None:
    """Check that field *name*, if given, is a number within the bounds.

    Raises:
        Refusal: it is not.
    """
    value = payload.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Refusal("invalid_argument", f"Invalid '{name}': a number is required.")
    if not lowest <= value <= highest:
        bound = "above maximum" if value > highest else "below minimum"
        raise Refusal("invalid_argument", f"Invalid '{name}': decimal {bound} value.")


def integer(payload: Mapping[str, Any], name: str, lowest: int, highest: int | None = None) -> int | None:
    """Field *name*, which must be an integer within the bounds if it is given.

    Raises:
        Refusal: it is not.
    """
    value = payload.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refusal("invalid_argument", f"Invalid '{name}': an integer is required.")
    if value < lowest or (highest is not None and value > highest):
        bound = "below minimum" if value < lowest else "above maximum"
        raise Refusal("invalid_argument", f"Invalid '{name}': integer {bound} value.")
    return value


def boolean(payload: Mapping[str, Any], name: str) -> bool:
    """Field *name*, which must be true or false if it is given.

    Raises:
        Refusal: it is not.
    """
    value = payload.get(name)
    if not isinstance(value, (bool, type(None))):
        raise Refusal("invalid_argument", f"Invalid '{name}': true or false is required.")
    return value is True


def inputs(payload: Mapping[str, Any], name: str) -> list[str]:
    """The texts in field *name*: one, or a list; token numbers count as the text of the numbers.

    Raises:
        Refusal: there is none.
    """
    value = payload.get(name)
    items: list[Any] = [value]
    if isinstance(value, list) and not all(isinstance(item, int) for item in value):
        items = value
    if not all(item and isinstance(item, (str, list)) for item in items):
        raise Refusal("invalid_argument", f"Missing '{name}': text, or a list of texts, is required.")
    return [item if isinstance(item, str) else " ".join(str(part) for part in item) for item in items]


def natural(text: str) -> int | None:
    """The number that *text* is the digits of, up to nine; `None` for any other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def stream_option(payload: Mapping[str, Any], name: str) -> bool:
    """Whether ``stream_options`` has *name* set."""
    options = payload.get("stream_options")
    return isinstance(options, dict) and options.get(name) is True
