"""Take off what Project Gutenberg puts around a book: header, small print, licence.

The header also says what the book is, so it is read for metadata before it goes. All forms since 1991 are known: the
`*** START OF` lines, the small print of the etexts, the headers before it that end in no line of their own, Gutenberg
of Australia and of Canada, German, French, Spanish and Italian lines.
"""

from __future__ import annotations

import re

from ltm.books.words import lowered

_HEAD_CHARS = 40_000  # a header with the old small print has 15,000
_LOOSE_CHARS = 12_000
_PROJECT = r"(?:PROJE[CK]TS?|PROJET|PROYECTO|PROGETTO)[ \t]+GUTENBERG"
_START = re.compile(
    rf"^[ \t>]*\*{{2,4}}[ \t]*(?:START|BEGIN\w*|D[ÉE]BUT|ANFANG|BEGINN|INICIO|INIZIO)\b[^\n]{{0,40}}{_PROJECT}[^\n]*\n",
    re.IGNORECASE | re.MULTILINE,
)
_SMALL_PRINT_END = re.compile(r"^[^\n]{0,10}\*END\*? ?(?:THE SMALL PRINT[^\n]*|\*+)\n", re.IGNORECASE | re.MULTILINE)
_END = re.compile(
    rf"^[^\w\n]{{0,12}}(?:END(?:E)? OF (?:(?:THE|THIS|VOLUME \w+ OF THE) )?{_PROJECT}"
    rf"|THE END OF (?:THE |THIS )?{_PROJECT}|THIS IS THE END OF (?:THE |THIS )?{_PROJECT}"
    rf"|END OF (?:THE |THIS )?(?:ETEXT|E-TEXT|EBOOK) (?:OF|BY)\b|END OF (?:THE|THIS) {_PROJECT}"
    rf"|(?:ENDE DIESE\w+|ENDE DES|FIN D[EU]L?|FINE DEL|FINAL DEL) {_PROJECT}"
    r"|THIS FILE SHOULD BE NAMED [\w.-]+\.(?:TXT|ZIP)"
    r"|START:? FULL LICENSE|START\*{1,2} ?THE SMALL PRINT|THE FULL PROJECT GUTENBERG LICENSE"
    r"|A WORD FROM PROJECT GUTENBERG|THIS SITE IS FULL OF FREE EBOOKS|GO TO PROJECT GUTENBERG OF AUSTRALIA)"
    r"[^\n]*",
    re.IGNORECASE | re.MULTILINE,
)
_ELSEWHERE = re.compile(
    r"Project Gutenberg (?:of )?(?:Australia|Canada)|Distributed Proofreaders Canada|Faded ?Page", re.I
)
_END_ELSEWHERE = re.compile(
    r"^[ \t]*\[?End of [^\n]{3,150}\bby [^\n]{3,80}\]?[ \t]*$|^[ \t]*Project Gutenberg Australia", re.M
)
_HEADER_PARAGRAPH = re.compile(
    r"project gutenberg|gutenberg[ -]?tm|^\W*this e-?(?:book|text) is (?:for the use|made available)|^\W*(?:Title|"
    r"Author|"
    r"Language|Translator|Release date|Posting date|Last updated?|Edition|E-?Book No|Date (?:first )?posted|Character "
    r"set encoding|Most recently updated|Date most recently updated|Official release date|Date first posted)\s*:|"
    r"^\W*copyright laws are chang|free plain vanilla electronic texts|^\W*please (?:take a look at|do not "
    r"remove|read) (?:the important|this header|this before)|etexts readable by both humans|"
    r"produced by hundreds of volunteers|"
    r"information on contacting project|\[e-?(?:text|book) ?#\d+\]|^\W*this header should be|"
    r"further information is included",
    re.IGNORECASE,
)
_LICENCE = re.compile(  # sentences that stand in no other book
    r"project gutenberg[ -]?(?:tm|\(tm\)|™)|project gutenberg literary archive|project gutenberg license|"
    r"this e-?(?:book|text) is for the use of anyone anywhere|you may copy it, give it away or re-?use it|"
    r"almost no restrictions whatsoever|updated editions will replace the previous|"
    r"creating the works from (?:public domain )?print editions|redistribution is subject to the trademark|"
    r"copyright laws are changing all over the world|information about project gutenberg|"
    r"we are now trying to release all our (?:books|etexts)|readable by both humans and (?:by )?computers|"
    r"most people start at our web ?site|this web ?site includes information about project|"
    r"(?:www\.)?gutenberg\.(?:org|net)/(?:license|files|dirs|etext|ebooks|contact|donate)|pglaf\.org|"
    r"legally required to prepare\) your|money should be paid to the|the small print!|"
    r"dieses buch wurde uns freundlicherweise vom \W?gutenberg|gutenberg\.aol\.de|etexts? (?:is|are) (?:usually )?"
    r"(?:created|prepared) from (?:multiple|several) editions|please do not remove this header|"
    r"(?:this|these) e-?books? (?:was|were) produced by project gutenberg|volunteers and financial support to provide",
    re.IGNORECASE,
)
_LICENCE_HINTS = (
    "gutenberg", " etext", "e-text", "ebook", "pglaf", "small print", "copyright laws", "restrictions whatsoever"
)  # fmt: skip
_END_HINTS = ("gutenberg", "etext", "e-text", "ebook", "file should be named", "license", "small print")
_FIELD = re.compile(
    r"^[ \t]*(Title|Author|Authors|Creator|Language)[ \t]*:[ \t]*([^\n]*\S[^\n]*)((?:\n[ \t]{3,}[^\n:]+$)*)",
    re.MULTILINE | re.I,
)
_FIRST_LINE = re.compile(
    r"^[^\w\n]{0,8}(?:The |This is the )?Project Gutenberg(?:['’]s)?,?[ \t]+"
    r"(?:E-?(?:Book|Text)s?[ \t]*,?[ \t]*)?(?:of[ \t]+|edition of[ \t]+)?"
    r"(?P<title>[^\n]+?(?:\n[^\n]+?)??),?\s+by[ \t]+(?P<author>[^\n#\[]+?)[ \t*]*(?:[#\[][^\n]*)?$",
    re.IGNORECASE | re.MULTILINE,
)
_LANGUAGES = {
    "english": "en", "russian": "ru", "french": "fr", "german": "de", "spanish": "es", "italian": "it", "dutch": "nl",
    "portuguese": "pt", "latin": "la", "finnish": "fi", "swedish": "sv", "polish": "pl", "danish": "da", "greek": "el",
    "chinese": "zh", "hungarian": "hu", "esperanto": "eo", "czech": "cs", "norwegian": "no", "catalan": "ca",
}  # fmt: skip
_WRAPPED_TITLE = 55  # a first title line as long as this goes on below; a shorter one is followed by a subtitle


def read_header(text: str) -> dict[str, str]:
    """Return title, author, language (ISO 639-1) and rights as a Gutenberg header names them; empty for other texts."""
    head = text[:_HEAD_CHARS].replace("\r\n", "\n").replace("\ue000", "")
    if "project gutenberg" not in head.lower():
        return {}
    start = _START.search(head)
    top = head[: start.start()] if start else head[:_LOOSE_CHARS]
    fields: dict[str, str] = {}
    for match in _FIELD.finditer(top):
        name = {"authors": "author", "creator": "author"}.get(match[1].lower(), match[1].lower())
        fields.setdefault(name, _value(name, match[2].strip(), match[3]))
    first = _FIRST_LINE.search(top[:3000])
    if first:
        fields.setdefault("title", _plain(first["title"]))
        fields.setdefault(
            "author", re.split(r",? (?:translated|edited|illustrated)\b", _plain(first["author"]), flags=re.I)[0]
        )
    fields["language"] = _LANGUAGES.get(re.split(r"[,;/ ]", fields.get("language", "").lower())[0], "")
    copyrighted = re.search(r"this is a copyrighted project gutenberg", text[:_HEAD_CHARS], re.IGNORECASE)
    fields["rights"] = "copyrighted, Project Gutenberg License" if copyrighted else "Project Gutenberg License"
    return fields


def _value(name: str, first: str, below: str) -> str:
    lines = [line.strip() for line in below.split("\n") if line.strip()]
    if name == "author":
        return "; ".join([first, *lines]) if lines and not first.endswith(",") else " ".join([first, *lines])
    wrapped = len(first) >= _WRAPPED_TITLE or first.endswith((",", ";", ":", "-", " of", " the", " and", " or"))
    return " ".join([first, *lines]) if wrapped or (lines and lines[0][0].islower()) else first


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip(" *.,")


def strip(text: str) -> str:
    """Return the text without Gutenberg's header and licence; other texts come back unchanged."""
    if "gutenberg" not in (text[:_HEAD_CHARS] + text[-_HEAD_CHARS:]).lower() and not _ELSEWHERE.search(text[:3000]):
        return text
    begin = _end_of_header(text)
    parts = []
    while True:
        # the licence of a short book can be longer than the book, so the end is looked for in all that follows
        end = _find_end(text, begin)
        parts.append(text[begin : end.start() if end else len(text)])
        following = _START.search(text, end.end()) if end else None
        if following is None:
            break
        begin = _after_start_line(text, following)  # several books in one file, each with its own frame
    body = "\n\n".join(part.strip() for part in parts if part.strip())
    if _ELSEWHERE.search(text[:3000]) and (last := _END_ELSEWHERE.search(body, max(0, len(body) - 3000))):
        body = body[: last.start()]
    return body.strip("\n\r")


def _find_end(text: str, begin: int) -> re.Match[str] | None:
    """Return the first line after a book that is no longer the book; only lines with a telling word are looked at."""
    lower = lowered(text)
    if len(lower) != len(text):  # a letter whose small form is two characters: places would not agree
        return _END.search(text, begin)
    first: re.Match[str] | None = None
    for hint in _END_HINTS:
        at = lower.find(hint, begin, first.start() if first else len(text))
        while at >= 0:
            start = max(begin, text.rfind("\n", 0, at) + 1)
            match = _END.match(text, start)
            if match:
                first = match
                break
            at = lower.find(hint, at + 1, first.start() if first else len(text))
    return first


def drop_licence_sentences(text: str) -> str:
    """Return the text without paragraphs that are sentences of Gutenberg's licence, wherever they stand."""
    lower = lowered(text)
    if not any(hint in lower for hint in _LICENCE_HINTS):
        return text
    paragraphs = re.split(r"(\n[ \t]*(?:\n[ \t]*)+)", text)
    return "".join("" if len(part) < 5000 and _is_licence(part) else part for part in paragraphs)


def _is_licence(paragraph: str) -> bool:
    lower = paragraph.lower()
    return any(hint in lower for hint in _LICENCE_HINTS) and _LICENCE.search(paragraph) is not None


def _end_of_header(text: str) -> int:
    head_end = min(len(text), _HEAD_CHARS)
    start = _START.search(text, 0, head_end)
    begin = _after_start_line(text, start) if start else 0
    small = _SMALL_PRINT_END.search(text, begin, min(len(text), begin + 16_000) if start else head_end)
    if small:
        return small.end()
    return begin if start else _end_of_loose_header(text)


def _after_start_line(text: str, start: re.Match[str]) -> int:
    """Return where the start line ends; the title in it can go on over several lines, up to the closing stars."""
    if re.search(r"\*{3}[ \t]*\n\Z", start[0]):
        return start.end()
    rest = re.compile(r"(?:[^\n]+\n){0,3}?[^\n]*\*{3}[ \t]*\n").match(text, start.end())
    return rest.end() if rest else start.end()


def _end_of_loose_header(text: str) -> int:
    """Return where a header without a start line ends: after the last head paragraph that belongs to one."""
    head = text[:_LOOSE_CHARS]
    if "gutenberg" not in head[:5000].lower() and not _ELSEWHERE.search(head[:3000]):
        return 0
    end = strangers = 0
    for match in re.finditer(r"[^\n]+(?:\n[ \t]*[^\s][^\n]*)*", head):
        if _HEADER_PARAGRAPH.search(match[0]):
            end = match.end()
            strangers = 0
        else:
            strangers += len(match[0])
            if strangers > 3000:  # that much is the book
                break
    return end
