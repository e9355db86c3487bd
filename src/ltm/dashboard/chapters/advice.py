"""What next: steps that follow from what the study knows and does not know, with numbers where they can be worked out.

Reads: rows and `patterns/findings.json`. Writes: nothing. Formulas: an interval shrinks with the root of the number of
sets; Spearman and Brown for the number of questions; the expected z of an effect that is found four times in five
(Bonferroni's bound at the first claim) for the runs that a promising effect still needs.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter

from ltm.dashboard.effect_units import RESIDUAL, units
from ltm.dashboard.figures import ability_order
from ltm.dashboard.inputs import Inputs, number
from ltm.dashboard.names import effect_name
from ltm.dashboard.words import LANGUAGES, Argument, Duration, Fixed, Several, Term, say, texts
from ltm.records import FLUENCY, Effect, Reliability

Text = dict[str, str]

_WANTED_SPLIT_HALF, _LEAST_SPLIT_HALF = 0.7, 0.05
_POWER_Z = statistics.NormalDist().inv_cdf(0.80)
_MOST_FACTOR = 50.0
_MOST_STEPS = 6
_SETTLED_BY_RUNS = ("book", "feature", "gap")  # kinds
_NAMED = 1  # effects that are nearly told apart


def advice(inputs: Inputs) -> list[Text]:
    """Return what to do next, the most useful first."""
    done, planned = len(inputs.runs), inputs.n_planned
    if not planned and not done:
        return [texts("advice.start")]
    steps: list[Text] = []
    if done < planned:
        steps.append(texts("advice.finish", n=planned - done))
    if not inputs.findings:
        return steps
    steps += _measure(inputs)
    if not inputs.findings.get("confirmed"):
        steps.append(texts("advice.confirm_wait" if _has_confirmation(inputs) else "advice.confirm"))
    steps += _nearly(inputs)
    steps += _halve(inputs)
    if RESIDUAL in units(inputs).values():
        steps.append(texts("advice.seeds"))
    if any(effect.claimed for effect in inputs.effects):
        steps.append(texts("advice.larger"))
    return steps[:_MOST_STEPS]


def _has_confirmation(inputs: Inputs) -> bool:
    rounds = inputs.study.get("rounds")
    return isinstance(rounds, dict) and bool(rounds.get("enabled"))


def _measure(inputs: Inputs) -> list[Text]:
    """Return what makes abilities measurable that are not, by the test that most of their families failed."""
    by_ability: dict[str, list[Reliability]] = {}
    for row in inputs.reliability:
        if row.family != "*" and row.ability != FLUENCY:
            by_ability.setdefault(row.ability, []).append(row)
    by_cure: dict[str, list[str]] = {}
    for ability in sorted(by_ability, key=ability_order):
        rows = by_ability[ability]
        if any(row.admitted for row in rows):
            continue
        failed = {code for row in rows for code in row.reasons}
        for cure, codes in (("larger", ("untrained", "ngram")), ("items", ("split_half",)), ("sets", ("icc",))):
            if any(code in codes for code in failed):
                by_cure.setdefault(cure, []).append(ability)
                break
    found = []
    for cure, abilities in by_cure.items():
        values: dict[str, Argument] = {"list": Several(tuple(Term(f"term.{a}", a) for a in abilities))}
        key = f"advice.{cure}_measure"
        if cure == "items":
            factor = _more_items([row for a in abilities for row in by_ability[a]])
            key = "advice.items_measure" if factor else "advice.items_measure_some"
            values |= {"factor": Fixed(factor, 1)} if factor else {}
        found.append(texts(key, **values))
    return found


def _more_items(rows: list[Reliability]) -> float | None:
    """Return how many times as many questions bring the median family's split-half to what is wanted."""
    halves = [row.split_half for row in rows if (number(row.split_half) or 0.0) > _LEAST_SPLIT_HALF]
    if not halves:
        return None
    now = min(statistics.median(halves), 0.99)
    factor = _WANTED_SPLIT_HALF * (1.0 - now) / (now * (1.0 - _WANTED_SPLIT_HALF))
    return factor if 1.0 < factor <= _MOST_FACTOR else None


def _nearly(inputs: Inputs) -> list[Text]:
    """Return the effects that are nearest to being claimed, and the runs that would settle them."""
    admitted = {row.ability for row in inputs.reliability if row.family == "*" and row.admitted}
    level, n_runs = number(inputs.findings.get("level")) or 0.1, len(inputs.runs)
    tests = Counter((effect.ability, effect.kind) for effect in inputs.effects)
    candidates = []
    for effect in inputs.effects:
        if effect.claimed or effect.ability not in admitted or effect.kind not in _SETTLED_BY_RUNS:
            continue
        factor = more_data(effect, level, tests[effect.ability, effect.kind])
        if factor is not None:
            candidates.append((factor, effect.name, effect))
    found = []
    for factor, _, effect in sorted(candidates, key=lambda row: row[:2])[:_NAMED]:
        more = math.ceil((factor - 1.0) * n_runs)
        found.append(
            {
                language: say(
                    language,
                    "advice.nearly",
                    n=more,
                    label=f"\u2068{effect_name(language, effect.kind, effect.name, effect.label)}\u2069",
                    ability=Term(f"term.{effect.ability}", effect.ability),
                )
                for language in LANGUAGES
            }
        )
    return found


def more_data(effect: Effect, level: float, n_tests: int) -> float | None:
    """Return how many times as many sets find an effect of the size that is expected of it, four times in five.

    The size is the shrunken one, so that luck is not taken for promise. None where it promises nothing, or where more
    than fifty times the data would be needed.
    """
    size, se = number(effect.shrunk), number(effect.se)
    if not size or not se or se <= 0 or n_tests <= 0:
        return None
    wanted = statistics.NormalDist().inv_cdf(1.0 - level / (2.0 * n_tests)) + _POWER_Z
    factor = (wanted * se / abs(size)) ** 2
    return factor if 1.0 < factor <= _MOST_FACTOR else None


def _halve(inputs: Inputs) -> list[Text]:
    """Return the runs, and the time at the speed so far, that halve the intervals of book effects."""
    if not any(effect.kind == "book" for effect in inputs.effects) or not inputs.runs:
        return []
    more = 3 * len(inputs.runs)
    stages = inputs.timings.get("stages")
    seconds = number(stages.get("runs")) if isinstance(stages, dict) else None
    if not seconds:
        return [texts("advice.halve", n=more)]
    return [texts("advice.halve_time", n=more, time=Duration(3.0 * seconds))]
