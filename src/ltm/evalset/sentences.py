"""Cut a book into sentences, and say where a piece of it may begin, where it may end, and what no piece may hold.

Books carry more than their text: headings between stories, the author's name under each, footnotes, marks of editors,
letters that a scanner misread. A piece that holds such a line is no passage that a person would write, and a piece that
begins inside a quotation has a mark that nothing opened. Both are told here, once for all builders.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ltm.evalset.habits import GLUE, as_usual, without_accents

_END = re.compile(rf"[.!?…]+[\"'”’»)\]{GLUE}]*\s+")
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Messrs|Mme|Mlle|Rev|Hon|vs|Capt|Col|Gen|Lieut|Lt|Sergt|Sgt|Prof|Esq|Jr|Sr|Vol|Fig|viz|cf|Co|"
    r"Mt|Gov|Bros|Mfg|Jan|Feb|Aug|Sept|Oct|Nov|Dec|г|гг|гр|кн|св|им|т|д|п|проф|стр|см|Прим|прим|ул|гл|соч|тов|[A-ZА-ЯЁ]))\.\s+$"
)
_BLANK = re.compile(r"\n[^\S\n]*\n\s*")
_LINE = re.compile(r"[^\n]+")
_SPEAKER = re.compile(r"(?:\A|(?<=\n))[A-ZА-ЯЁ][\w'’-]*(?: [A-ZА-ЯЁ][\w'’-]*)?\.(?=\s)")  # FACE. What news?
_MIN_SPEECHES = 8  # a name that opens so many paragraphs, and is followed by a point, is a speaker's
_ALONE = re.compile(r"[A-ZА-ЯЁ][\w'’-]*(?: [\w'’-]+){0,2}[.:]$")  # a speaker on a line of his own
_SIGNED = re.compile(r"[A-ZА-ЯЁ][\w'’-]*(?: [\w'’-]+)?\.")  # Proverb. Old song. Byron. - below a motto
_MIN_ALONE = 20  # so many such lines make a play of a book
_CONTINUES = re.compile(r"(?:[-—–]+ ?)?[^\W\d_A-ZА-ЯЁ]")  # "Who?" said he.
_SAYS = re.compile(  # "Who?" Scrooge inquired.
    r"(?:I|[A-Z][\w.]+(?: [A-Z]\w+)?) (?:said|asked|cried|replied|answered|exclaimed|repeated|inquired|added|shouted|"
    r"whispered|demanded|thought|returned|remarked|observed|murmured|muttered|called)\b"
)
_SOFT_END = re.compile(r"[;:]\s+")
_LONG_WORDS = 30  # a sentence longer than this may also be cut after a semicolon or colon
_LONGEST_NAME = 40  # letters of a speaker
_HEADING_WORDS = 14
_NUMBERED = re.compile(
    r"(?:(?:chapter|part|book|scene|act|canto|letter|глава|часть|книга|явление|действие|сцена|картина|песнь|письмо)"
    r"[ .]+(?:the |[ivxlcхі]+\b|\d+|first|second|third|fourth|last|перв|втор|трет|четв|пят|шест|седьм|восьм|девят|"
    r"десят|одинн|двен|послед)[^!?]{0,60}|[ivxlcхі]+|\d+)[.):\s]*$",
    re.IGNORECASE,
)
_VERSE_SHARE = 0.1  # of the paragraphs of a book: with more short ones without an end they are lines of verse
_SHORT = 120  # letters
_CLOSING = f"\"'”’»)*_] {GLUE}"
_NOTE = re.compile(
    r"\[\s*(?:\d+|\*+|footnote|illustration|transcriber|sidenote|note\b|pg\b|page\b|прим|сноск|ред\b)"
    r"|\((?:лат|фр|франц|нем|ит|итал|англ|греч|польск|укр|исп|тур|татарск|древнегреч|церк)\.[^)]{0,20}\)"
    r"|[(\[]прим(?:еч)?\.|примеч(?:ание|\.)|transcriber|project gutenberg|gutenberg\.org|\be-?texts?\b"
    r"|https?:|www\.|\blib\.ru|\w@\w",
    re.IGNORECASE,
)
_DAMAGED = re.compile(
    r"[\u2500-\u25ff\ufffd\u00a6\u00ac|<>{}\\^~#@\u00ad]"  # signs of no book
    r"|[а-яё][А-ЯЁ]|[a-z][а-яё]|[а-яё][a-z]|[а-яёА-ЯЁ]\d|\d[а-яёА-ЯЁ]"  # осноТзу, 3вук
    r"|[^\W\d_.!?,;:…»)-]\s*\n\s*[-–—]+\s"  # who is quoted, and then the text
    r"|\A[А-ЯЁ]\w+(?:, «[^»]+»)? [–—] [А-ЯЁ]|\A\d+(?:\.| [-–—]) | \.\w"
    r"|[a-z]{3}-(?:and|with|but|which|who|that|the|for)\b(?!-)|(?<=[а-яё.,!?] )[AaBCcEeHKMOoPpTXxy]{1,4}(?= [а-яё])"
    r"|\b(?!проч|руб|коп|тыс|губ|стр|гг|др|св|им|см|гр|кн|пр|ул|гл|ст)[а-яё]{2,}\. [а-яё]"
    r"|[^\W\d_],[^\W\d_]|[^\W\d_] [,;:?!](?=\s|[\"”’»])|[^\W\d_]{3}\.[^\W\d_]{3}"
    r"|:\.|[^.?!]\.\.(?!\.)|,\.(?!\.)|,,|;;|\)\.\)|[.!?]\s+\.\s?$"
)
_HYPHEN = re.compile(r"\b([^\W\d_]+)-([^\W\d_][^\W\d_-]*(?:-[^\W\d_]+)*)\b")
_BEFORE_HYPHEN = {"по", "кое", "кой", "из", "во", "в", "вице", "обер", "унтер", "лейб", "экс", "статс", "как", "пол"}
_AFTER_HYPHEN = {"то", "либо", "нибудь", "ка", "с", "де", "таки", "за", "под", "ста", "на", "тка", "те", "ко"}
_MARKS = re.compile("[\"'«»“”„‘’()\\[\\]]")
_PARTNER = {"«": "»", "“": "”", "„": "“”", "(": ")", "[": "]"}
_ELISION = re.compile(r"(?:t(?:is|was|were|wou|will)|em\b|til|bout|cause|round|mong|gainst|un\b)", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence, or a piece of a long one.

    `opens` says whether a passage may begin with it, `closes` whether one may end with it, `sound` whether one may hold
    it, and `fenced` whether none may hold both it and what stands before it.
    """

    start: int
    end: int
    opens: bool
    closes: bool
    sound: bool
    fenced: bool


def sentences(text: str, low: int, high: int, titles: Collection[str] = ()) -> Iterator[Sentence]:
    """Yield the sentences of a part of a book in order.

    Args:
        text: The book.
        low: First character that counts; sentences begin after the next blank line, but at 0 at once.
        high: First character that does not; a sentence that goes on there is left out, but at the text's end.
        titles: Lines that are no text wherever they stand alone, in small letters: the author, the title.
    """
    written, text = text, as_usual(text, low, high)
    if text is not written:
        titles = {*titles, *map(without_accents, titles)}
    blocks = _with_subtitles(text, list(_blocks(text, low, high, titles)))
    if high < len(text) and len(blocks) > 1:
        blocks.pop()  # it may go on
    words = Counter(word.lower() for word in _WORD.findall(text, low, high))
    speakers = _speakers(text, low, high)
    fresh = fenced = True
    carried = -1
    for place, (start, end, heading) in enumerate(blocks):
        if heading:
            carried = -1
            yield Sentence(start, end, False, False, False, fenced)
            fresh, fenced = _is_heading(text[start:end], False, titles), False
            continue
        fresh = fresh or (place > 0 and blocks[place - 1][2] and end - start >= _SHORT)  # below a line of verse, maybe
        first = start if carried < 0 else carried
        carried = -1
        quotes = _Quotes(text, first, end)
        pieces = list(_cut(text, first, end, speakers))
        if not pieces:
            fresh = fenced = True  # * * * between two scenes
        for piece, (left, right) in enumerate(pieces):
            last = piece == len(pieces) - 1
            if last and _speaks(text[left:right], speakers):
                carried = left  # the name stands alone, what is said below it
                break
            whole = fresh and not _begins_small(text, left)
            quiet = not quotes.open_at(left)
            marked = _is_marked(text, left, right)
            shut = last or not (quotes.open_at(pieces[piece + 1][0]) or _begins_small(text, pieces[piece + 1][0]))
            sound = _is_sound(text[left:right], words) and not any(left <= at < right for at in quotes.lonely)
            yield Sentence(left, right, sound and whole and quiet, sound and marked and shut, sound, fenced)
            fresh, fenced = marked, False


def is_heading_like(text: str) -> bool:
    """Say whether a short text has no end mark, has a number only, or is all in capitals."""
    letters = [char for char in text if char.isalpha()]
    bare = text.rstrip(_CLOSING)
    unmarked = not bare.endswith((".", "!", "?", "…", ",", ";", ":", "-", "—", "–")) or bool(_NUMBERED.match(text))
    loud = len(letters) > 3 and sum(char.isupper() for char in letters) > 0.6 * len(letters)
    return len(text.split()) <= _HEADING_WORDS and (unmarked or loud)


def _blocks(text: str, low: int, high: int, titles: Collection[str]) -> Iterator[tuple[int, int, bool]]:
    """Yield paragraphs, lines that are headings apart, as start, end and whether it is a heading."""
    if low > 0:
        blank = _BLANK.search(text, low, high)
        low = blank.end() if blank else low
    bounds = [low, *(at for blank in _BLANK.finditer(text, low, high) for at in blank.span()), high]
    paragraphs = [(start, end) for start, end in zip(bounds[::2], bounds[1::2], strict=True) if text[start:end].strip()]
    is_verse = _is_verse([text[start:end].strip() for start, end in paragraphs], titles)
    said = Counter(match[0].strip() for match in _LINE.finditer(text, low, high) if len(match[0]) < _LONGEST_NAME)
    speakers = {line for line, n in said.items() if n >= 3 and line[-1:] in (".", ":")}
    for start, end in paragraphs:
        begin, lines = -1, list(_LINE.finditer(text, start, end))
        for line in lines:
            bare = line[0].strip()
            alone = len(lines) == 1
            if bare not in speakers and _is_heading(bare, alone and not is_verse, titles):
                if begin >= 0:
                    yield _stripped(text, begin, line.start(), False)
                    begin = -1
                yield _stripped(text, line.start(), line.end(), True)
            elif begin < 0:
                begin = line.start()
        if begin >= 0:
            yield _stripped(text, begin, end, False)


def _is_verse(paragraphs: Sequence[str], titles: Collection[str]) -> bool:
    """Say whether many paragraphs are short and have no end, those below a heading not counted."""
    if not paragraphs:
        return False
    headed = [False, *(len(text) < _SHORT and _is_heading(text, False, titles) for text in paragraphs[:-1])]
    unmarked = sum(
        len(text) < _SHORT and not below and not text.rstrip(_CLOSING).endswith((".", "!", "?", "…", ":", "-", "—"))
        for text, below in zip(paragraphs, headed, strict=True)
    )
    return unmarked > _VERSE_SHARE * max(1, len(paragraphs))


def _with_subtitles(text: str, blocks: list[tuple[int, int, bool]]) -> list[tuple[int, int, bool]]:
    """Call a short line without an end a heading where a heading follows, in books of verse too."""
    below = False
    for place in range(len(blocks) - 1, -1, -1):
        start, end, heading = blocks[place]
        line = text[start:end]
        below = heading or (below and "\n" not in line and is_heading_like(line))
        blocks[place] = (start, end, below)
    return blocks


def _is_heading(line: str, alone: bool, titles: Collection[str]) -> bool:
    letters = [char for char in line if char.isalpha()]
    titled = line.lower().strip(" .") in titles or (_NUMBERED.match(line) and len(line.split()) <= _HEADING_WORDS)
    if titled or (alone and _SIGNED.fullmatch(line)):
        return True
    if len(letters) > 3 and all(char.isupper() for char in letters) and len(line.split()) <= _HEADING_WORDS:
        return line[-1:] not in "!?"
    return alone and is_heading_like(line) and any(char.isalpha() for char in line)


def _stripped(text: str, start: int, end: int, heading: bool) -> tuple[int, int, bool]:
    piece = text[start:end]
    lead = len(piece) - len(piece.lstrip())
    return start + lead, start + lead + len(piece.strip()), heading


def _speakers(text: str, low: int, high: int) -> set[str]:
    said = Counter(match[0] for match in _SPEAKER.finditer(text, low, high))
    alone = Counter(
        line for line in (match[0].strip() for match in _LINE.finditer(text, low, high)) if _ALONE.match(line)
    )
    names = {name for name, n in said.items() if n >= _MIN_SPEECHES}
    return names | (set(alone) if sum(n for n in alone.values() if n >= 3) >= _MIN_ALONE else set())


def _speaks(text: str, speakers: Collection[str]) -> bool:
    return text.strip() in speakers


def _cut(text: str, start: int, end: int, speakers: Collection[str]) -> Iterator[tuple[int, int]]:
    begin = start
    for match in _END.finditer(text, start, end):
        if _ABBREVIATION.search(text, max(begin, match.start() - 8), match.end()):
            continue
        if _CONTINUES.match(text, match.end()) or (match[0].rstrip()[-1] in "\"'”’" and _SAYS.match(text, match.end())):
            continue
        if text[max(begin, match.start() - _LONGEST_NAME) : match.start() + 1].strip() in speakers:
            continue  # it opens what is said
        yield from _split_long(text, begin, match.end())
        begin = match.end()
    if begin < end:
        yield from _split_long(text, begin, end)


def _split_long(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    piece = text[start:end]
    cuts = [0]
    if len(piece.split()) > _LONG_WORDS:
        cuts += [match.end() for match in _SOFT_END.finditer(piece)]
    cuts.append(len(piece))
    for left, right in pairwise(cuts):
        body = piece[left:right]
        stripped = body.strip()
        if any(char.isalnum() for char in stripped):
            lead = len(body) - len(body.lstrip())
            yield start + left + lead, start + left + lead + len(stripped)


def _is_marked(text: str, start: int, end: int) -> bool:
    """Say whether a piece ends as a sentence does."""
    return text[start:end].rstrip(_CLOSING).endswith((".", "!", "?", "…"))


def _begins_small(text: str, start: int) -> bool:
    first = _WORD.search(text, start, start + 40)
    return first is not None and first[0][0].islower()


def _is_sound(text: str, words: Counter[str]) -> bool:
    if _NOTE.search(text) or _DAMAGED.search(text):
        return False
    return not any(_is_broken(match[1].lower(), match[2].lower(), words) for match in _HYPHEN.finditer(text))


def _is_broken(before: str, after: str, words: Counter[str]) -> bool:
    """Say whether a hyphen is one of the end of a printed line: док-торально, те-ре-ма."""
    parts = [before, *after.split("-")]
    if before in _BEFORE_HYPHEN or parts[-1] in _AFTER_HYPHEN or len(set(parts)) < len(parts):
        return False
    rare = [words[part] < 2 for part in parts]
    if before.isascii():
        return all(rare) and (words["".join(parts)] > 0 or len(parts[-1]) <= 4)
    if words["".join(parts)] > 0 or all(rare):
        return True
    return min(map(len, parts)) <= 3 and any(rare)


class _Quotes:
    """Which quotations and brackets of a paragraph are open where, and which marks have no partner."""

    def __init__(self, text: str, start: int, end: int) -> None:
        self._text = text
        self._marks = [match.start() for match in _MARKS.finditer(text, start, end)]
        self._read = 0
        self._open: list[str] = []
        self._single = 0
        self._straight = False
        self.lonely = _lonely(text, start, self._marks)

    def open_at(self, at: int) -> bool:
        """Say whether anything is open before a character; ask in ascending order."""
        while self._read < len(self._marks) and self._marks[self._read] < at:
            self._take(self._marks[self._read])
            self._read += 1
        return bool(self._open) or self._single > 0 or self._straight

    def _take(self, place: int) -> None:
        text, char = self._text, self._text[place]
        if char == '"':
            self._straight = not self._straight
        elif char in "'‘’":
            self._take_single(char, text[place - 1 : place] if place else " ", text[place + 1 : place + 7])
        elif _closes(char, self._open):
            self._open.pop()
        elif char in _PARTNER:
            self._open.append(char)

    def _take_single(self, char: str, before: str, after: str) -> None:
        if char == "‘" or (char == "'" and not (before.isalnum() or before in ".,!?…-") and after[:1].isalpha()):
            self._single += not _ELISION.match(after)
        elif not after[:1].isalnum():  # no apostrophe inside a word
            self._single = max(0, self._single - 1)


def _closes(char: str, opened: list[str]) -> bool:
    return bool(opened) and char in _PARTNER[opened[-1]]


def _lonely(text: str, start: int, marks: list[int]) -> list[int]:
    """Return where a bracket or a quotation mark has no partner in its paragraph.

    What is said in several paragraphs opens each of them with a mark, and closes the last one only.
    """
    opened: list[int] = []
    found = []
    straight = [place for place in marks if text[place] == '"']
    if len(straight) % 2 and straight[0] - start > 4:
        found += straight
    for place in marks:
        char = text[place]
        if opened and char in _PARTNER[text[opened[-1]]]:
            opened.pop()
        elif char in _PARTNER:
            opened.append(place)
        elif char in "»”)]":
            found.append(place)
    return found + [place for place in opened if text[place] not in "“„"]
