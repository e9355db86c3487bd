"""One offline HTML page that answers questions to the forecaster in the browser, with the formulas of Python.

Reads: `formulas.py` and `formulas_page.py` (transpiled), the fitted constants, cards, shapes, assets/, locales/.
Writes: one file. The content-security policy names the hashes of the page's own script and style and forbids everything
else: no connection, no `eval`. Names (a card's data sheet may come from a stranger) pass through `html.escape`, through
JSON that cannot close its element, and in the script through `textContent` only.
"""

from __future__ import annotations

import base64
import csv
import functools
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from importlib import metadata, resources
from pathlib import Path
from string import Template
from typing import Any

from ltm.errors import InputError
from ltm.forecast import abilities, estimate, fits, inference
from ltm.forecast.case import ATTENTIONS, CHECKPOINTING, PRECISIONS, Case
from ltm.forecast.claims import EXAMPLE, read_claims
from ltm.forecast.constants import as_dict
from ltm.forecast.devices import Device, device, device_names, numeric_fields
from ltm.forecast.inference import InferenceCase, inference_constants
from ltm.forecast.page_state import BOOK_PAGES, CHOICES, LIMITS, SHAPE_FIELDS, shape_numbers, state_of, understood
from ltm.forecast.question import Asked, Question
from ltm.forecast.rows import node_link
from ltm.forecast.shapes import Shape, public_shape, shape
from ltm.forecast.transpile import Script, Source, runtime_script, transpile
from ltm.model.sizes import SIZES
from ltm.store import write_text

LANGUAGES = ("en", "ru")
FORMULA_MODULES = ("formulas.py", "formulas_page.py")
INFERENCE_MODULES = ("formulas_inference.py",)
SHOWN_QUANTS = ("f16", "q8_0", "q4_k_m")
SCRIPTS = ("words.js", "answer.js", "controls.js", "draw.js", "app.js")
SIZE_NAMES = (
    "1m", "1.5m", "2m", "3m", "5m", "7m", "10m", "15m", "20m", "30m", "50m", "70m", "100m", "125m", "160m", "200m",
    "250m", "355m", "500m", "700m", "1b", "1.3b", "1.7b", "2b", "3b", "4b", "5b", "7b", "8b", "10b", "13b", "16b",
    "20b", "24b", "30b", "40b", "50b", "70b",
)  # fmt: skip
TABLE_MODELS = ("125m", "355m", "1.3b", "3b", "7b")
TABLE_BOOKS = (1, 10, 100, 1000)
BOOK_EPOCHS = 3
SERVED = {"context": 8192, "prompt": 4096, "answer": 300}  # tokens, of one answer at a time


def write_page(
    path: Path,
    question: Mapping[str, Any] | Question | Asked | None = None,
    language: str = "en",
    devices: Sequence[Device] = (),
) -> Path:
    """Write the page and return its path; arguments as for `page_html`."""
    write_text(path, page_html(question, language, devices))
    return path


def page_html(
    question: Mapping[str, Any] | Question | Asked | None = None, language: str = "en", devices: Sequence[Device] = ()
) -> str:
    """Return the page as HTML.

    Args:
        question: What the page opens on: a `Question`, one understood, or its fields by name.
        language: `en` or `ru`: what the page opens in; the reader may switch.
        devices: Cards beside those of `data/gpus.csv`, made from data sheets.

    Raises:
        InputError: a field, a model or a card is unknown, or a number is outside its limits.
    """
    if language not in LANGUAGES:
        raise InputError(f"the page has no language {language!r}", f"one of {', '.join(LANGUAGES)}")
    training, serving = formula_script(FORMULA_MODULES), formula_script(INFERENCE_MODULES)
    data = page_data(understood(question), language, devices)
    _check_reads(training, {"c": _names(Case), "d": set(numeric_fields()), "k": set(data["constants"])})
    _check_reads(serving, {"c": _names(InferenceCase), "d": set(numeric_fields()), "k": set(data["serving_constants"])})
    script, style = _script(training, serving), _asset("page.css")
    words = data["words"]
    return Template(_asset("page.html")).substitute(
        language=language,
        csp=html.escape(content_security_policy(script, style)),
        title=html.escape(f"{words[language]['page.title']} · ltm"),
        style=style,
        script=script,
        data=script_json(data),
        noscript=" ".join(html.escape(words[code]["page.noscript"]) for code in LANGUAGES),
        version=html.escape(_version()),
    )


def page_data(asked: Asked, language: str, devices: Sequence[Device] = ()) -> dict[str, Any]:
    """Return everything that the script reads: constants, cards, shapes, defaults, limits, words."""
    cards = {card.name: card for card in (*(device(name) for name in device_names()), *devices)}
    cards.setdefault(asked.device.name, asked.device)
    shapes = {entry["id"]: entry for entry in _shapes()}
    initial = {**state_of(asked), "shape": None}
    offered = shapes.get(initial["model"])
    if offered is None or any(offered[name] != value for name, value in shape_numbers(asked.shape).items()):
        initial["model"] = f"{initial['model']} *"
        shapes[initial["model"]] = _shape_entry(initial["model"], "public", asked.shape)
    claims = read_claims(EXAMPLE)
    return {
        "language": language,
        "words": {code: words(code) for code in LANGUAGES},
        "constants": as_dict(),
        "devices": [_device_entry(found) for found in cards.values()],
        "shapes": list(shapes.values()),
        "shape_fields": SHAPE_FIELDS,
        "case_defaults": {f.name: f.default for f in fields(Case) if f.default is not MISSING},
        "checkpointing": CHECKPOINTING,
        "choices": CHOICES,
        "limits": LIMITS,
        "overshoot": fits.OVERSHOOT,
        "defaults": {**state_of(understood(None)), "shape": None},
        "initial": initial,
        "time_parts": estimate.TIME_PARTS,
        "memory_parts": estimate.MEMORY_PARTS,
        "reasons": list(estimate.REASONS),
        "table_models": TABLE_MODELS,
        "table_books": TABLE_BOOKS,
        "book_pages": BOOK_PAGES,
        "book_epochs": BOOK_EPOCHS,
        "serving_constants": inference_constants().__dict__,
        "serving": {**SERVED, "memory_range": inference.MEMORY_RANGE},
        "quants": [asdict(inference.QUANTS[name]) for name in SHOWN_QUANTS],
        "claims": [{"state": state_of(c.asked), "low": c.low_hours, "high": c.high_hours} for c in claims],
    }


@functools.cache
def formula_script(modules: tuple[str, ...]) -> Script:
    """Return formula modules that call each other as JavaScript."""
    here = resources.files("ltm.forecast")
    return transpile([Source(name, here.joinpath(name).read_text(encoding="utf-8")) for name in modules])


@functools.cache
def words(language: str) -> dict[str, str]:
    """Return every visible word of the page in a language."""
    text = resources.files("ltm.forecast").joinpath("locales", f"{language}.json").read_text(encoding="utf-8")
    loaded: dict[str, str] = json.loads(text)
    return loaded


def content_security_policy(script: str, style: str) -> str:
    """Return a policy that allows this inline script and style, and no connection, image, form or other script."""
    digest = {name: hashlib.sha256(text.encode()).digest() for name, text in (("script", script), ("style", style))}
    parts = [f"{name}-src 'sha256-{base64.b64encode(value).decode()}'" for name, value in digest.items()]
    return "; ".join(["default-src 'none'", *parts, "base-uri 'none'", "form-action 'none'"])


def script_json(value: Any) -> str:
    """Return JSON that can stand inside a script element whatever text it holds (`</script>`, `<!--`, U+2028)."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _check_reads(formulas: Script, known: Mapping[str, set[str]]) -> None:
    """Refuse a page whose formulas would read a name that is not there: JavaScript would go on with NaN."""
    for parameter, names in {**known, "s": set(SHAPE_FIELDS)}.items():
        missing = sorted(formulas.reads.get(parameter, set()) - names)
        if missing:
            message = f"a formula reads {parameter}.{missing[0]}, which is not given"
            raise InputError(message, "run bench/forecast/fit.py")


def _names(case: type[Case] | type[InferenceCase]) -> set[str]:
    return {f.name for f in fields(case)}


def _script(*formulas: Script) -> str:
    exported = ", ".join(name for script in formulas for name in script.functions)
    parts = [runtime_script(), *(script.text for script in formulas), f"return {{{exported}}};"]
    scope = ["const formulas = (function () {", *parts, "})();"]
    return "\n".join(["(function () {", "'use strict';", *scope, *(_asset(name) for name in SCRIPTS), "})();"])


def _asset(name: str) -> str:
    return resources.files("ltm.forecast").joinpath("assets", name).read_text(encoding="utf-8")


def _device_entry(card: Device) -> dict[str, Any]:
    """Return a card's numbers, what it can do, and what is usual on it."""
    scaled = estimate.with_experience(card)
    usual = {"precision": "", "attention": "", "method": "full"}
    abilities.fill_for_card(usual, card, [])
    return {
        "name": card.name,
        **{name: getattr(scaled, name) for name in numeric_fields()},
        "node_link": node_link(card),
        "micro_tokens": fits.CPU_MICRO_TOKENS if abilities.is_arch(card, "CPU") else 0,
        "precisions": [name for name in PRECISIONS if abilities.has_precision(card, name)],
        "attentions": [name for name in ATTENTIONS if abilities.has_attention(card, name)],
        "precision": usual["precision"],
        "attention": usual["attention"],
    }


@functools.cache
def _shapes() -> list[dict[str, Any]]:
    """Return the models that the page offers: by size, ltm's own, public ones; `shape` finds each by its id."""
    text = resources.files("ltm.forecast").joinpath("data", "models.csv").read_text(encoding="utf-8")
    named = {row["name"].lower().replace(" ", "-"): row["name"] for row in csv.DictReader(text.splitlines())}
    public = {key: public_shape(key) for key in named if key not in SIZES}
    offered = [(key, "size", shape(key)) for key in SIZE_NAMES] + [(key, "ltm", shape(key)) for key in SIZES]
    offered += [(key, "public", found) for key, found in public.items() if found and found.name == named[key]]
    return [_shape_entry(key, group, found) for key, group, found in offered]


def _shape_entry(name: str, group: str, found: Shape) -> dict[str, Any]:
    shown = found.name.upper() if group == "size" else found.name
    return {"id": name, "name": shown, "group": group, "parameters": found.parameters, **shape_numbers(found)}


def _version() -> str:
    try:
        return metadata.version("ltm")
    except metadata.PackageNotFoundError:
        return ""
