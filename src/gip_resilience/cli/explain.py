"""Say what an error code or a status means, and what is done about it."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from gip_resilience import taxonomy
from gip_resilience._config_errors import closest
from gip_resilience.cli.output import CommandError, columns, paragraph
from gip_resilience.cli.settings import load
from gip_resilience.config import Config
from gip_resilience.facts import STREAM
from gip_resilience.policy import CUSTOM
from gip_resilience.taxonomy import Code, Fact, Retry, Rule, Verdict

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from gip_resilience.policy import ResolvedPolicy

MEANINGS: Final = {
    "missing_api_key": "The request carries no API key.",
    "invalid_api_key": "The API key is malformed, or nobody's.",
    "unauthorized": "The key is good, but may not do this.",
    "rate_limit_exceeded": "The quota is used up until it resets.",
    "invalid_request": "The request cannot be parsed: its size, format or content type.",
    "invalid_argument": "A field is missing, or does not suit the API or the model.",
    "not_found": "There is no such endpoint.",
    "unknown_model": "There is no such model.",
    "invalid_content_media": "Attached media cannot be processed.",
    "unavailable_content_media": "Media the request links to cannot be fetched.",
    "unsafe_content": "A safety check before the model refused the content.",
    "unknown_app": "There is no such app.",
    "invalid_app": "The app exists, but cannot be used.",
    "unsupported_interface": "The model does not offer this API.",
    "unknown_workspace": "The workspace of the key cannot be found.",
    "failed_request": "The gateway failed to build the model's request, or to read its answer.",
    "internal_error": "The gateway itself failed.",
    "model_server_error": "The model answered with a server error.",
    "model_overloaded": "The model is overloaded and did not take the request.",
    "model_unavailable": "The gateway cannot reach the model.",
    "model_timeout": "The model did not answer in time.",
    "stream_error": "The stream failed on its way from the model.",
    "stream_terminated": "The model ended the stream before its end.",
    "connect_error": "No connection could be made.",
    "connect_timeout": "No connection could be made in time.",
    "refused_stream": "The server refused the HTTP/2 stream without looking at it.",
    "tls_error": "The server's certificate does not verify, or TLS failed otherwise.",
    "pool_timeout": "All of the client's own connections were in use for too long.",
    "invalid_request_local": "The client library refused to send the request.",
    "read_timeout": "The answer did not come in time.",
    "write_timeout": "The request could not be sent in time.",
    "connection_lost": "The connection broke before the whole answer had come.",
    "protocol_error": "What came back is not HTTP.",
    "truncated_body": "A JSON answer breaks off.",
    "stream_reset": "The connection broke in the middle of an event stream.",
    "stream_stalled": "An event stream fell silent.",
    "stream_garbled": "An event of a stream is not what its protocol promises.",
    "stream_diverged": "A broken stream was replayed, and the answer was another one.",
    "stream_gap": "A stream was resumed, and events were left out or another answer began.",
    "not_a_stream": "An attempt to go on with a stream was answered with something else.",
    "html_200": "A good status, but an HTML page where JSON was promised.",
    "error_200": "A good status, but an error in the body that has no name.",
}
"""Codes in a sentence each: the gateway's own, then the ones given here to what has no code."""

_SCOPES: Final = {
    "request": "this request alone",
    "credential": "the key",
    "account": "the account",
    "model": "the model",
    "host": "the host",
}
_VERDICTS: Final = {
    Verdict.SUCCESS: "counts a success",
    Verdict.FAILURE: "counts a failure",
    Verdict.TRIP: "opens at once",
    Verdict.NEUTRAL: "learns nothing",
}


class Meaning(NamedTuple):
    """What a name means.

    Attributes:
        code: the code as a fact carries it.
        origin: whose it is, in words.
        rule: what is known about it.
    """

    code: str
    origin: str
    rule: Rule | Fact

    @property
    def policy(self) -> str:
        """Its policy class."""
        return self.rule.policy

    @property
    def maybe_executed(self) -> bool:
        """Whether the request may have been executed all the same."""
        return isinstance(self.rule, Fact) and self.rule.maybe_executed


def describe(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "name", nargs="?", metavar="CODE|STATUS", help="such as model_overloaded, connect_error or 503; all 23"
        " codes of the gateway, if not given",
    )  # fmt: skip
    parser.add_argument("--config", metavar="FILE.toml", help="under this configuration, not the default one")
    parser.add_argument("--markdown", action="store_true", help="the table of all codes as Markdown")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    config = load(arguments.config) if arguments.config else Config()
    if arguments.name is None or arguments.markdown:
        print(markdown(config) if arguments.markdown else overview(config))
        return 0
    found = find(arguments.name)
    if not found and arguments.name not in config.policies and CUSTOM + arguments.name not in config.policies:
        guess = closest(arguments.name, taxonomy.known_codes())
        hint = f" (did you mean {guess}?)" if guess else ""
        raise CommandError(
            f"unknown code: {arguments.name}{hint}\nOf a code that no table knows, the type decides, then the status."
        )
    first, *others = found or [_custom(arguments.name)]
    print("\n\n".join(explanation(meaning, config) for meaning in (first, *_unlike(first, others))))
    return 0


def _unlike(first: Meaning, others: list[Meaning]) -> list[Meaning]:
    """Those of the other meanings that are treated differently: most dialects agree on what a name means."""

    def treatment(meaning: Meaning) -> tuple[str, ...]:
        rule = meaning.rule
        return (rule.category, rule.retry, rule.host, rule.model, rule.policy)

    return [meaning for meaning in others if treatment(meaning) != treatment(first)]


def find(name: str) -> list[Meaning]:
    """What *name* means: the gateway's own meaning first, then that of every other dialect that has it."""
    from gip_resilience.dialects.tables import CODES

    name = name.removeprefix("http_")
    if name.isascii() and name.isdigit() and len(name) == 3:
        return [_status(int(name))]
    found = []
    if name in taxonomy.GIP:
        found.append(Meaning(name, "error code of the gateway", taxonomy.GIP[name]))
    elif name in MEANINGS:
        found.append(Meaning(name, "what an attempt without an error code is called", _unnamed(name)))
    found += [
        Meaning(name, f"error code in the {dialect} dialect", table[name])
        for dialect, table in CODES.items()
        if name in table
    ]
    return found


def _status(status: int) -> Meaning:
    from gip_resilience.dialects.statuses import by_status

    if status < 400:
        fact = taxonomy.classify(status)
        return Meaning(fact.code, f"status {status}, with nothing in the body that says otherwise", fact)
    return Meaning(
        f"http_{status}", f"status {status} without a known error code", by_status(status, is_json=True)
    )


def _unnamed(name: str) -> Rule | Fact:
    from gip_resilience.dialects.statuses import UNNAMED, UNNAMED_IN_200

    if name == UNNAMED:
        return UNNAMED_IN_200
    if name == "html_200":
        return taxonomy.classify(200, (), b"<html>", expect_json=True)
    if name in STREAM:
        return taxonomy.stream_fact(name)
    return taxonomy.transport_fact(name)


def _custom(code: str) -> Meaning:
    from gip_resilience.dialects.statuses import by_status

    code = code.removeprefix(CUSTOM)
    return Meaning(code, "a code of your own; shown as under status 400", by_status(400, is_json=True))


def explanation(meaning: Meaning, config: Config) -> str:
    """Everything about one code, in lines of at most 80 columns."""
    rule = meaning.rule
    policy = config.policy(meaning.code, rule.policy)
    facts = [
        ("meaning", MEANINGS.get(meaning.code, "")),
        ("kind", f"{rule.category}; it is evidence about {_SCOPES[rule.scope]}"),
        ("policy", f"of the code itself, else of the class {rule.policy}"),
        ("sent again", _attempts(rule, policy)),
    ]
    if policy.max_attempts > 1:
        facts += [("waits", _waits(policy)), ("costs", f"{policy.cost:g} of the retry budget per retry")]
    facts.append(("circuits", _circuits(rule, policy)))
    if rule.retry is Retry.AFTER_RESET and config.gate.mode == "on":
        facts.append(("gate", "closes for every caller of the same key and model, until the quota resets"))
    if meaning.maybe_executed:
        facts.append(("beware", f"it may have been executed; on_ambiguous={policy.on_ambiguous}"))
    lines = [f"{meaning.code}: {meaning.origin}"]
    lines += [paragraph(text, first=f"  {name:<12}", rest=" " * 14) for name, text in facts if text]
    return "\n".join(lines)


def _attempts(rule: Rule | Fact, policy: ResolvedPolicy) -> str:
    if rule.category is taxonomy.Category.SUCCESS:
        return "no need"
    if policy.max_attempts == 1:
        return "no"
    only = ", but only when the server says how long to wait" if rule.retry is Retry.IF_HINT else ""
    doubt = ", unless it may have been executed" if policy.on_ambiguous == "fail" else ""
    return f"yes, {policy.max_attempts} attempts in all{only}{doubt}"


def _waits(policy: ResolvedPolicy) -> str:
    if isinstance(policy.wait, str) and isinstance(policy.jitter, str):
        first, second, third = islice(policy.delays(), 3)
        jitter = {"full": ", each anywhere from 0 to that", "random": ", each up to 1 s longer", "none": ""}
        row = (
            f"{first:g} s, {second:g} s, {third:g} s, ... up to {policy.max_delay:g} s{jitter[policy.jitter]}"
        )
    else:
        row = f"by a function of yours, up to {policy.max_delay:g} s"
    return (
        f"{row}; what the server asks for is waited in full, but if over {policy.max_hint:g} s the call stops"
    )


def _circuits(rule: Rule | Fact, policy: ResolvedPolicy) -> str:
    host, model = rule.host, rule.model
    if policy.breaker == "ignore":
        host = model = Verdict.NEUTRAL
    elif policy.breaker != "auto":
        model = Verdict(policy.breaker)
    return f"the host's {_VERDICTS[host]}, the model's {_VERDICTS[model]}"


# ---- all of them -------------------------------------------------------------------------------------------


def rows(config: Config) -> Iterator[tuple[str, str, str, str, str]]:
    """Code, meaning, attempts, waits and circuits of each of the gateway's codes."""
    for code in map(str, Code):
        rule = taxonomy.GIP[code]
        policy = config.policy(code, rule.policy)
        yield code, MEANINGS[code], str(policy.max_attempts), _in_short(rule, policy), _told(rule, policy)


def _in_short(rule: Rule, policy: ResolvedPolicy) -> str:
    if policy.max_attempts == 1:
        return "-"
    reset = "reset, else " if rule.retry is Retry.AFTER_RESET else ""
    return f"{reset}{policy.base_delay:g} to {policy.max_delay:g} s"


def _told(rule: Rule, policy: ResolvedPolicy) -> str:
    if policy.breaker == "ignore":
        return "-"
    model = rule.model if policy.breaker == "auto" else Verdict(policy.breaker)
    said = [
        f"{whose}: {'opens' if verdict is Verdict.TRIP else 'failure'}"
        for whose, verdict in (("host", rule.host), ("model", model))
        if verdict in {Verdict.FAILURE, Verdict.TRIP}
    ]
    return ", ".join(said) or "-"


_HEADINGS: Final = ("code", "meaning", "attempts", "waits", "circuit")


def overview(config: Config) -> str:
    """The gateway's codes as a table for the terminal."""
    table = [(code, attempts, waits, told) for code, _, attempts, waits, told in rows(config)]
    headings = (_HEADINGS[0], *_HEADINGS[2:])
    return columns([headings, *table], right=frozenset({1}))


def markdown(config: Config) -> str:
    """The gateway's codes as a Markdown table."""
    lines = ["| code | meaning | attempts | waits | circuit |", "|---|---|---|---|---|"]
    lines += [
        f"| `{code}` | {meaning.rstrip('.')} | {attempts} | {waits.replace('-', '–')} | {told.replace('-', '–')} |"
        for code, meaning, attempts, waits, told in rows(config)
    ]
    return "\n".join(lines)
