"""Say what an error code or a status means, and what is done about it."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gip_resilience import taxonomy
from gip_resilience._config_errors import closest
from gip_resilience._config_fields import represent
from gip_resilience.cli.meanings import MEANINGS, REASONS, STATUS_REASONS, STATUSES, WHY
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
        status: the status it was asked for by; ``None`` where it was asked for by name.
    """

    code: str
    origin: str
    rule: Rule | Fact
    status: int | None = None

    @property
    def policy(self) -> str:
        """Its policy class."""
        return self.rule.policy

    @property
    def text(self) -> str:
        """What it means, in a sentence; empty where only its dialect knows."""
        return MEANINGS.get(self.code, "") if self.status is None else STATUSES.get(self.status, "")

    @property
    def reason(self) -> str:
        """Why it is treated as it is by default."""
        own = WHY.get(self.code) if self.status is None else STATUS_REASONS.get(self.status)
        return own or REASONS[self.rule.category]

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
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="all of it, for programs")
    form.add_argument("--markdown", action="store_true", help="the table of all codes as Markdown")
    parser.epilog = """\
examples:
  gip-resilience explain                        a line for each of the gateway's codes
  gip-resilience explain model_unavailable      one code: what it means, what is done, why
  gip-resilience explain 503                    a status whose body says nothing
  gip-resilience explain read_timeout --config my.toml
                                                what a configuration makes of it"""


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    config = load(arguments.config) if arguments.config else Config()
    if arguments.markdown:
        print(markdown(config))
        return 0
    if arguments.name is None:
        print(_json([find(code)[0] for code in Code], config) if arguments.json else overview(config))
        return 0
    meanings = _asked(arguments.name, config)
    if arguments.json:
        print(_json(meanings, config))
    else:
        print("\n\n".join(explanation(meaning, config) for meaning in meanings))
    return 0


def _asked(name: str, config: Config) -> list[Meaning]:
    """What *name* means, each treatment once.

    Raises:
        CommandError: nobody knows it.
    """
    found = find(name)
    if not found and name not in config.policies and CUSTOM + name not in config.policies:
        guess = closest(name, taxonomy.known_codes())
        hint = f" (did you mean {guess}?)" if guess else ""
        raise CommandError(
            f"unknown code: {name}{hint}\nOf a code that no table knows, the type decides, then the status."
        )
    first, *others = found or [_custom(name)]
    return [first, *_unlike(first, others)]


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
        return Meaning(
            fact.code, f"status {status}, with nothing in the body that says otherwise", fact, status
        )
    rule = by_status(status, is_json=True)
    return Meaning(f"http_{status}", f"status {status} without a known error code", rule, status)


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
        ("meaning", meaning.text),
        ("codes", _codes_of(meaning.status)),
        ("kind", f"{rule.category}; it is evidence about {_SCOPES[rule.scope]}"),
        ("policy", f"of the code itself, else of the class {rule.policy}"),
        ("sent again", _attempts(rule, policy)),
    ]
    if policy.max_attempts > 1:
        facts += [("waits", _waits(policy)), ("costs", f"{policy.cost:g} of the retry budget per retry")]
    facts.append(("circuits", _circuits(rule, policy)))
    if _gated(rule, config):
        facts.append(("gate", "closes for every caller of the same key and model, until the quota resets"))
    if meaning.maybe_executed:
        facts.append(("beware", f"it may have been executed; on_ambiguous={policy.on_ambiguous}"))
    changed = {meaning.code, CUSTOM + meaning.code, meaning.policy} & config.policies.keys()
    facts.append(("why", f"{'by default: ' if changed else ''}{meaning.reason}"))
    lines = [f"{meaning.code}: {meaning.origin}"]
    lines += [paragraph(text, first=f"  {name:<12}", rest=" " * 14) for name, text in facts if text]
    return "\n".join(lines)


def _codes_of(status: int | None) -> str:
    """The gateway's codes that usually come with a status; they outrank it."""
    from gip_resilience.gateway.answers import STATUS_OF

    codes = ", ".join(code for code, usual in STATUS_OF.items() if usual == status)
    return codes and f"the gateway sends with it {codes}; ask for these by name"


def _json(meanings: list[Meaning], config: Config) -> str:
    """The same for programs: a list of objects."""
    return json.dumps([_plain(meaning, config) for meaning in meanings], indent=2, ensure_ascii=False)


def _plain(meaning: Meaning, config: Config) -> dict[str, Any]:
    rule = meaning.rule
    policy = config.policy(meaning.code, rule.policy)
    host, model = _verdicts(rule, policy)
    return {
        "code": meaning.code,
        "status": meaning.status,
        "origin": meaning.origin,
        "meaning": meaning.text,
        "why": meaning.reason,
        "category": rule.category,
        "scope": rule.scope,
        "retry": rule.retry,
        "policy_class": rule.policy,
        "policy": {name: _named(getattr(policy, name)) for name in policy.kinds},
        "circuits": {"host": host, "model": model},
        "gate": _gated(rule, config),
        "maybe_executed": meaning.maybe_executed,
    }


def _named(value: object) -> object:
    return represent(value) if callable(value) else value


def _gated(rule: Rule | Fact, config: Config) -> bool:
    return rule.retry is Retry.AFTER_RESET and config.gate.mode == "on"


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
    host, model = _verdicts(rule, policy)
    return f"the host's {_VERDICTS[host]}, the model's {_VERDICTS[model]}"


def _verdicts(rule: Rule | Fact, policy: ResolvedPolicy) -> tuple[Verdict, Verdict]:
    """What the host's circuit is told, and the model's."""
    if policy.breaker == "ignore":
        return Verdict.NEUTRAL, Verdict.NEUTRAL
    return rule.host, rule.model if policy.breaker == "auto" else Verdict(policy.breaker)


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
