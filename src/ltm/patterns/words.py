"""Findings in words, English and Russian: what was found, how strong, how sure - and what could not be told apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ltm.patterns.effects import KINDS, Estimated
from ltm.patterns.locale import (
    LANGUAGES,
    Language,
    counted,
    number,
    out_of,
    probability,
    rounded,
    term,
    units_compared,
)
from ltm.patterns.order import LATE
from ltm.patterns.ranking import Ranking
from ltm.patterns.table import SCORED, Ability, Table
from ltm.records import Effect

Text = dict[str, str]

_WHY_SKIPPED = {
    "too_few_sets": ("too few sets to compare", "слишком мало наборов для сравнения"),
    "too_few_blocks": (
        "too few blocks with both arms to compare",
        "слишком мало блоков, где есть обе стороны сравнения",
    ),
    "no_features": ("no feature of the books varies", "ни один признак книг не меняется"),
    "no_random_sets": ("no set was drawn at random", "ни один набор не был выбран случайно"),
}
_KIND_NAMES = {
    "book": ("effects of books", "влияние книг"),
    "feature": ("effects of features", "влияние признаков"),
    "order": ("effects of order", "влияние порядка"),
    "gap": ("effects of gaps", "влияние пропусков"),
}


def strength(effect: Effect) -> float:
    """Return how strong an effect is at the least: the end of its interval that is nearer to zero."""
    if effect.low <= 0 <= effect.high:
        return 0.0
    return min(abs(effect.low), abs(effect.high))


def findings(effects: Sequence[Effect], abilities: Mapping[str, Ability]) -> list[dict[str, Any]]:
    """Return the claimed effects, strongest first, each with its sentence in every language."""
    claimed = [e for e in effects if e.claimed]
    claimed.sort(key=lambda e: (-strength(e), -abs(e.estimate), e.ability, e.kind, e.name))
    return [
        {
            "kind": e.kind,
            "name": e.name,
            "ability": e.ability,
            "estimate": rounded(e.estimate),
            "low": rounded(e.low),
            "high": rounded(e.high),
            "q": rounded(e.q),
            "n": e.n,
            "claimed": e.claimed,
            "text": {language: sentence(e, abilities[e.ability].unit, language) for language in LANGUAGES},
        }
        for e in claimed
    ]


def sentence(effect: Effect, unit: str, language: Language) -> str:
    """Return one effect as a sentence: ability, what, how much, interval, q and on how many units it rests."""
    what = _EFFECT_WORDS[effect.kind](effect, _amount(effect, unit, language), language)
    low, high = number(effect.low, language), number(effect.high, language)
    sure = f"{probability('q', effect.q, language)}; {units_compared(effect.kind, effect.n, language)}"
    head = _head(effect.ability, language)
    if language == "en":
        return f"{head}: {what} (90 % interval {low} to {high}; {sure})."
    return f"{head}: {what} (90 %-й интервал от {low} до {high}; {sure})."


def _head(ability: str, language: Language) -> str:
    name = term("ability", ability, language)
    return name[:1].upper() + name[1:]


def _amount(effect: Effect, unit: str, language: Language) -> str:
    """Return `0.84 seed sd higher` or `на 0,84 σ повторов выше`."""
    size, word = number(abs(effect.estimate), language), term("unit", unit, language)
    if language == "en":
        return f"{size} {word} {'higher' if effect.estimate > 0 else 'lower'}"
    return f"на {size} {word} {'выше' if effect.estimate > 0 else 'ниже'}"


def _book(effect: Effect, amount: str, language: Language) -> str:
    if language == "en":
        return f"sets with “{effect.label}” score {amount} than sets without it"
    return f"у наборов с книгой «{effect.label}» результат {amount}, чем у наборов без неё"


def _feature(effect: Effect, amount: str, language: Language) -> str:
    name = term("feature", effect.name, language)
    if language == "en":
        return f"sets of books with more “{name}” score {amount} per standard deviation between sets"
    moves = "выше" if effect.estimate > 0 else "ниже"
    size = amount.rsplit(" ", 1)[0]
    return (
        f"чем больше у книг набора признак «{name}», тем результат {moves}: "
        f"{size} на одно стандартное отклонение между наборами"
    )


def _order(effect: Effect, amount: str, language: Language) -> str:
    if effect.name.startswith(LATE):
        name = term("feature", effect.name.removeprefix(LATE), language)
        later = effect.estimate > 0
        size = amount.rsplit(" ", 1)[0]
        if language == "en":
            place = "late" if later else "early"
            return f"books with more “{name}” do better {place} in the order: {size} per standard deviation of place"
        place = "в конце" if later else "в начале"
        where = f"книги, у которых больше признак «{name}», полезнее {place} порядка"
        return f"{where}: {size} на одно стандартное отклонение места"
    return _versus(effect, amount, "order", language)


def _gap(effect: Effect, amount: str, language: Language) -> str:
    if effect.name == "gap_dose":
        size = amount.rsplit(" ", 1)[0]
        rises = effect.estimate > 0
        if language == "en":
            moves = "better" if rises else "worse"
            return (
                f"the more text is left out, the {moves} text with gaps does against the same amount of text without "
                f"gaps: slope {size} per unit of share left out"
            )
        moves = "выше" if rises else "ниже"
        return (
            f"чем больше текста пропущено, тем {moves} результат по сравнению с таким же объёмом текста без пропусков: "
            f"наклон {size.removeprefix('на ')} на единицу пропущенной доли"
        )
    return _versus(effect, amount, "gap", language)


def _versus(effect: Effect, amount: str, table: str, language: Language) -> str:
    plus, minus = effect.name.split("_vs_")
    if effect.name == "truncated_vs_full":
        plus = "less"
    first, second = term(table, plus, language), term(table, minus, language)
    if language == "en":
        return f"“{first}” scores {amount} than “{second}”"
    return f"«{first}» даёт результат {amount}, чем «{second}»"


_EFFECT_WORDS = {"book": _book, "feature": _feature, "order": _order, "gap": _gap}


def not_told_apart(effects: Sequence[Effect], abilities: Mapping[str, Ability]) -> list[dict[str, Any]]:
    """Return, for every ability and kind, what the study could not tell apart."""
    found: list[dict[str, Any]] = []
    for name, facts in abilities.items():
        if facts.constant:
            found.append({"ability": name, "kind": "*", "n": 0, "q": None, "text": _constant(name)})
            continue
        if not facts.admitted:
            found.append({"ability": name, "kind": "*", "n": 0, "q": None, "text": _not_measurable(facts)})
            continue
        for kind in KINDS:
            group = [e for e in effects if e.ability == name and e.kind == kind]
            rest = [e for e in group if not e.claimed]
            if rest:
                smallest = min(e.q for e in rest)
                text = {language: _rest(name, kind, rest, group, language) for language in LANGUAGES}
                found.append({"ability": name, "kind": kind, "n": len(rest), "q": rounded(smallest), "text": text})
    return found


def _rest(name: str, kind: str, rest: Sequence[Effect], group: Sequence[Effect], language: Language) -> str:
    head, total = _head(name, language), out_of(kind, len(group), language)
    smallest = probability("q", min(e.q for e in rest), language)
    if language == "en":
        against = {"book": "from the average book"}.get(kind, "from no effect")
        if len(group) == 1:
            return f"{head}: {rest[0].label} could not be told apart {against} ({smallest})."
        if len(rest) == len(group):
            return f"{head}: none of {total} could be told apart {against} (smallest {smallest})."
        return f"{head}: the other {len(rest)} of {total} could not be told apart {against}."
    against = {"book": "от средней книги"}.get(kind, "от нулевого влияния")
    if len(group) == 1:
        return f"{head}: единственное сравнение ({_KIND_NAMES[kind][1]}) нельзя отличить {against} ({smallest})."
    if len(rest) == len(group):
        none = {"book": "ни одну", "feature": "ни один"}.get(kind, "ни одно")
        return f"{head}: {none} из {total} нельзя отличить {against} (наименьшее {smallest})."
    return f"{head}: остальное ({len(rest)} из {total}) нельзя отличить {against}."


def _constant(name: str) -> Text:
    return {
        "en": f"{_head(name, 'en')}: all runs have the same score, so nothing can be compared.",
        "ru": f"{_head(name, 'ru')}: у всех запусков один и тот же результат, сравнивать нечего.",
    }


def _not_measurable(facts: Ability) -> Text:
    return {
        "en": f"{_head(facts.name, 'en')} could not be measured at this size ({facts.reason}): "
        "nothing is claimed about it.",
        "ru": f"{_head(facts.name, 'ru')}: при этом размере модели способность не удалось измерить надёжно "
        f"({_families_ru(facts.reason)}), поэтому о ней ничего не утверждается.",
    }


def _families_ru(reason: str) -> str:
    """Return the families that an English reason names, or a plain word for any other reason."""
    _, found, families = reason.partition("none of its families can be measured: ")
    return f"не прошли проверку: {families}" if found else "слишком мало данных"


def notes(table: Table, estimated: Estimated, ranking: Ranking) -> list[dict[str, Any]]:
    """Return what a reader must know beside the findings: what is missing, and what was left out."""
    found: list[Text] = []
    found += [{lang: _missing(name, lang) for lang in LANGUAGES} for name in SCORED if name not in table.abilities]
    reasons: dict[tuple[str, str], list[str]] = {}
    for (name, kind), reason in estimated.skipped.items():
        if reason in _WHY_SKIPPED:
            reasons.setdefault((kind, reason), []).append(name)
    for (kind, reason), names in reasons.items():
        found.append(_skipped(kind, reason, names))
    for name, facts in table.abilities.items():
        if facts.unit == "residual":
            found.append(_residual_unit(name))
    for reason, count in table.dropped.items():
        found.append(
            {"en": f"Left out: {reason} ({count}).", "ru": f"Не учтено: {_DROPPED.get(reason, reason)} ({count})."}
        )
    found += [
        _power(name, summary.smallest_book_effect, summary.n_sets, table.abilities[name].unit)
        for name, summary in estimated.summaries.items()
        if table.abilities[name].admitted and math.isfinite(summary.smallest_book_effect)
    ]
    found.append(_ranking_note(ranking))
    return [{"text": text} for text in found]


_DROPPED = {
    "measures of an unknown ability": "оценки неизвестной способности",
    "measures that are not a number": "оценки, которые не являются числом",
    "duplicated runs": "повторные записи одного запуска",
    "runs without a score": "запуски без оценки",
    "runs of another design": "запуски другого плана",
    "planned runs that are missing": "запланированные, но отсутствующие запуски",
}


def _missing(name: str, language: Language) -> str:
    if language == "en":
        return f"{_head(name, language)} has no scores in this study."
    return f"{_head(name, language)}: в этом исследовании нет оценок."


def _skipped(kind: str, reason: str, names: Sequence[str]) -> Text:
    text: Text = {}
    for i, language in enumerate(LANGUAGES):
        listed = ", ".join(term("ability", name, language) for name in names)
        what = _KIND_NAMES[kind][i]
        text[language] = f"{what[:1].upper() + what[1:]} ({listed}): {_WHY_SKIPPED[reason][i]}."
    return text


def _residual_unit(name: str) -> Text:
    return {
        "en": f"{_head(name, 'en')}: the seed's standard deviation is not known, so effects are given in residual "
        "standard deviations within sets.",
        "ru": f"{_head(name, 'ru')}: разброс между повторами неизвестен, поэтому влияние выражено в остаточных "
        "стандартных отклонениях внутри наборов.",
    }


def _power(name: str, smallest: float, n_sets: int, unit: str) -> Text:
    size = {lang: f"{number(smallest, lang)} {term('unit', unit, lang)}" for lang in LANGUAGES}
    forms = ("наборе", "наборах", "наборах")
    return {
        "en": f"{_head(name, 'en')}: with {units_compared('book', n_sets, 'en')}, a book that changes the score by "
        f"{size['en']} is found four times in five; smaller effects are often missed.",
        "ru": f"{_head(name, 'ru')}: на {counted(n_sets, forms)} книга, меняющая результат на {size['ru']}, "
        "находится в четырёх случаях из пяти; более слабое влияние часто остаётся незамеченным.",
    }


def _ranking_note(ranking: Ranking) -> Text:
    if not ranking.rows:
        return {
            "en": "There are too few scores to rank variants.",
            "ru": "Оценок слишком мало, чтобы сравнить варианты.",
        }
    tied, total = sum(row.tied_with_best for row in ranking.rows) - 1, len(ranking.rows)
    forms = ("вариант", "варианта", "вариантов")
    by = {lang: ", ".join(term("ability", name, lang) for name in ranking.by) for lang in LANGUAGES}
    if tied == 0:
        return {
            "en": f"The best of {total} variants stands apart from all others (by {by['en']}).",
            "ru": f"Лучший вариант отличается от всех остальных; всего {counted(total, forms)} "
            f"(по показателям: {by['ru']}).",
        }
    if tied == total - 1:
        return {
            "en": f"None of the other {tied} variants can be told apart from the best (by {by['en']}).",
            "ru": f"Ни один вариант нельзя отличить от лучшего; всего {counted(total, forms)} "
            f"(по показателям: {by['ru']}).",
        }
    return {
        "en": f"{tied} of {total} variants cannot be told apart from the best (by {by['en']}).",
        "ru": f"От лучшего варианта нельзя отличить {counted(tied, forms)} из {total} (по показателям: {by['ru']}).",
    }
