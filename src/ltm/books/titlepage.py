"""Title, author and year from the first lines of a plain text, where a title page stands.

A line is believed where its place proves what it is (`by`, a year below, a Russian name with its patronymic) or where
the file's name says the same; a mere guess is given apart, so that the file's own name can go before it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ltm.books.names import slug
from ltm.books.words import word_set

_LINES = 14
_MAX_LINE = 110
_YEAR = re.compile(
    r"^\W{0,2}(?:c\.? ?|около )?(-?\d{3,4}|\d{1,3} ?(?:B\.?C\.?|до н\.? ?э\.?))(?: ?г(?:ода?|\.)?)?\W{0,2}$",
    re.IGNORECASE,
)
_IN_BRACKETS = re.compile(
    r"^\[(?P<title>[^\]\n]{2,90}?) by (?P<author>[^\]\n]{3,50}?)(?: (?P<year>-?\d{3,4}))?\]$", re.IGNORECASE
)
_BY = re.compile(r"^\W{0,3}(?:written )?(?:by|von|par|di|por|сочинение)\b:?\s*(?P<author>.*?)\W{0,2}$", re.IGNORECASE)
_TITLE_BY = re.compile(r"^(?P<title>.{2,80}?),? (?:by|BY|By) (?P<author>[A-Z][^,\n]{3,50}?)\W{0,2}$")
_PERSON = re.compile(
    r"^(?:(?:[A-ZÀ-ÝŒА-ЯЁ][\w’'-]*\.?|[A-Z]\.(?:[A-Z]\.)*|[А-ЯЁ]\.(?: ?[А-ЯЁ]\.)?|"
    r"de|du|da|la|le|von|van|of|фон|де)[ ]?){2,6}$"
)
_RUSSIAN = re.compile(
    r"^(?:[А-ЯЁ][а-яё]+(?: [А-ЯЁ][а-яё]+)? [А-ЯЁ][а-яё]+(?:-[А-ЯЁ][а-яё]+)?|"
    r"[А-ЯЁ]\. ?(?:[А-ЯЁ]\. ?)?[А-ЯЁ][а-яё]+(?:-[А-ЯЁ][а-яё]+)?|[А-ЯЁ ]{8,40})$"
)
_PATRONYMIC = re.compile(r"\b[А-ЯЁ][а-яё]+(?:ович|евич|ьич|инич|овна|евна|ична)\b")
_INITIALS = re.compile(r"^[А-ЯЁ]\. ?(?:[А-ЯЁ]\. ?)?[А-ЯЁ][а-яё]+")
_ONE_LINE = re.compile(
    r"^(?P<author>(?:[А-ЯЁ]\. ?){1,2}[А-ЯЁ][а-яё]+(?:-[А-ЯЁ][а-яё]+)?|"
    r"[А-ЯЁ][а-яё]+ [А-ЯЁ][а-яё]+(?:ович|евич|ьич|инич|овна|евна|ична) [А-ЯЁ][а-яё]+|[А-ЯЁ][а-яё]+ [А-ЯЁ][а-яё]+(?=\.))"
    r"\.? (?:[-–—] )?(?P<title>[А-ЯЁ\"«].{1,90})$"
)
_RUSSIAN_FIRST = word_set(
    "александр алексей алексея анатолий андрей антон аполлон борис василий викентий виктор владимир всеволод "
    "вячеслав глеб григорий даниил денис дмитрий евгений евгения елена зинаида иван илья иннокентий константин "
    "лев леонид максим марина мария михаил надежда николай осип павел петр пётр семен сергей федор фёдор юрий "
    "яков авдотья анна вера ольга софья софия татьяна лидия екатерина каролина игорь корней самуил аркадий "
    "афанасий кондратий козьма исаак булат "
)
_NOT_NAME = re.compile(
    r"\b(?:the|and|an?|in|on|to|with|for|from|The)\b|\b(?i:chapter|book|volume|part|preface|contents|introduction|edition|"
    r"press|new york|company|sons|letters|story|stories|tales?|poems?|novel|romance|history|adventures?|dedicated|"
    r"глава|часть|книга|том|роман|повесть|рассказы?|драма|комедия|поэма|действие|содержание|действующие|лица|сцен[аы]|"
    r"посвящается|явление|очерки?|предисловие)\b"
)
_DATIVE = re.compile(r"^[А-ЯЁ]\..*(?:овой|евой|иной|ову|еву|ину|скому)$")  # `А. О. Смирновой`: to whom, not by whom
_SUBTITLE = re.compile(
    r"\s+(?:Драма|Комедия|Трагедия|Сцены|Пьеса|Водевиль|Повесть|Роман|Поэма|Шутка)\b(?: (?:в|из|на) .*)?$"
)


@dataclass
class TitlePage:
    """What the first lines say: what is beyond doubt, and what is a guess."""

    sure: dict[str, str] = field(default_factory=dict)
    guess: dict[str, str] = field(default_factory=dict)


def read_title_page(text: str, file_fields: dict[str, str]) -> TitlePage:
    """Read the title page of a clean text.

    Args:
        text: The clean text, whose paragraphs are separated by blank lines.
        file_fields: What the file's name says (title, author), to check against.
    """
    lines = _first_lines(text)
    page = TitlePage()
    if not lines:
        return page
    _from_wording(lines, page.sure)
    _from_russian(lines, page)
    _from_order(lines, page)
    _confirmed(lines, file_fields, page.sure)
    return page


def _first_lines(text: str) -> list[str]:
    found: list[str] = []
    for line in text[:3000].replace("\ue000", "").split("\n"):
        plain = re.sub(r"\s+", " ", line).strip(" _*=#")
        if plain:
            if len(plain) > _MAX_LINE:
                break
            found.append(plain)
        if len(found) >= _LINES:
            break
    return found


def _from_wording(lines: Sequence[str], sure: dict[str, str]) -> None:
    bracketed = _IN_BRACKETS.match(lines[0])
    if bracketed:
        sure.update({key: value for key, value in bracketed.groupdict().items() if value})
        return
    inline = _TITLE_BY.match(lines[0])
    if inline and _is_person(inline["author"]):
        sure.update(title=inline["title"], author=inline["author"])
        return
    for place in range(1, min(len(lines), 8)):
        match = _BY.match(lines[place])
        if match is None:
            continue
        author = match["author"] or (lines[place + 1] if place + 1 < len(lines) else "")
        author = re.split(r",| AUTHOR OF", author)[0].strip(" .")
        if _is_person(author):
            sure.update(author=_cased(author, person=True), title=_cased(lines[0].rstrip(".:;")))
        return


def _from_russian(lines: Sequence[str], page: TitlePage) -> None:
    one = _ONE_LINE.match(lines[0])
    if one and (one["author"].split()[0].lower() in _RUSSIAN_FIRST or _INITIALS.match(one["author"])):
        page.sure.setdefault("author", one["author"])
        page.sure.setdefault("title", _cased(one["title"].strip(' .«»"')))
        return
    for place, line in enumerate(lines[:3]):
        if not _RUSSIAN.match(line) or _NOT_NAME.search(line) or _DATIVE.match(line):
            continue
        line = _first_name_first(line)
        words = line.lower().split()
        known = bool(_PATRONYMIC.search(line) or _INITIALS.match(line)) or any(w in _RUSSIAN_FIRST for w in words)
        if not known or len(words) > 4:
            continue
        other = lines[1] if place == 0 and len(lines) > 1 else lines[0]
        if not (_PATRONYMIC.search(line) or _INITIALS.match(line)) and words[0] not in _RUSSIAN_FIRST:
            continue
        page.sure.setdefault("author", _cased(line, person=True))
        if len(other) <= 80 and not _YEAR.match(other) and other != line:
            page.sure.setdefault("title", _cased(_SUBTITLE.sub("", other).strip(' .«»"')))
        return


def _first_name_first(line: str) -> str:
    """Return `Горький Максим` as `Максим Горький`."""
    words = line.split()
    if len(words) in (2, 3) and words[0].lower() not in _RUSSIAN_FIRST and words[1].lower() in _RUSSIAN_FIRST:
        return " ".join([*words[1:], words[0]])
    return line


def _from_order(lines: Sequence[str], page: TitlePage) -> None:
    """Read `Title / Author / Year`, with or without the year."""
    for place in range(1, min(len(lines), 5)):
        year = _YEAR.match(lines[place])
        if year:
            page.sure.setdefault("year", year[1])
            author = lines[place - 1]
            if place >= 2 and len(author) <= 60 and author[-1].isalpha() and not _is_chapter(author):
                page.sure.setdefault("author", _cased(author, person=True))
                page.sure.setdefault("title", _cased(" ".join(lines[: place - 1]).rstrip(".")))
            break
    if len(lines) > 1 and _is_person(lines[1]) and not _is_chapter(lines[0]):
        page.guess.setdefault("author", _cased(lines[1], person=True))
        page.guess.setdefault("title", _cased(lines[0].rstrip(".")))
    elif not _is_chapter(lines[0]) and len(lines[0]) <= 70 and lines[0][-1] not in ",;":
        page.guess.setdefault("title", _cased(_SUBTITLE.sub("", lines[0]).rstrip(".")))


def _confirmed(lines: Sequence[str], file_fields: dict[str, str], sure: dict[str, str]) -> None:
    """Take a line that spells what the file's name says: it has the accents and marks that file names lack."""
    for name in ("title", "author"):
        wanted = slug(file_fields.get(name, ""))
        if len(wanted) < 4:
            continue
        for line in lines[:6]:
            plain = _SUBTITLE.sub("", line).strip(" .")
            if slug(plain) == wanted or (name == "author" and _word_slugs(plain) == _word_slugs(file_fields[name])):
                sure[name] = _cased(_first_name_first(plain), person=name == "author")
                break


def _word_slugs(name: str) -> list[str]:
    return sorted(slug(word) for word in re.findall(r"[^\W\d_]+", name))


def _is_person(line: str) -> bool:
    return (
        4 < len(line) <= 50 and _PERSON.match(line) is not None and not _NOT_NAME.search(line) and not _YEAR.match(line)
    )


def _is_chapter(line: str) -> bool:
    return (
        re.match(
            r"^(?:chapter|book|part|act|preface|introduction|contents|глава|часть|действие|[ivxlc]+\.?$|\d)", line, re.I
        )
        is not None
    )


def _cased(line: str, person: bool = False) -> str:
    """Return a line that is all capitals as a title, or a name, is written."""
    if line != line.upper() or len(line) < 4:
        return line
    small = {"of", "the", "a", "an", "and", "in", "on", "to", "for", "from", "by", "or", "at", "with", "de"}
    if re.search("[А-ЯЁ]", line):
        return line.title() if person else line.capitalize()
    words = [word if "." in word else word.capitalize() for word in line.split()]
    return " ".join(w.lower() if i and w.lower() in small else w for i, w in enumerate(words))
