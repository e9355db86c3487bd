"""Plain text in any of the encodings that books are found in.

Order of trust: byte-order mark, UTF-8 that decodes without fault, UTF-16 without a mark, an encoding that the file
names itself (Project Gutenberg does), Cyrillic by letter frequency, then charset-normalizer for the other alphabets.
"""

from __future__ import annotations

import codecs
import re

from ltm.books.readers.base import HEADING, RawBook
from ltm.errors import BookError

_MARKS = (  # UTF-32 before UTF-16: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_DECLARED = re.compile(rb"(?:character set encoding|charset|encoding)\s*[:=]\s*[\"']?([A-Za-z0-9_.:-]{3,20})", re.I)
_CYRILLIC = ("cp1251", "koi8-r", "cp866", "iso8859-5", "mac-cyrillic")
_FREQUENT = frozenset("оеаинтсрвлкмдпу")  # 15 lower-case letters make three quarters of Russian text
_WESTERN = frozenset("àáâäãåæçèéêëìíîïñòóôöõøœùúûüÿßÀÁÂÄÅÆÇÈÉÊËÍÎÏÑÓÔÖØŒÙÚÛÜŸ“”‘’«»–—…¿¡°§©£½¼¾·º\xa0")
_OTHERS = ("cp1252", "cp1250", "cp1253", "cp1254", "cp1255", "cp1257", "latin-1", "gb18030", "big5", "shift_jis")
_SAMPLE_BYTES = 65_536
_TAG = re.compile(rb"<[A-Za-z/!?][^<>]{0,500}>")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\ufffd]")
_BINARY_SHARE = 0.02  # control characters above this share: not a text


class TxtReader:
    """Reads plain text."""

    suffixes = (".txt", ".text")

    def read(self, data: bytes) -> RawBook:
        """Return the text; see `decode`."""
        return RawBook(text=decode(data))


def decode(data: bytes) -> str:
    """Return the text of a file in an unknown encoding, without byte-order mark.

    Raises:
        BookError: it is not text.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _checked(data[len(mark) :].decode(encoding, errors="replace"))
    try:
        return _checked(data.decode("utf-8"))
    except UnicodeDecodeError:
        pass
    return _checked(data.decode(_guess(data), errors="replace"))


def _guess(data: bytes) -> str:
    sample = data[:_SAMPLE_BYTES]
    if sample.lstrip()[:1] == b"<":
        sample = _TAG.sub(b"", data[: 4 * _SAMPLE_BYTES])[:_SAMPLE_BYTES]  # Latin tags hide what the text is written in
    wide = _guess_wide(sample)
    if wide:
        return wide
    high = sum(byte >= 0x80 for byte in sample)
    letters = high + sum(65 <= byte <= 90 or 97 <= byte <= 122 for byte in sample)
    if high > 0.4 * max(letters, 1):
        best = max(_CYRILLIC, key=lambda encoding: _cyrillic_score(sample, encoding))
        if _cyrillic_score(sample, best) > 0.5 * high:
            return best
    if (declared := _declared(sample)) is not None:
        return declared
    if _nearly_utf8(data):
        return "utf-8"
    western = sum(letter in _WESTERN for letter in sample.decode("cp1252", errors="replace"))
    if western < 0.95 * high and (other := _normalizer_guess(sample)):
        return other
    # bytes 80-9F are curly quotes and dashes in cp1252 and nothing at all in latin-1
    return "cp1252" if any(0x80 <= byte <= 0x9F for byte in data) else "latin-1"


def _guess_wide(sample: bytes) -> str | None:
    """Recognise UTF-16 without a mark: in the scripts of Europe every other byte is 0 or 4."""
    for encoding, high_bytes in (("utf-16-le", sample[1::2]), ("utf-16-be", sample[0::2])):
        if len(high_bytes) > 16 and sum(byte in (0, 4) for byte in high_bytes) > 0.9 * len(high_bytes):
            return encoding
    return None


def _cyrillic_score(sample: bytes, encoding: str) -> int:
    return sum(letter in _FREQUENT for letter in sample.decode(encoding, errors="replace"))


def _declared(sample: bytes) -> str | None:
    match = _DECLARED.search(sample[:3000])
    if match is None:
        return None
    try:
        encoding = codecs.lookup(match[1].decode("ascii")).name
        sample.decode(encoding)
    except (LookupError, UnicodeDecodeError, ValueError, TypeError):
        return None
    return "cp1252" if encoding in ("iso8859-1", "ascii") and re.search(rb"[\x80-\x9f]", sample) else encoding


def _nearly_utf8(data: bytes) -> bool:
    """Tell whether a few bad bytes (a cut-off end, one broken line) spoil what is UTF-8 otherwise."""
    text = data.decode("utf-8", errors="replace")
    n_wide = sum(letter > "\x7f" for letter in text)
    return text.count("\ufffd") <= 0.01 * max(n_wide, 1)


def _normalizer_guess(sample: bytes) -> str | None:
    from charset_normalizer import from_bytes

    match = from_bytes(sample, cp_isolation=list(_OTHERS)).best()
    return match.encoding if match is not None else None


def _checked(text: str) -> str:
    sample = text[:_SAMPLE_BYTES]
    if len(_CONTROL.findall(sample)) > _BINARY_SHARE * max(len(sample), 1):
        raise BookError("the file is not text: it is full of control characters")
    return text.replace(HEADING, "")
