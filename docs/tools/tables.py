"""The documentation's tables that are made of the code: between ``<!-- table: NAME -->`` and ``<!-- /table -->``.

    python -m docs.tools.tables          writes them
    python -m docs.tools.tables --check  says whether one is out of date, and writes nothing

``tests/test_docs_tables.py`` holds the pages to what this makes.
"""

from __future__ import annotations

import argparse
import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import gip_resilience as gr
from gip_resilience import taxonomy
from gip_resilience._config_fields import Settings, documented
from gip_resilience.cli import explain, parser
from gip_resilience.cli.meanings import MEANINGS
from gip_resilience.facts import STREAM, TRANSPORT, Retry
from gip_resilience.policy import DEFAULTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

ROOT: Final = Path(__file__).parents[2]

MARKED: Final = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- /table -->)", re.DOTALL)

GROUPS: Final[Mapping[str, type[Settings]]] = {
    "breaker": gr.BreakerConfig,
    "gate": gr.GateConfig,
    "budget": gr.BudgetConfig,
    "body": gr.BodyConfig,
    "stream": gr.StreamConfig,
    "observe": gr.ObserveConfig,
    "store": gr.StoreConfig,
}

OUR_OWN: Final = tuple(
    code for code in (*TRANSPORT, *STREAM, "html_200", "error_200") if code not in taxonomy.GIP
)
"""What is not the gateway's: it does send ``stream_terminated``."""


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    headings = list(headings)
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


# ---- codes -----------------------------------------------------------------------------------------------


def codes() -> str:
    """The gateway's 23 codes, in short; what ``gip-resilience explain --markdown`` prints."""
    return explain.markdown(gr.Config())


def codes_in_full() -> str:
    """The same with what each is evidence about, and whom its policy is inherited from."""
    rows = []
    for code, rule in taxonomy.GIP.items():
        policy = DEFAULTS[rule.policy]
        rows.append(
            (
                f"`{code}`",
                rule.category.value,
                rule.scope.value,
                f"`{rule.policy}`",
                "after the reset" if rule.retry is Retry.AFTER_RESET else _attempts(policy.max_attempts),
                rule.host.value,
                rule.model.value,
            )
        )
    return table(
        ("code", "kind", "evidence about", "policy class", "sent again", "host's circuit", "model's circuit"),
        rows,
    )


def _attempts(count: int) -> str:
    return "no" if count == 1 else f"{count} attempts"


def unnamed_codes() -> str:
    """What attempts are called that end without an error code."""
    rows = []
    for code in OUR_OWN:
        meaning = explain.find(code)[0]
        policy = DEFAULTS[meaning.rule.policy]
        again = "no" if policy.max_attempts == 1 else f"{policy.max_attempts} attempts"
        doubt = "yes" if meaning.maybe_executed else "no"
        rows.append((f"`{code}`", MEANINGS[code].rstrip("."), f"`{meaning.rule.policy}`", again, doubt))
    return table(("name", "meaning", "policy class", "sent again", "may have been executed"), rows)


def statuses() -> str:
    """What a status means where the body names nothing."""
    from gip_resilience.dialects.statuses import by_status

    seen: dict[tuple[str, ...], list[int]] = {}
    for status in (*range(400, 432), 451, 499, *range(500, 531)):
        rule = by_status(status, is_json=True)
        policy = DEFAULTS[rule.policy]
        again = "no" if rule.retry is Retry.NEVER else f"{policy.max_attempts} attempts"
        seen.setdefault(
            (rule.category.value, f"`{rule.policy}`", again, rule.host.value, rule.model.value), []
        ).append(status)
    unknown = {by_status(418, is_json=True).category.value, by_status(599, is_json=True).category.value}
    rows = [
        (_others(numbers) if what[0] in unknown and 425 not in numbers else _spans(numbers), *what)
        for what, numbers in sorted(seen.items(), key=lambda item: item[1][0])
    ]
    return table(("status", "kind", "policy class", "sent again", "host's circuit", "model's circuit"), rows)


def _others(numbers: list[int]) -> str:
    return f"every other {numbers[0] // 100}xx"


def _spans(numbers: list[int]) -> str:
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][-1] == number - 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    return ", ".join(
        f"{span[0]} to {span[-1]}" if len(span) > 2 else ", ".join(map(str, span)) for span in spans
    )


def policies() -> str:
    """The default policy of each class, and the gateway's codes in it."""
    rows = []
    for name, policy in DEFAULTS.items():
        members = [f"`{code}`" for code, rule in taxonomy.GIP.items() if rule.policy == name]
        waits = f"{policy.base_delay:g} to {policy.max_delay:g} s"
        rows.append(
            (
                f"`{name}`",
                str(policy.max_attempts),
                waits,
                f"{policy.cost:g}",
                ", ".join(members) if name != "other" else "all the others",
            )
        )
    return table(("class", "attempts", "waits", "cost", "the gateway's codes in it"), rows)


# ---- settings --------------------------------------------------------------------------------------------


def settings(group: type[Settings]) -> str:
    """One table of the configuration."""
    told = documented(group)
    defaults: Any = None if group.partial else group()
    rows = []
    for name, kind in group.kinds.items():
        default = "inherited" if defaults is None else _value(getattr(defaults, name))
        rows.append((f"`{name}`", default, kind.expected, told[name]))
    return table(("setting", "default", "accepts", "meaning"), rows)


def _value(value: object) -> str:
    if isinstance(value, Settings) or value == {}:
        return "–"
    if value is None:
        return "none"
    if value == ():
        return "`[]`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


# ---- the command line ------------------------------------------------------------------------------------


def commands() -> str:
    """Every command with its arguments, as argparse has them."""
    return "\n\n".join(_command(parser(), "gip-resilience", 2))


def _command(command: argparse.ArgumentParser, name: str, level: int) -> Iterator[str]:
    below = [action for action in command._actions if isinstance(action, argparse._SubParsersAction)]
    if name.count(" "):
        yield f"{'#' * level} {name}"
        yield str(command.description or "").strip()
    if name.count(" ") and not below:
        yield f"```text\n{_usage(command, name)}\n```"
        rows = [
            (_spelled(action), _said(action))
            for action in command._actions
            if action.help and action.dest != "help"
        ]
        yield table(("argument", "meaning"), rows)
    for group in below:
        for part, parser_ in group.choices.items():
            description = next((c.help or "" for c in group._choices_actions if c.dest == part), "")
            parser_.description = parser_.description or description.capitalize() + "."
            yield from _command(parser_, f"{name} {part}", level + (1 if name.count(" ") else 0))


def _usage(command: argparse.ArgumentParser, name: str) -> str:
    positional = [action for action in command._actions if not action.option_strings]
    words = [f"[{action.metavar}]" if action.nargs == "?" else str(action.metavar) for action in positional]
    return " ".join([name, "[OPTIONS]", *words])


def _spelled(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{action.metavar}`"
    options = ", ".join(action.option_strings)
    if action.nargs == 0:
        return f"`{options}`"
    return f"`{options} {action.metavar or action.dest.upper()}`"


def _said(action: argparse.Action) -> str:
    values: Mapping[str, Any] = {"default": action.default, "prog": ""}
    said = (action.help or "") % values
    if action.choices:
        said += "; one of " + ", ".join(f"`{choice}`" for choice in action.choices)
    return said


# ---- all of them -----------------------------------------------------------------------------------------

TABLES: Final[dict[str, Callable[[], str]]] = {
    "codes": codes,
    "codes-in-full": codes_in_full,
    "names": unnamed_codes,
    "statuses": statuses,
    "policies": policies,
    "config": partial(settings, gr.Config),
    "policy": partial(settings, gr.Policy),
    "overrides": partial(settings, gr.Overrides),
    **{name: partial(settings, group) for name, group in GROUPS.items()},
    "commands": commands,
}


def filled(text: str) -> str:
    """A page with its tables as they are now."""
    return MARKED.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}", text)


def pages() -> list[Path]:
    """Where tables may be."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def main() -> int:
    """Write or check."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--check", action="store_true", help="write nothing")
    check = arguments.parse_args().check
    stale = 0
    for path in pages():
        text = path.read_text(encoding="utf-8")
        if (now := filled(text)) != text:
            stale += 1
            print(f"{path.relative_to(ROOT)} {'is out of date' if check else 'written'}")
            if not check:
                path.write_text(now, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
