"""Findings in words, English and Russian: what was found, how strong, how sure - and what could not be told apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ltm.patterns.describe import Kind
from ltm.patterns.effects import KINDS, Estimated, share_that_lasts
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
from ltm.patterns.ranking import Ranking
from ltm.patterns.sentences import VERSUS, head, named_kinds, sentence, sides
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
    "interaction": ("effects of combinations", "влияние сочетаний"),
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
            "lfsr": rounded(e.lfsr),
            "adjusted": rounded(e.adjusted),
            "survives": e.survives,
            "refits": e.refits,
            "text": {language: sentence(e, abilities[e.ability].unit, language) for language in LANGUAGES},
        }
        for e in claimed
    ]


def not_told_apart(
    effects: Sequence[Effect], abilities: Mapping[str, Ability], through: Mapping[tuple[str, str], list[str]]
) -> list[dict[str, Any]]:
    """Return, for every ability and kind, what the study could not tell apart.

    `through` has, by ability and feature, the titles of the books that it cannot be told apart from.
    """
    found: list[dict[str, Any]] = []
    for name, facts in abilities.items():
        if facts.constant:
            found.append({"ability": name, "kind": "*", "n": 0, "q": None, "text": _constant(name, facts.n_runs)})
            continue
        if not facts.admitted:
            found.append({"ability": name, "kind": "*", "n": 0, "q": None, "text": _not_measurable(facts)})
            continue
        for kind in KINDS:
            group = [e for e in effects if e.ability == name and e.kind == kind]
            beside = {f: titles for (a, f), titles in through.items() if a == name} if kind == "feature" else {}
            for feature, titles in beside.items():
                text = {language: _through(name, feature, titles, language) for language in LANGUAGES}
                found.append({"ability": name, "kind": kind, "n": 1, "q": None, "text": text})
            rest = [e for e in group if not e.claimed and e.name not in beside]  # these differ from no effect
            if rest:
                smallest = min(e.q for e in rest)
                text = {language: _rest(name, kind, rest, group, language) for language in LANGUAGES}
                found.append({"ability": name, "kind": kind, "n": len(rest), "q": rounded(smallest), "text": text})
    return found


def _through(ability: str, feature: str, titles: Sequence[str], language: Language) -> str:
    start, name, one = head(ability, language), term("feature", feature, language), len(titles) == 1
    if language == "en":
        books = ", ".join(f"“{title}”" for title in titles)
        who = "this book does by itself" if one else "these books do by themselves"
        return f"{start}: “{name}” cannot be told apart from what {who} ({books}); it is not claimed."
    books = ", ".join(f"«{title}»" for title in titles)
    who = "самой этой книги" if one else "самих этих книг"
    return f"{start}: признак «{name}» нельзя отличить от действия {who} ({books}); его влияние не утверждается."


def _rest(name: str, kind: str, rest: Sequence[Effect], group: Sequence[Effect], language: Language) -> str:
    start, total = head(name, language), out_of(kind, len(group), language)
    if len(group) == 1 and VERSUS in rest[0].name:
        return _one_contrast(start, rest[0], language)
    smallest = probability("q", min(e.q for e in rest), language)
    if language == "en":
        against = {"book": "from the average book"}.get(kind, "from no effect")
        if len(group) == 1 and kind == "book":
            return f"{start}: “{rest[0].label}” could not be told apart {against} ({smallest})."
        if len(group) == 1:
            return f"{start}: the only {total.removeprefix('1 ')} could not be told apart {against} ({smallest})."
        if len(rest) == len(group):
            return f"{start}: none of {total} could be told apart {against} (smallest {smallest})."
        return f"{start}: the other {len(rest)} of {total} could not be told apart {against}."
    against = {"book": "от средней книги"}.get(kind, "от нулевого влияния")
    if len(group) == 1:
        return f"{start}: единственное сравнение ({_KIND_NAMES[kind][1]}) нельзя отличить {against} ({smallest})."
    if len(rest) == len(group):
        none = {"book": "ни одну", "feature": "ни один"}.get(kind, "ни одно")
        return f"{start}: {none} из {total} нельзя отличить {against} (наименьшее {smallest})."
    return f"{start}: остальное ({len(rest)} из {total}) нельзя отличить {against}."


def _one_contrast(start: str, effect: Effect, language: Language) -> str:
    first, second = sides(effect.name, effect.kind, language)
    q = probability("q", effect.q, language)
    if language == "en":
        return f"{start}: “{first}” could not be told apart from “{second}” ({q})."
    return f"{start}: «{first}» нельзя отличить от «{second}» ({q})."


def _constant(name: str, n_runs: int) -> Text:
    if not n_runs:
        return {
            "en": f"{head(name, 'en')}: no run has a usable score, so nothing can be said.",
            "ru": f"{head(name, 'ru')}: ни у одного запуска нет пригодной оценки, сказать нечего.",
        }
    return {
        "en": f"{head(name, 'en')}: all runs have the same score, so nothing can be compared.",
        "ru": f"{head(name, 'ru')}: у всех запусков один и тот же результат, сравнивать нечего.",
    }


def _not_measurable(facts: Ability) -> Text:
    return {
        "en": f"{head(facts.name, 'en')} could not be measured at this size ({facts.reason}): "
        "nothing is claimed about it.",
        "ru": f"{head(facts.name, 'ru')}: при этом размере модели способность не удалось измерить надёжно "
        f"{_families_ru(facts.reason)}, поэтому о ней ничего не утверждается.",
    }


def _families_ru(reason: str) -> str:
    """Return the families that an English reason names, in brackets; no other reason is known in words here."""
    _, found, families = reason.partition("none of its families can be measured: ")
    return f"(не прошли проверку: {families})" if found else "(проверка не пройдена)"


def notes(table: Table, estimated: Estimated, ranking: Ranking, edited: str = "") -> list[dict[str, Any]]:
    """Return what a reader must know beside the findings: what is missing, and what was left out."""
    found: list[Text] = [_edited(edited)] if edited else []
    if any(name in table.abilities for name in SCORED):  # scores from elsewhere may be of a user's own abilities alone
        found += [{lang: _missing(name, lang) for lang in LANGUAGES} for name in SCORED if name not in table.abilities]
    share = share_that_lasts(estimated.effects)
    found += [_picked(share)] if share is not None else []
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


def _picked(share: float) -> Text:
    percent = f"{100 * min(1.0, max(0.0, share)):.0f} %"
    return {
        "en": "What was found was picked for standing out, so that sizes and intervals are too good on average: about "
        f"{percent} of the sizes is expected to be there in a new study.",
        "ru": "Найденное отобрано потому, что выделялось, поэтому размеры и интервалы в среднем слишком хороши: "
        f"в новом исследовании от размеров ожидается около {percent}.",
    }


def _edited(reason: str) -> Text:
    return {
        "en": f"{reason}. So it is not known which books, orders and gaps a run had: no effect is given, and no rank.",
        "ru": f"План изменён после того, как был составлен ({reason}). Поэтому неизвестно, какие книги, порядок и "
        "пропуски были у запусков: влияние и места не приводятся.",
    }


_DROPPED = {
    "measures of an unknown ability": "оценки неизвестной способности",
    "measures that are not a number": "оценки, которые не являются числом",
    "duplicated runs": "повторные записи одного запуска",
    "duplicated rows": "повторные строки",
    "duplicated variants": "повторные варианты плана",
    "rows that name no run of this design": "строки, не относящиеся к запускам этого плана",
    "scores that are not a number": "оценки, которые не являются числом",
    "runs without a score": "запуски без оценки",
    "runs of another design": "запуски другого плана",
    "planned runs that are missing": "запланированные, но отсутствующие запуски",
}


def _missing(name: str, language: Language) -> str:
    if language == "en":
        return f"{head(name, language)} has no scores in this study."
    return f"{head(name, language)}: в этом исследовании нет оценок."


def _skipped(kind: str, reason: str, names: Sequence[str]) -> Text:
    text: Text = {}
    for i, language in enumerate(LANGUAGES):
        listed = ", ".join(term("ability", name, language) for name in names)
        what = _KIND_NAMES[kind][i]
        text[language] = f"{what[:1].upper() + what[1:]} ({listed}): {_WHY_SKIPPED[reason][i]}."
    return text


def _residual_unit(name: str) -> Text:
    return {
        "en": f"{head(name, 'en')}: the seed's standard deviation is not known, so effects are given in residual "
        "standard deviations within sets.",
        "ru": f"{head(name, 'ru')}: разброс между повторами неизвестен, поэтому влияние выражено в остаточных "
        "стандартных отклонениях внутри наборов.",
    }


def _power(name: str, smallest: float, n_sets: int, unit: str) -> Text:
    size = {lang: f"{number(smallest, lang)} {term('unit', unit, lang)}" for lang in LANGUAGES}
    forms = ("наборе", "наборах", "наборах")
    return {
        "en": f"{head(name, 'en')}: with {units_compared('book', n_sets, 'en')}, a book that changes the score by "
        f"{size['en']} is found four times in five; smaller effects are often missed.",
        "ru": f"{head(name, 'ru')}: на {counted(n_sets, forms)} книга, меняющая результат на {size['ru']}, "
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


def kind(found: Kind) -> dict[str, Any]:
    """Return a class of books as plain values, with what its books have more and less of in words."""
    return {
        "name": found.name,
        "n_books": found.n_books,
        "traits": [{"feature": name, "mean": rounded(mean)} for name, mean in found.traits],
        "text": {language: _kind(found, language) for language in LANGUAGES},
    }


def _kind(found: Kind, language: Language) -> str:
    name, en = term("kind", found.name, language), language == "en"
    name = name[:1].upper() + name[1:]
    books = units_compared("feature", found.n_books, language)
    sides = (("more" if en else "больше", 1.0), ("less" if en else "меньше", -1.0))
    parts = []
    for word, side in sides:
        traits = [term("feature", feature, language) for feature, mean in found.traits if mean * side > 0]
        if traits:
            parts.append(f"{word} " + ", ".join(f"“{t}”" if en else f"«{t}»" for t in traits))
    if en:
        return f"{name}: {books} with {' and '.join(parts) or 'nothing that stands out'}."
    return f"{name}: {books}; {'; '.join(parts) or 'ничем не выделяются'}."


_MOST_SENTENCES = 20
_NOTHING = {
    "en": "Nothing: no book, feature, order, gap or combination stands out from chance.",
    "ru": "Ничего: ни одна книга, признак, порядок, пропуск или сочетание не выделяется на фоне случайности.",
}
_HEADINGS = {
    "findings": ("what was found", "что найдено"),
    "kinds": ("kinds of books that are known by a number", "виды книг, известные по номеру"),
    "not_told_apart": ("what could not be told apart", "что нельзя отличить"),
    "ideal_set": ("the ideal set", "идеальный набор"),
    "confirmed": ("confirmed", "подтверждено"),
    "emergence": ("when abilities leave chance", "когда способности выходят за случайный уровень"),
    "notes": ("notes", "примечания"),
}


def report_lines(value: Mapping[str, Any], language: Language) -> list[str]:
    """Return the findings of a report as lines of text, under headings; empty chapters are left out."""
    lines: list[str] = []
    for key, headings in _HEADINGS.items():
        part = value.get(key)
        if key == "findings" and not part and value.get("not_told_apart"):
            part = [{"text": _NOTHING}]
        if key == "kinds":  # only those that a finding names
            named = {name for found in value.get("findings", ()) for name in named_kinds(found["name"])}
            part = [row for row in part or () if row["name"] in named]
        if not part:
            continue
        rows = list(part.values()) if key == "emergence" else [part] if isinstance(part, dict) else list(part)
        lines += ["", headings[0 if language == "en" else 1] + ":"]
        lines += [f"  - {row['text'][language]}" for row in rows[:_MOST_SENTENCES]]
        if len(rows) > _MOST_SENTENCES:
            lines.append(f"  ... {len(rows) - _MOST_SENTENCES} (--json)")
    conditions = value.get("conditions") or {}
    if conditions:
        held = ", ".join(f"{key} {setting}" for key, setting in conditions.items())
        lines += ["", {"en": "all of it holds for: ", "ru": "всё это верно при: "}[language] + held]
    return lines
