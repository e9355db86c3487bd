"""Assemble the page: one HTML file with its styles, scripts, words and rows inside, and nothing that leaves it.

Reads: `Inputs`, assets/, locales/. Writes: nothing; `ltm.dashboard.stage` writes the file. The content-security policy
names the hashes of the page's own scripts and styles and forbids everything else, connections first of all; Vega runs
with its expression interpreter so that not even `eval` has to be allowed. Titles of strangers' books pass through
`html.escape`, through JSON that cannot close its element, and in the script through `textContent` only.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata, resources
from string import Template
from typing import Any

from ltm.dashboard.chapters import BUILDERS, CHAPTERS
from ltm.dashboard.inputs import Inputs, number
from ltm.dashboard.layout import Chapter
from ltm.dashboard.names import effect_words
from ltm.dashboard.run_rows import pack_runs, titled
from ltm.dashboard.run_views import run_views
from ltm.dashboard.tables import script_json
from ltm.dashboard.words import LANGUAGES, Argument, Duration, Term, both, entries, same, say
from ltm.records import Effect
from ltm.units import format_count

SCRIPTS = (
    "text.js", "parquet.js", "save.js", "tables.js", "charts.js", "figures.js", "runs.js", "board.js", "views.js",
    "run_page.js", "compare.js", "idle.js", "app.js",
)  # fmt: skip
LIVE_SCRIPT = "live.js"
WORDS_FOR_SCRIPT = ("js.", "col.", "axis.", "term.", "caption.", "subtitle.", "unit.", "run.", "compare.", "live.")


@dataclass(frozen=True)
class Parts:
    """What of the page comes from the rows: HTML texts, and the JSON of figures and of runs."""

    title: str
    header: str
    banner: str
    sections: dict[str, str]
    data: str
    runs: str


def all_chapters(inputs: Inputs) -> dict[str, Chapter]:
    """Return the chapters of the page by name, in their order."""
    return {name: BUILDERS[name](inputs) for name in CHAPTERS}


def all_words(language: str, effects: Iterable[Effect]) -> dict[str, Any]:
    """Return the words that figures are drawn with: those of the locale, and what the effects are called."""
    found = {key: text for key, text in entries(language).items() if key.startswith(WORDS_FOR_SCRIPT)}
    return found | effect_words(language, effects)


def style_sheet() -> str:
    """Return the page's styles, which hold the colours of both themes."""
    return _asset("page.css")


def make_parts(inputs: Inputs, language: str) -> Parts:
    """Return the parts of the page that change with the rows; `language` is that of the title."""
    built = all_chapters(inputs)
    runs = pack_runs(inputs)
    data = {
        "figures": {name: f.packed() for chapter in built.values() for name, f in chapter.figures.items()},
        "views": run_views(runs["contributions"]["abilities"]),
        "titles": [f"{book.title} — {book.author}" if book.author else book.title for book in titled(inputs)],
        "words": {lang: all_words(lang, [*inputs.effects, *inputs.emergence]) for lang in LANGUAGES},
    }
    name = _text(inputs.study.get("name")) or "ltm"
    return Parts(
        title=html.escape(say(language, "page.title", name=name)),
        header=_header(inputs, name),
        banner=_banner(inputs),
        sections={name: _section(n + 1, name, built[name], inputs) for n, name in enumerate(CHAPTERS)},
        data=script_json(data),
        runs=script_json(runs),
    )


def make_page(inputs: Inputs, language: str, live: bool = False) -> str:
    """Return the whole page as HTML.

    Args:
        inputs: Rows of the work folder, as far as they exist.
        language: `en` or `ru`: what the page opens in.
        live: For `ltm dashboard --live` alone: the page may ask the server that it came from for newer rows.
    """
    return fill_page(make_parts(inputs, language), language, live)


def fill_page(parts: Parts, language: str, live: bool = False) -> str:
    """Return the whole page around its parts."""
    library, script, style = vega_library(), page_script(live), _asset("page.css")
    return Template(_asset("page.html")).substitute(
        language=language,
        csp=html.escape(content_security_policy([library, script], [style], live)),
        title=parts.title,
        style=style,
        library=library,
        script=script,
        data=parts.data,
        runs=parts.runs,
        top=_top(),
        header=parts.header,
        banner=parts.banner,
        contents=_contents(),
        chapters="".join(parts.sections.values()),
        footer=both("page.footer", version=_version()),
        noscript=both("page.noscript"),
        skip=both("page.skip"),
        live='<div id="live" class="live" role="status" aria-live="off"></div>' if live else "",
    )


def content_security_policy(scripts: list[str], styles: list[str], live: bool = False) -> str:
    """Return a policy that allows exactly these inline scripts and styles, and no connection, image or form.

    A live page may connect to the server that it came from, and to nothing else.
    """
    allowed = {"script-src": scripts, "style-src": styles}
    parts = ["default-src 'none'"]
    for directive, texts in allowed.items():
        hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
        parts.append(f"{directive} " + " ".join(f"'sha256-{digest}'" for digest in hashes))
    parts += ["connect-src 'self'"] if live else []
    return "; ".join([*parts, "base-uri 'none'", "form-action 'none'"])


@functools.cache
def vega_library() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script without imports (about 0.9 MB; takes seconds to make)."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed=vegaEmbed;")
    # Inside a script element only these two texts are read by the HTML parser; in JavaScript strings `\/` is `/`.
    return bundle.replace("</script", "<\\/script").replace("<!--", "\\u003c!--")


def _asset(name: str) -> str:
    return resources.files("ltm.dashboard").joinpath("assets", name).read_text(encoding="utf-8")


def page_script(live: bool = False) -> str:
    """Return the page's own script; only a live page holds the part that asks for newer rows."""
    names = [*SCRIPTS, LIVE_SCRIPT] if live else SCRIPTS
    return "(function () {\n'use strict';\n" + "\n".join(_asset(name) for name in names) + "\n})();"


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _version() -> str:
    try:
        return metadata.version("ltm")
    except metadata.PackageNotFoundError:
        return ""


def _top() -> str:
    buttons = "".join(
        f'<button type="button" data-language="{code}" lang="{code}">{label}</button>'
        for code, label in (("en", "English"), ("ru", "Русский"))
    )
    theme = f'<button type="button" id="theme"><span aria-hidden="true">◐</span> {both("page.theme")}</button>'
    return f'<div class="switch" role="group" aria-label="Language / Язык">{buttons}</div>{theme}'


def _header(inputs: Inputs, name: str) -> str:
    question = _text(inputs.study.get("question"))
    shown = same(question) if question else both("page.no_question")
    text = f'<p class="kicker">{both("page.kicker")} · {same(name)}</p><h1>{shown}</h1>'
    hypothesis = _text(inputs.study.get("hypothesis"))
    if hypothesis:
        text += f'<p class="hypothesis">{both("answer.hypothesis", text=hypothesis)}</p>'
    return text + _facts(inputs)


def _facts(inputs: Inputs) -> str:
    """Return the numbers that tell how large the study is."""
    facts: list[tuple[str, str]] = []
    if inputs.n_planned or inputs.runs:
        count = len(inputs.runs)
        planned = f" / {inputs.n_planned}" if inputs.n_planned > count else ""
        facts.append((both("page.value", value=count) + planned, _plural("fact.runs", inputs.n_planned or count)))
    for key, n in (("sets", len({v.set_id for v in inputs.variants})), ("books", len(inputs.books))):
        if n:
            facts.append((both("page.value", value=n), _plural(f"fact.{key}", n)))
    if inputs.runs:
        for key in ("params", "tokens"):
            value = statistics.median(getattr(run, f"n_{key}") for run in inputs.runs)
            facts.append((html.escape(format_count(value)), both(f"fact.{key}")))
        seconds = sum(number(run.seconds) or 0.0 for run in inputs.runs)
        facts.append((both("page.value", value=Duration(seconds)), both("fact.seconds")))
    items = "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for value, label in facts)
    return f'<dl class="facts">{items}</dl>' if items else ""


def _plural(key: str, n: int) -> str:
    return both(key, n=n)


def _banner(inputs: Inputs) -> str:
    notes = []
    done, planned = len(inputs.runs), inputs.n_planned
    if not planned and not done:
        notes.append(both("banner.no_design"))
    elif done < planned:
        notes.append(both("banner.unfinished", n=done, total=planned))
    elif not inputs.findings:
        notes.append(both("banner.no_patterns"))
    if inputs.failed_runs:
        notes.append(both("banner.failed", n=inputs.failed_runs))
    if inputs.unreadable_runs:
        notes.append(both("banner.unreadable", n=inputs.unreadable_runs))
    return "".join(f'<p class="banner">{note}</p>' for note in notes)


def _contents() -> str:
    items = "".join(f'<li><a href="#{name}">{both(f"chapter.{name}")}</a></li>' for name in CHAPTERS)
    return f"<h2>{both('page.contents')}</h2><ol>{items}</ol>"


def _section(place: int, name: str, chapter: Chapter, inputs: Inputs) -> str:
    problems = "".join(_problem(file, inputs.problems[file]) for file in chapter.needs if file in inputs.problems)
    return (
        f'<section id="{name}" aria-labelledby="heading-{name}"><h2 id="heading-{name}">'
        f'<span class="place">{place}</span> {both(f"chapter.{name}")}</h2>'
        f'<p class="lead">{chapter.finding}</p>{problems}{chapter.body}</section>'
    )


def _problem(file: str, problem: str) -> str:
    stage = file.split("/", maxsplit=1)[0].removesuffix(".json")
    values: dict[str, Argument] = {"file": file}
    if problem == "missing":
        values["stage"] = Term(f"term.stage.{stage}", stage)
    return f'<p class="problem">{both(f"problem.{problem}", **values)}</p>'
