"""The restricted language becomes JavaScript; everything outside it is refused with its place."""

from __future__ import annotations

import re

import pytest

from ltm.forecast.page import FORMULA_MODULES, INFERENCE_MODULES, formula_script
from ltm.forecast.transpile import FormulaError, Source, runtime_script, transpile

HEAD = "from numpy import maximum, where\n"


def script(text: str) -> str:
    return transpile([Source("formulas.py", text)]).text


def test_arithmetic_comparisons_calls_and_dictionaries() -> None:
    text = HEAD + (
        "HALF = 0.5\n"
        "def area(c, k, more=2.0):\n"
        '    """Say what it is."""\n'
        "    side = c.width ** 2 * HALF + -k.edge\n"
        '    return {"wide": side > 3, "most": maximum(side, more)}\n'
        "def twice(c, k):\n"
        '    new = area(c, k)["most"] * 2\n'
        "    new = new + 1\n"
        "    return where(new == 0, 1e-30, new / 3)\n"
    )
    assert script(text).splitlines() == [
        "const HALF = 0.5;",
        "function area(c, k, more = 2) {",
        "  let side = ((np.pow(c.width, 2) * HALF) + (-k.edge));",
        '  return {"wide": Number(side > 3), "most": np.maximum(side, more)};',
        "}",
        "function twice(c, k) {",
        '  let new_ = (area(c, k)["most"] * 2);',
        "  new_ = (new_ + 1);",
        "  return np.where(Number(new_ === 0), 1e-30, (new_ / 3));",
        "}",
    ]


def test_modules_may_call_each_other_and_reads_are_told() -> None:
    first = Source("formulas.py", "def double(c):\n    return c.x * 2\n")
    second = Source(
        "more.py", "from ltm.forecast.formulas import double\ndef four(c, k):\n    return double(c) * k.y\n"
    )
    made = transpile([first, second])
    assert made.functions == {"double": ["c"], "four": ["c", "k"]}
    assert made.reads == {"c": {"x"}, "k": {"y"}}


@pytest.mark.parametrize(
    ("body", "line", "what"),
    [
        ("    if c.x > 1:\n        return 1\n    return 2", 3, "`if` is outside"),
        ("    y = 1\n    y += c.x\n    return y", 4, "`aug assign` is outside"),
        ("    a, b = 1, 2\n    return a", 3, "`assign` is outside"),
        ("    for i in c.x:\n        pass\n    return 1", 3, "`for` is outside"),
        ("    return c.x if c.y else 1", 3, "`if exp` is outside"),
        ("    return c.x and c.y", 3, "`bool op` is outside"),
        ("    return not c.x", 3, "the operator `not`"),
        ("    return c.x // 2", 3, "the operator `floor div`"),
        ("    return 0 < c.x < 1", 3, "a chain of comparisons"),
        ("    return (c.x < 1) + (c.x > 2) * (c.x < 3)", 3, "two comparisons added"),
        ("    return c.x in k", 3, "the comparison `in`"),
        ("    return [1, 2]", 3, "`list` is outside"),
        ("    return c.x.sum()", 3, "a call of a method"),
        ("    return unknown(c)", 3, "the function `unknown` is not known"),
        ("    return unknown", 3, "the name `unknown` is not known"),
        ("    return maximum(1, 2, 3)", 3, "`maximum` takes 2 to 2 values, not 3"),
        ("    return where(c.x, 1, y=2)", 3, "with keywords"),
        ("    return {c.x: 1}", 3, "a key that is not a text"),
        ('    return {"a b": 1}', 3, "the key 'a b'"),
        ('    return "text"', 3, "the constant 'text'"),
        ("    return True", 3, "the constant True"),
        ("    return maximum", 3, "the name `maximum` is not known"),
        ("    return f(c)", 3, "`f` takes 2 to 2 values, not 1"),
        ("    return", 3, "`return` is outside"),
        ("    y = c.x", 2, "does not end with a return"),
        ("    y = 1\n    return y.z.w", 4, "an attribute of something that is no parameter"),
    ],
)
def test_everything_else_is_refused_with_its_place(body: str, line: int, what: str) -> None:
    with pytest.raises(FormulaError) as caught:
        script(f"{HEAD}def f(c, k):\n{body}\n")
    assert caught.value.message.startswith(f"formulas.py:{line}: ")
    assert what in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("from numpy import sort\n", 1, "numpy.sort has no counterpart"),
        ("import math\n", 1, "`import` outside a function"),
        ("from math import exp\n", 1, "an import from math"),
        ("x = 1\nclass A:\n    pass\n", 2, "`class def` outside a function"),
        ("def f(*c):\n    return 1\n", 1, "parameters of a special kind"),
        ("def f(c):\n    return 1\ndef f(d):\n    return 2\n", 3, "the name `f` is taken"),
        ("def where(c):\n    return 1\n", 1, "the name `where` is taken"),
        ("def f(c:\n", 1, "not Python"),
    ],
)
def test_modules_hold_nothing_but_formulas(text: str, line: int, what: str) -> None:
    with pytest.raises(FormulaError) as caught:
        script(text)
    assert caught.value.message.startswith(f"formulas.py:{line}: ")
    assert what in caught.value.message


def test_shipped_formulas_are_in_the_language() -> None:
    made = formula_script(FORMULA_MODULES)
    assert {"step_seconds", "memory_bytes", "spread", "fixed_seconds", "bill_of", "case_of"} <= set(made.functions)
    serving = formula_script(INFERENCE_MODULES)
    assert "inference" in serving.functions
    assert not set(serving.functions) & set(made.functions)  # they share one scope on the page
    assert not re.search(r"\beval\b", made.text)
    assert "pow:" in runtime_script()
