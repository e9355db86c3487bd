"""Words and numbers of the findings, in English and Russian: names of things, forms of nouns, signs and commas.

Names stand in quotes or at the head of a Russian sentence, so that they need no case endings.
"""

from __future__ import annotations

import math
from typing import Literal

from ltm.patterns.describe import NUMBERED

Language = Literal["en", "ru"]
LANGUAGES: tuple[Language, ...] = ("en", "ru")

_ABILITIES = {
    "linking": ("linking scenes", "связывание сцен"),
    "transfer": ("logical transfer", "логический перенос"),
    "synthesis": ("synthesis of ideas", "синтез идей"),
    "fluency": ("fluency", "беглость"),
}
_UNITS = {
    "seed": ("seed sd", "σ повторов"),
    "residual": ("residual sd", "остаточной σ"),
    "mixed": ("seed or residual sd", "σ повторов или остаточной σ"),
    "score": ("points of the score", "единицы оценки"),
    "doubling": ("doublings of tokens", "удвоения числа токенов"),
    "none": ("units", "ед."),
}
_ORDERS = {
    "random": ("random order of books", "случайный порядок книг"),
    "reverse": ("reversed order of books", "обратный порядок книг"),
    "shuffled": ("shuffled passages", "перемешанные отрывки"),
    "chronological": ("chronological order", "порядок по времени написания"),
    "given": ("the library's own order", "порядок самой библиотеки"),
    "readability_up": ("from easy to hard books", "от лёгких книг к трудным"),
    "readability_down": ("from hard to easy books", "от трудных книг к лёгким"),
    "genre_blocked": ("genre after genre", "жанр за жанром"),
    "genre_interleaved": ("genres in turns", "жанры вперемежку"),
    "similarity_chain": ("like next to like", "похожее рядом с похожим"),
    "anti_chain": ("unlike next to unlike", "непохожее рядом с непохожим"),
    "in_turns": ("books read in turns", "книги по очереди, отрывок за отрывком"),
    "repetition": ("spaced repetition", "повторение с промежутками"),
}
_GAPS = {
    "gaps": ("text with gaps", "текст с пропусками"),
    "scattered": ("text with scattered passages left out", "текст с пропуском отдельных отрывков"),
    "blocks": ("text with blocks left out", "текст с пропуском больших кусков"),
    "chapters": ("text with chapters left out", "текст с пропуском глав"),
    "head": ("heads of books only", "только начала книг"),
    "truncated": ("the same amount of text without gaps", "столько же текста без пропусков"),
    "less": ("less text, without gaps", "меньше текста, но без пропусков"),
    "full": ("the full text", "полный текст"),
    "filled": ("gaps filled with more books", "пропуски, заполненные другими книгами"),
}
# Known features of books; another name is shown as it is written, a principal component by its number.
_FEATURES = {
    "comma_rate": ("commas", "запятые"),
    "common_word_share": ("common words", "частые слова"),
    "compression_ratio": ("incompressibility", "несжимаемость"),
    "concrete_share": ("things one can touch", "вещи, которые можно потрогать"),
    "connective_share": ("logical connectives", "доля логических связок"),
    "dash_rate": ("dashes", "тире"),
    "dialogue_share": ("dialogue", "доля диалога"),
    "eval_similarity": ("likeness to the test books", "сходство с проверочными книгами"),
    "exclamation_share": ("exclamations", "доля восклицаний"),
    "first_person_share": ("first person", "доля первого лица"),
    "flesch": ("ease of reading (Flesch)", "лёгкость чтения (Флеш)"),
    "foreign_share": ("foreign letters", "чужие буквы"),
    "log_chapter_words": ("chapter length", "длина глав"),
    "log_words": ("length", "длина книги"),
    "mean_paragraph_words": ("paragraph length", "длина абзацев"),
    "mean_sentence_words": ("sentence length", "длина предложений"),
    "mean_word_letters": ("word length", "длина слов"),
    "mind_share": ("thoughts and wishes", "мысли и желания"),
    "motion_share": ("movement", "движение"),
    "mtld": ("richness of words (MTLD)", "богатство словаря (MTLD)"),
    "name_density": ("density of names", "плотность имён"),
    "name_gap": ("distance between mentions of a name", "расстояние между упоминаниями имени"),
    "name_recurrence": ("recurrence of names", "повторяемость имён"),
    "name_variety": ("variety of names", "разнообразие имён"),
    "narrator_share": ("a narrator who says “I”", "рассказ от первого лица"),
    "novelty": ("text found in no other book", "текст, которого нет в других книгах"),
    "number_share": ("numbers", "доля чисел"),
    "past_tense_share": ("past tense", "доля прошедшего времени"),
    "perception_share": ("seeing and hearing", "зрение и слух"),
    "question_share": ("questions", "доля вопросов"),
    "rare_word_share": ("rare words", "доля редких слов"),
    "second_person_share": ("second person", "второе лицо"),
    "semicolon_rate": ("semicolons and colons", "точки с запятой и двоеточия"),
    "sentence_variation": ("variation of sentence length", "разнообразие длины предложений"),
    "set:diversity": ("variety of the books in a set", "разнообразие книг в наборе"),
    "set:likeness": ("likeness of the books in a set", "сходство книг в наборе"),
    "speech_share": ("words of speaking", "слова о речи"),
    "third_person_share": ("third person", "третье лицо"),
    "time_share": ("words of time", "слова о времени"),
    "unique_share": ("text of its own", "собственный текст"),
    "verse_share": ("verse", "доля стихов"),
    "word_entropy": ("unpredictability of words", "непредсказуемость слов"),
}
# Kinds of books: known genres; another one is shown as it is written, classes and clusters by their number.
_KINDS = {
    "apocalypse": ("apocalypse", "апокалипсис"),
    "biography": ("biography", "биография"),
    "children": ("children", "детские"),
    "drama": ("drama", "драма"),
    "essays": ("essays", "эссе"),
    "fiction": ("fiction", "проза"),
    "gospel": ("gospel", "евангелие"),
    "history": ("history", "история"),
    "law": ("law", "закон"),
    "letter": ("letter", "письмо"),
    "letters": ("letters", "письма"),
    "nonfiction": ("non-fiction", "документальная проза"),
    "other": ("other", "прочее"),
    "philosophy": ("philosophy", "философия"),
    "poetry": ("poetry", "поэзия"),
    "prophecy": ("prophecy", "пророчества"),
    "religion": ("religion", "религия"),
    "science": ("science", "наука"),
    "travel": ("travel", "путешествия"),
    "wisdom": ("wisdom", "мудрость"),
}
_VECTOR = "vector_"
_TABLES = {
    "ability": _ABILITIES,
    "unit": _UNITS,
    "order": _ORDERS,
    "gap": _GAPS,
    "feature": _FEATURES,
    "kind": _KINDS,
}


def term(table: str, name: str, language: Language) -> str:
    """Return the name of an ability, unit, order, gap, feature or kind of books as people read it.

    >>> term("kind", "class 3", "ru"), term("kind", "cluster 0", "en"), term("feature", "vector_03", "en")
    ('вид 3', 'kind 0', 'direction of meaning 3')
    """
    pair = _TABLES[table].get(name)
    for start in NUMBERED if table == "kind" else ():
        if name.startswith(start) and name.removeprefix(start).isdecimal():
            return f"{'kind' if language == 'en' else 'вид'} {name.removeprefix(start)}"
    number_of = name.removeprefix(_VECTOR)
    if table == "feature" and name.startswith(_VECTOR) and number_of.isdecimal():
        return f"{'direction of meaning' if language == 'en' else 'направление смысла'} {int(number_of)}"
    if pair is None:
        return name.replace("_", " ")
    return pair[0] if language == "en" else pair[1]


def number(value: float, language: Language, digits: int = 2, sign: bool = False) -> str:
    """Return a number with the language's decimal mark and a real minus.

    >>> number(-0.5, "ru"), number(0.5, "en", sign=True), number(-0.001, "en")
    ('−0,50', '+0.50', '0.00')
    """
    text = f"{abs(value):.{digits}f}"
    mark = "" if float(text) == 0 else "−" if value < 0 else "+" if sign else ""
    return mark + (text.replace(".", ",") if language == "ru" else text)


def probability(name: str, value: float, language: Language) -> str:
    """Return `q = 0.013`, or `q < 0.001` where more digits would pretend too much.

    >>> probability("q", 0.0131, "en"), probability("q", 0.0001, "ru")
    ('q = 0.013', 'q < 0,001')
    """
    if value < 0.001:
        return f"{name} < {number(0.001, language, 3)}"
    return f"{name} = {number(value, language, 3 if value < 0.0995 else 2)}"


def counted(count: int, forms: tuple[str, str, str]) -> str:
    """Return a count with its noun: forms for 1, 2-4 and 5 in Russian; singular, plural, plural in English.

    >>> ru = ("набор", "набора", "наборов")
    >>> [counted(n, ru) for n in (1, 3, 11, 21, 112)]
    ['1 набор', '3 набора', '11 наборов', '21 набор', '112 наборов']
    """
    return f"{count} {forms[_russian_form(count)]}"


def _russian_form(count: int) -> int:
    if count % 10 == 1 and count % 100 != 11:
        return 0
    return 1 if 2 <= count % 10 <= 4 and not 12 <= count % 100 <= 14 else 2


def units_compared(kind: str, count: int, language: Language) -> str:
    """Return how many sets, books or blocks an effect rests on."""
    english = {"book": "set", "feature": "book", "interaction": "set"}.get(kind, "block")
    if language == "en":
        return f"{count} {english}" + ("" if count == 1 else "s")
    forms = {
        "set": ("набор", "набора", "наборов"),
        "book": ("книга", "книги", "книг"),
        "block": ("блок", "блока", "блоков"),
    }
    return counted(count, forms[english])


def out_of(kind: str, count: int, language: Language) -> str:
    """Return `60 books` as it stands after "none of the" (English) or "из" (Russian genitive)."""
    english = {
        "book": ("book", "books"),
        "feature": ("feature", "features"),
        "order": ("comparison of orders", "comparisons of orders"),
        "gap": ("comparison of gaps", "comparisons of gaps"),
        "interaction": ("combination", "combinations"),
    }[kind]
    russian = {
        "book": ("книги", "книг"),
        "feature": ("признака", "признаков"),
        "order": ("сравнения порядков", "сравнений порядков"),
        "gap": ("сравнения пропусков", "сравнений пропусков"),
        "interaction": ("сочетания", "сочетаний"),
    }[kind]
    if language == "en":
        return f"{count} {english[0 if count == 1 else 1]}"
    return f"{count} {russian[0 if _russian_form(count) == 0 else 1]}"


def rounded(value: float | None) -> float | None:
    """Return a float with 6 significant digits, so that equal findings are equal bytes; None if it is not a number.

    >>> rounded(0.123456789), rounded(float("nan"))
    (0.123457, None)
    """
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.6g}") + 0.0
