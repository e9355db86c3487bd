"""One effect as one sentence, English and Russian: what moves, how much, how sure, on how many units it rests."""

from __future__ import annotations

from ltm.patterns.gaps import CURVE, DOSE
from ltm.patterns.interactions import DIVERSITY, TOGETHER, WITH
from ltm.patterns.locale import Language, number, probability, term, units_compared
from ltm.patterns.order import ADJACENCY, BEFORE, FIRST, KERNEL, LAST, LATE, MIDDLE
from ltm.records import Effect

Text = dict[str, str]
VERSUS = "_vs_"  # in the name of a contrast between two arms


def sentence(effect: Effect, unit: str, language: Language) -> str:
    """Return one effect as a sentence: ability, what, how much, interval, q and on how many units it rests."""
    what = _EFFECT_WORDS[effect.kind](effect, _amount(effect, unit, language), language)
    low, high = number(effect.low, language), number(effect.high, language)
    sure = f"{probability('q', effect.q, language)}; {units_compared(effect.kind, effect.n, language)}"
    start = head(effect.ability, language)
    if language == "en":
        held = f" It holds in {effect.survives} of {effect.refits} other fits." if effect.refits else ""
        return f"{start}: {what} (90 % interval {low} to {high}; {sure}).{held}"
    held = f" Сохраняется в других расчётах: {effect.survives} из {effect.refits}." if effect.refits else ""
    return f"{start}: {what} (90 %-й интервал от {low} до {high}; {sure}).{held}"


def named_kinds(name: str) -> list[str]:
    """Return the two kinds of books that the name of an effect holds; empty where it holds none.

    >>> named_kinds("class 1 before class 2"), named_kinds("cluster 0 x cluster 3"), named_kinds("late:flesch")
    (['class 1', 'class 2'], ['cluster 0', 'cluster 3'], [])
    """
    return next((name.split(between, 1) for between in (BEFORE, WITH) if between in name), [])


def head(ability: str, language: Language) -> str:
    """Return the name of an ability as a sentence begins with it."""
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
    if effect.name.startswith("set:"):
        return _whole_set(effect, amount, language)
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
    for prefix, (yes, no) in _PLACES.items():
        if effect.name.startswith(prefix):
            name = term("feature", effect.name.removeprefix(prefix), language)
            return _place(effect, name, amount.rsplit(" ", 1)[0], language, yes, no)
    if BEFORE in effect.name:
        return _before(effect, amount.rsplit(" ", 1)[0], language)
    if effect.name == ADJACENCY:
        return _adjacency(effect, amount.rsplit(" ", 1)[0], language)
    return _versus(effect, amount, "order", language)


def _place(effect: Effect, name: str, size: str, language: Language, yes: Text, no: Text) -> str:
    where = (yes if effect.estimate > 0 else no)[language]
    if language == "en":
        return f"books with more “{name}” do better {where}: {size} per standard deviation of place"
    return f"книги, у которых больше признак «{name}», полезнее {where}: {size} на одно стандартное отклонение места"


# Where books with more of a feature do better: where the estimate is positive, and where it is negative.
_PLACES: dict[str, tuple[Text, Text]] = {
    KERNEL: (
        {"en": "where the schedule remembers most", "ru": "там, где расписание обучения запоминает больше всего"},
        {"en": "where the schedule remembers least", "ru": "там, где расписание обучения запоминает меньше всего"},
    ),
    LATE: (
        {"en": "late in the order", "ru": "в конце порядка"},
        {"en": "early in the order", "ru": "в начале порядка"},
    ),
    MIDDLE: (
        {"en": "in the middle of the order", "ru": "в середине порядка"},
        {"en": "at both ends of the order", "ru": "по краям порядка"},
    ),
    FIRST: (
        {"en": "in the first tenth", "ru": "в первой десятой части"},
        {"en": "outside the first tenth", "ru": "вне первой десятой части"},
    ),
    LAST: (
        {"en": "in the last tenth", "ru": "в последней десятой части"},
        {"en": "outside the last tenth", "ru": "вне последней десятой части"},
    ),
}


def _before(effect: Effect, size: str, language: Language) -> str:
    one, two = (term("kind", name, language) for name in effect.name.split(BEFORE, 1))
    if effect.estimate < 0:
        one, two = two, one
    if language == "en":
        return f"books of “{one}” do better before books of “{two}”: {size} per standard deviation of precedence"
    return f"книги «{one}» полезнее раньше, чем книги «{two}»: {size} на одно стандартное отклонение порядка"


def _adjacency(effect: Effect, size: str, language: Language) -> str:
    near = effect.estimate > 0
    if language == "en":
        way = "next to each other" if near else "apart from each other"
        return f"like books do better {way}: {size} per standard deviation of likeness of neighbours"
    way = "рядом" if near else "вдали друг от друга"
    return f"похожие книги полезнее {way}: {size} на одно стандартное отклонение сходства соседей"


def _gap(effect: Effect, amount: str, language: Language) -> str:
    size = amount.rsplit(" ", 1)[0]
    if effect.name == CURVE:
        return _curve(effect, size, language)
    if effect.name.endswith(DOSE):
        return _dose(effect, size, language)
    return _versus(effect, amount, "gap", language)


def _dose(effect: Effect, size: str, language: Language) -> str:
    kind = effect.name.removesuffix(DOSE)
    what = term("gap", "gaps" if kind == "gap" else kind, language)
    rises = effect.estimate > 0
    if language == "en":
        moves = "better" if rises else "worse"
        return (
            f"the more text is left out, the {moves} {what} does against the same amount of text without "
            f"gaps: slope {size} per unit of share left out"
        )
    moves = "выше" if rises else "ниже"
    which = "" if kind == "gap" else f" («{what}»)"
    return (
        f"чем больше текста пропущено{which}, тем {moves} результат по сравнению с таким же объёмом текста без "
        f"пропусков: наклон {size.removeprefix('на ')} на единицу пропущенной доли"
    )


def _curve(effect: Effect, size: str, language: Language) -> str:
    up = effect.estimate > 0
    if language == "en":
        way = "faster" if up else "slower"
        return f"the effect of gaps grows {way} than in a straight line with the share left out: curvature {size}"
    way = "быстрее" if up else "медленнее"
    return f"влияние пропусков растёт {way}, чем по прямой от пропущенной доли: кривизна {size.removeprefix('на ')}"


def _versus(effect: Effect, amount: str, table: str, language: Language) -> str:
    first, second = sides(effect.name, table, language)
    less = effect.name == "gaps_vs_full"  # it is not the gaps alone
    if language == "en":
        return f"“{first}”{' (which is also less text)' if less else ''} scores {amount} than “{second}”"
    return f"«{first}»{' (его и меньше)' if less else ''} даёт результат {amount}, чем «{second}»"


def sides(name: str, table: str, language: Language) -> tuple[str, str]:
    """Return what the name of a contrast of orders or gaps compares: `a_vs_b` -> the words for a and for b."""
    plus, minus = name.split(VERSUS, 1)
    if name == f"truncated{VERSUS}full":
        plus = "less"
    return term(table, plus, language), term(table, minus, language)


def _whole_set(effect: Effect, amount: str, language: Language) -> str:
    varied = effect.name == DIVERSITY
    if language == "en":
        what = "books of more kinds" if varied else "books that are more alike"
        return f"sets with {what} score {amount} per standard deviation between sets"
    what = "чем больше видов книг в наборе" if varied else "чем больше похожи книги набора"
    moves = "выше" if effect.estimate > 0 else "ниже"
    return f"{what}, тем результат {moves}: {amount.rsplit(' ', 1)[0]} на одно стандартное отклонение между наборами"


def _interaction(effect: Effect, amount: str, language: Language) -> str:
    size = amount.rsplit(" ", 1)[0]
    one, _, two = effect.label.partition(TOGETHER)
    if effect.name == effect.label.replace(TOGETHER, WITH):  # two kinds of books; of two books the label has the titles
        one, two = (term("kind", name, language) for name in (one, two))
    if language == "en":
        way = "more" if effect.estimate > 0 else "less"
        return f"“{one}” and “{two}” in one set bring {way} than the sum of both: {size}"
    way = "больше" if effect.estimate > 0 else "меньше"
    return f"«{one}» и «{two}» в одном наборе дают {way}, чем сумма их вкладов: {size.removeprefix('на ')}"


_EFFECT_WORDS = {"book": _book, "feature": _feature, "order": _order, "gap": _gap, "interaction": _interaction}
