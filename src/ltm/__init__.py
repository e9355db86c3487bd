"""ltm: find out, by brute force, what makes a good training set of books.

`ltm.load("demo")` returns a study; the command line does the same with `ltm run demo`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ltm.study import Study, load

__all__ = ["Study", "load"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # imported late: `ltm --help` must not pay for it
        from ltm import study

        return getattr(study, name)
    raise AttributeError(name)
