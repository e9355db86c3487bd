"""`ltm books fetch`: books from public libraries and datasets into a folder."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Any

VERB = "books-fetch"  # what `books fetch` becomes, since `books STUDY` is a verb of its own
_EXAMPLES = """examples:
  ltm books fetch gutenberg --language ru --top 500 --to library
  ltm books fetch gutenberg --language en --subject poetry --limit 100 --yes
  ltm books fetch standard-ebooks --user me@example.org --yes
  ltm books fetch hf:roneneldan/TinyStories --tokens 100M --yes
  ltm books fetch mix recipe.yaml --to corpus --yes

Without --yes it says what it would fetch and how long that takes, and asks. Catalogues alone are read for that.
"""


def spelled(arguments: list[str]) -> list[str]:
    """Return the arguments with `books fetch` as one word."""
    return [VERB, *arguments[2:]] if arguments[:2] == ["books", "fetch"] else arguments


def add_fetch(verbs: Any) -> None:
    """Add the verb and its flags."""
    verb: argparse.ArgumentParser = verbs.add_parser(
        VERB,
        prog="ltm books fetch",
        description="Fetch books into a folder that a study can read: politely, and so that it can go on later.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("source", metavar="SOURCE", help="gutenberg, standard-ebooks, hf:OWNER/NAME, or mix")
    verb.add_argument("recipe", metavar="RECIPE", nargs="?", help="of mix: a YAML file of sources with weights")
    verb.add_argument("--to", metavar="DIR", default="library", help="folder for the books (default: library)")
    verb.add_argument("--yes", action="store_true", help="start without asking")
    verb.add_argument("--language", action="append", default=[], metavar="CODE", help="two letters, also several times")
    verb.add_argument("--top", type=int, metavar="N", help="of gutenberg: the N most read ones")
    verb.add_argument("--limit", type=int, metavar="N", help="at most N books, in the order of the catalogue")
    verb.add_argument("--author", default="", help="of gutenberg: part of an author's name")
    verb.add_argument("--subject", default="", help="of gutenberg: part of a subject or bookshelf")
    verb.add_argument("--any-rights", action="store_true", help="of gutenberg: also what is in copyright")
    verb.add_argument("--feed", default="all", help="of standard-ebooks: all (for members) or new-releases")
    verb.add_argument("--user", default="", metavar="EMAIL", help="of standard-ebooks: a member's address")
    verb.add_argument("--tokens", metavar="COUNT", help="of a dataset: about so many tokens of it (4 bytes each)")
    verb.add_argument("--split", default="train", help="of a dataset (default: train)")
    verb.add_argument("--config", default="", help="of a dataset with several subsets")
    verb.add_argument("--revision", default="main", help="of a dataset: branch, tag or commit")
    verb.add_argument("--column", default="", help="of a dataset: the column with the text")
    verb.add_argument(
        "--form", choices=("auto", "documents", "volumes"), default="auto", help="of a dataset: rows as books"
    )
    verb.add_argument("--rate", type=float, default=1.0, metavar="N", help="requests a second to one host (default: 1)")
    verb.add_argument("--json", action="store_true", help="print one JSON document on stdout and nothing else")
    verb.add_argument("--quiet", action="store_true", help="no progress")
    verb.set_defaults(call=fetch_verb)


def fetch_verb(options: argparse.Namespace) -> int:
    """Fetch, after saying what it takes; returns 1 when some books could not be had."""
    from ltm.books.fetch.client import Client, Manners
    from ltm.books.fetch.session import Session
    from ltm.errors import InputError
    from ltm.progress import Progress

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not 0 < options.rate <= 20:
        raise InputError(f"--rate {options.rate:g} is not between 0 and 20 requests a second", "1 is polite")
    progress = Progress(quiet=options.quiet)
    recipe = _recipe(options)
    with Client(Manners(requests_per_second=options.rate), progress.say) as client:
        session = Session(client, recipe, Path(options.to), progress)
        bill = session.estimate()
        if not options.json or not options.yes:
            _print(options, {"estimate": bill.as_json(), "started": False}, bill.text(Path(options.to)))
        session.check_room(bill)
        if not options.yes and not _agreed(options):
            return 0
        given = session.fetch()
    _print(options, {"estimate": bill.as_json(), "started": True, **given.as_json()}, given.text())
    return 1 if given.failed else 0


def _recipe(options: argparse.Namespace) -> Any:
    """Return what is asked for as a mix, of one source where no mix is named."""
    from ltm.books.fetch.session import single
    from ltm.errors import InputError

    if options.source == "mix":
        if not options.recipe:
            raise InputError("a mix needs a recipe", "ltm books fetch mix RECIPE.yaml; docs/fetch.md shows one")
        from ltm.books.fetch.mix import read_recipe

        return read_recipe(Path(options.recipe))
    if options.recipe:
        raise InputError(f"{options.source} takes no recipe ({options.recipe})", "only `mix` does")
    names = ("author", "subject", "feed", "user", "split", "config", "revision", "column", "form", "top")
    fields = {name: getattr(options, name) for name in names}
    language = [code.strip().lower() for text in options.language for code in text.split(",") if code.strip()]
    return single(options.source, options.tokens, options.limit, options.any_rights, {**fields, "language": language})


def _agreed(options: argparse.Namespace) -> bool:
    if options.json or not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        if not options.json:
            print("nothing was fetched; add --yes to start", file=sys.stderr)
        return False
    print("start? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes", "д", "да")


def _print(options: argparse.Namespace, value: dict[str, Any], text: str) -> None:
    if options.json:
        from ltm.store import json_safe

        print(json.dumps(json_safe(value), indent=1, ensure_ascii=False))
    else:
        print(text)
