"""What a check finds: problems that stop a study and warnings that do not, each with its place in the file."""

from __future__ import annotations

from dataclasses import dataclass, field

from ltm.config import Document


@dataclass
class Notes:
    """The findings of one check, in the order in which they were made.

    Args:
        document: The study file, which knows where each setting stands.
        unread: Settings whose own value is already known to be wrong; nothing is said on their account.
    """

    document: Document
    unread: frozenset[str] = frozenset()
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def problem(self, key: str, text: str, *also: str) -> None:
        """Note what stops the study: a setting, what is wrong with it, and other settings that this follows from."""
        self._add(self.problems, key, text, also)

    def warning(self, key: str, text: str, *also: str) -> None:
        """Note what is allowed but hardly meant; arguments as of `problem`."""
        self._add(self.warnings, key, text, also)

    def _add(self, to: list[str], key: str, text: str, also: tuple[str, ...]) -> None:
        if not any(self._is_unread(name) for name in (key, *also)):
            to.append(f"{self.document.where(tuple(key.split('.')))}: `{key}` {text}")

    def _is_unread(self, key: str) -> bool:
        return any(key == name or key.startswith(f"{name}.") for name in self.unread)
