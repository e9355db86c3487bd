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
from collections.abc import Callable
from importlib import metadata, resources
from string import Template

from ltm.dashboard import chapters
from ltm.dashboard.chapters import CHAPTERS, Chapter
from ltm.dashboard.dialogue import dialogue
from ltm.dashboard.inputs import Inputs, number
from ltm.dashboard.method import method
from ltm.dashboard.names import effect_words
from ltm.dashboard.tables import script_json
from ltm.dashboard.words import LANGUAGES, Argument, Duration, Term, both, entries, same, say
from ltm.units import format_count

SCRIPTS = ("text.js", "tables.js", "charts.js", "app.js")
WORDS_FOR_SCRIPT = ("js.", "col.", "axis.", "term.", "caption.")

BUILDERS: dict[str, Callable[[Inputs], Chapter]] = {
    "answer": chapters.answer,
    "sets": chapters.sets,
    "books": lambda inputs: chapters.effects(inputs, "book"),
    "features": lambda inputs: chapters.effects(inputs, "feature"),
    "order": lambda inputs: chapters.effects(inputs, "order"),
    "gaps": chapters.gaps,
    "abilities": chapters.abilities,
    "dialogue": dialogue,
    "curves": chapters.curves_chapter,
    "time": chapters.time_chapter,
    "library": chapters.library,
    "method": method,
}


def make_page(inputs: Inputs, language: str) -> str:
    """Return the whole page as HTML.

    Args:
        inputs: Rows of the work folder, as far as they exist.
        language: `en` or `ru`: what the page opens in.
    """
    built = {name: BUILDERS[name](inputs) for name in CHAPTERS}
    data = {
        "figures": {name: f.packed() for chapter in built.values() for name, f in chapter.figures.items()},
        "titles": [f"{book.title} — {book.author}" if book.author else book.title for book in inputs.books],
        "words": {lang: _script_words(lang) | effect_words(lang, inputs.effects) for lang in LANGUAGES},
    }
    library, script, style = vega_library(), _script(), _asset("page.css")
    name = _text(inputs.study.get("name")) or "ltm"
    return Template(_asset("page.html")).substitute(
        language=language,
        csp=html.escape(content_security_policy([library, script], [style])),
        title=html.escape(say(language, "page.title", name=name)),
        style=style,
        library=library,
        script=script,
        data=script_json(data),
        top=_top(),
        header=_header(inputs, name),
        banner=_banner(inputs),
        contents=_contents(),
        chapters="".join(_section(n + 1, name, built[name], inputs) for n, name in enumerate(CHAPTERS)),
        footer=both("page.footer", version=_version()),
        noscript=both("page.noscript"),
        skip=both("page.skip"),
    )


def content_security_policy(scripts: list[str], styles: list[str]) -> str:
    """Return a policy that allows exactly these inline scripts and styles, and no connection, image or form."""
    allowed = {"script-src": scripts, "style-src": styles}
    parts = ["default-src 'none'"]
    for directive, texts in allowed.items():
        hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
        parts.append(f"{directive} " + " ".join(f"'sha256-{digest}'" for digest in hashes))
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


def _script() -> str:
    return "(function () {\n'use strict';\n" + "\n".join(_asset(name) for name in SCRIPTS) + "\n})();"


def _script_words(language: str) -> dict[str, object]:
    return {key: text for key, text in entries(language).items() if key.startswith(WORDS_FOR_SCRIPT)}


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
    return "".join(f'<p class="banner" role="status">{note}</p>' for note in notes)


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
